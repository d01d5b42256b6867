"""The responses protocol: plain bodies and typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmcache_fast.cli.upstream.answers import Answer, text_of
from llmcache_fast.cli.upstream.chat import CREATED
from llmcache_fast.cli.upstream.wire import Controls, Event


def prompt_of(body: Mapping[str, Any]) -> str:
    """Every text of the input; raises ValueError when there is none."""
    if not body.get("input"):
        raise ValueError("'input' must be a non-empty string or list")
    return f"{body.get('instructions') or ''} {text_of(body['input'])}"


def tools_of(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The function tools to call: those offered, unless the last input item is a call's output."""
    items = body["input"]
    answered = isinstance(items, list) and isinstance(items[-1], Mapping)
    if body.get("tool_choice") == "none" or (answered and items[-1].get("type") == "function_call_output"):
        return []
    tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    return [(tool.get("name", "tool"), tool.get("parameters") or {}) for tool in tools]


def plain(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> dict[str, Any]:
    """The whole response of a call that does not stream."""
    reason = {"length": "max_output_tokens", "filter": "content_filter"}
    incomplete = next((reason[name] for name in reason if name in controls), None)
    return {
        **_shell(answer, body, serial),
        "status": "incomplete" if incomplete else "completed",
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "output": _output(answer, controls, serial),
        "usage": {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
    }


def _shell(answer: Answer, body: Mapping[str, Any], serial: int) -> dict[str, Any]:
    return {
        "id": f"resp_{answer.seed}_{serial}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "usage": None,
    }


def _output(answer: Answer, controls: Controls, serial: int) -> list[dict[str, Any]]:
    if answer.tool_calls:
        return [
            {
                "type": "function_call",
                "id": f"fc_{answer.seed}_{serial}_{n}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
            for n, call in enumerate(answer.tool_calls)
        ]
    if "refusal" in controls:
        part: dict[str, Any] = {"type": "refusal", "refusal": "I cannot help with that."}
    elif answer.text:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
    else:
        return []
    message = {"type": "message", "id": f"msg_{answer.seed}_{serial}", "role": "assistant"}
    return [{**message, "status": "completed", "content": [part]}]


def stream(answer: Answer, body: Mapping[str, Any], controls: Controls, serial: int) -> Iterator[Event]:
    """The events of a streaming call; the last one holds the whole response."""
    number = 0

    def event(kind: str, **fields: Any) -> Event:
        nonlocal number
        value = {"type": kind, "sequence_number": number, **fields}
        number += 1
        return Event(kind, msgspec.json.encode(value))

    whole = plain(answer, body, controls, serial)
    shell = _shell(answer, body, serial)
    yield event("response.created", response=shell)
    yield event("response.in_progress", response=shell)
    for index, item in enumerate(whole["output"]):
        where = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "function_call":
            opened = {**item, "status": "in_progress", "arguments": ""}
            yield event("response.output_item.added", output_index=index, item=opened)
            for start in range(0, len(item["arguments"]), 8):
                delta = item["arguments"][start : start + 8]
                yield event("response.function_call_arguments.delta", **where, delta=delta)
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield event("response.function_call_arguments.done", **where, **done)
        else:
            part = item["content"][0]
            opened = {**item, "status": "in_progress", "content": []}
            yield event("response.output_item.added", output_index=index, item=opened)
            inside = {**where, "content_index": 0}
            if part["type"] == "refusal":
                yield event("response.content_part.added", **inside, part={"type": "refusal", "refusal": ""})
                yield event("response.refusal.delta", **inside, delta=part["refusal"])
                yield event("response.refusal.done", **inside, refusal=part["refusal"])
            else:
                empty = {"type": "output_text", "text": "", "annotations": []}
                yield event("response.content_part.added", **inside, part=empty)
                for piece in answer.pieces():
                    yield event("response.output_text.delta", **inside, delta=piece, logprobs=[])
                yield event("response.output_text.done", **inside, text=part["text"], logprobs=[])
            yield event("response.content_part.done", **inside, part=part)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{whole['status']}", response=whole)
