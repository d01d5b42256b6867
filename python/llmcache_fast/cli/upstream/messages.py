"""The Anthropic messages protocol: plain bodies and typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmcache_fast.cli.upstream.answers import Answer, text_of
from llmcache_fast.cli.upstream.chat import prompt_of as _messages_text
from llmcache_fast.cli.upstream.wire import Controls, Event


def prompt_of(body: Mapping[str, Any]) -> str:
    """Every text of the system prompt and the messages; raises ValueError for a malformed request."""
    if not isinstance(body.get("max_tokens"), int):
        raise ValueError("'max_tokens' must be an integer")
    return f"{text_of(body.get('system'))} {_messages_text(body)}"


def tools_of(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The tools to call: those offered, unless the last message brings a tool's result."""
    content = body["messages"][-1].get("content")
    if isinstance(content, list) and any(part.get("type") == "tool_result" for part in content):
        return []
    if (body.get("tool_choice") or {}).get("type") == "none":
        return []
    return [(tool.get("name", "tool"), tool.get("input_schema") or {}) for tool in body.get("tools") or ()]


def _stop_reason(answer: Answer, controls: Controls) -> str:
    if "length" in controls:
        return "max_tokens"
    if "refusal" in controls or "filter" in controls:
        return "refusal"
    return "tool_use" if answer.tool_calls else "end_turn"


def _usage(answer: Answer) -> dict[str, int]:
    # A third of the input counts as read from the provider's own prompt cache, so that sums are visible.
    read = answer.input_tokens // 3
    return {
        "input_tokens": answer.input_tokens - read,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": 0,
        "output_tokens": answer.output_tokens,
    }


def _shell(answer: Answer, body: Mapping[str, Any], serial: int) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.seed}_{serial}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(answer), "output_tokens": 1},
    }


def plain(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> dict[str, Any]:
    """The whole response of a call that does not stream."""
    content: list[dict[str, Any]] = []
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for call in answer.tool_calls:
        arguments = msgspec.json.decode(call.arguments)
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
    return {
        **_shell(answer, body, serial),
        "content": content,
        "stop_reason": _stop_reason(answer, controls),
        "usage": _usage(answer),
    }


def stream(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> Iterator[Event]:
    """The events of a streaming call, `message_stop` included."""

    def event(kind: str, **fields: Any) -> Event:
        return Event(kind, msgspec.json.encode({"type": kind, **fields}))

    yield event("message_start", message=_shell(answer, body, serial))
    yield event("ping")
    index = 0
    if answer.text:
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in answer.pieces():
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield event("content_block_stop", index=0)
        index = 1
    for call in answer.tool_calls:
        opened = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield event("content_block_start", index=index, content_block=opened)
        for start in range(0, len(call.arguments), 8):
            part = call.arguments[start : start + 8]
            delta = {"type": "input_json_delta", "partial_json": part}
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
        index += 1
    reason = _stop_reason(answer, controls)
    ended = {"stop_reason": reason, "stop_sequence": None}
    yield event("message_delta", delta=ended, usage={"output_tokens": answer.output_tokens})
    yield event("message_stop")
