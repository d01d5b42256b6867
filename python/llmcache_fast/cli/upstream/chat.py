"""The chat completions protocol: plain bodies and chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmcache_fast.cli.upstream.answers import Answer, text_of
from llmcache_fast.cli.upstream.wire import Controls, Event

CREATED = 1_760_000_000


def prompt_of(body: Mapping[str, Any]) -> str:
    """Every text of the messages; raises ValueError for a malformed list."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a non-empty list")
    if not all(isinstance(message, Mapping) for message in messages):
        raise ValueError("'messages' must hold objects")
    return " ".join(text_of(message.get("content")) for message in messages)


def tools_of(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The tools to call: those offered, unless the last message is a tool's result."""
    if body.get("tool_choice") == "none" or body["messages"][-1].get("role") == "tool":
        return []
    functions = [tool.get("function") or {} for tool in body.get("tools") or ()]
    return [(function.get("name", "tool"), function.get("parameters") or {}) for function in functions]


def finish_reason(answer: Answer, controls: Controls) -> str:
    """Why the answer ended, in this protocol's words."""
    if "length" in controls:
        return "length"
    if "filter" in controls:
        return "content_filter"
    return "tool_calls" if answer.tool_calls else "stop"


def usage(answer: Answer) -> dict[str, Any]:
    """The usage object."""
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def plain(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> dict[str, Any]:
    """The whole response of a call that does not stream."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if "refusal" in controls:
        message |= {"content": None, "refusal": "I cannot help with that."}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    choice = {"message": message, "logprobs": None, "finish_reason": finish_reason(answer, controls)}
    return {
        "id": f"chatcmpl-{answer.seed}-{serial}",
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [{"index": n, **choice} for n in range(body.get("n") or 1)],
        "usage": usage(answer),
        "system_fingerprint": "fp_demo",
    }


def stream(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> Iterator[Event]:
    """The chunks of a streaming call, `[DONE]` included."""
    options = body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage"))

    def chunk(choices: list[dict[str, Any]], total: dict[str, Any] | None = None) -> Event:
        value: dict[str, Any] = {
            "id": f"chatcmpl-{answer.seed}-{serial}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": body["model"],
            "system_fingerprint": "fp_demo",
            "choices": choices,
        }
        if with_usage:
            value["usage"] = total
        return Event(None, msgspec.json.encode(value))

    reason = finish_reason(answer, controls)
    for n in range(body.get("n") or 1):
        for delta in _deltas(answer, controls):
            yield chunk([{"index": n, "delta": delta, "logprobs": None, "finish_reason": None}])
        yield chunk([{"index": n, "delta": {}, "logprobs": None, "finish_reason": reason}])
    if with_usage:
        yield chunk([], usage(answer))
    yield Event(None, b"[DONE]")


def _deltas(answer: Answer, controls: Controls) -> Iterator[dict[str, Any]]:
    if "refusal" in controls:
        yield {"role": "assistant", "content": None, "refusal": ""}
        yield {"refusal": "I cannot help with that."}
        return
    yield {"role": "assistant", "content": None if answer.tool_calls else "", "refusal": None}
    for piece in answer.pieces():
        yield {"content": piece}
    for n, call in enumerate(answer.tool_calls):
        yield {
            "tool_calls": [
                {
                    "index": n,
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": ""},
                }
            ]
        }
        for start in range(0, len(call.arguments), 8):
            part = call.arguments[start : start + 8]
            yield {"tool_calls": [{"index": n, "function": {"arguments": part}}]}
