"""What an answer says, whatever protocol it came by, so that two answers can be compared.

What belongs here: finding the text. What does not: whether two texts say the same (`_semantics`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmcache_fast._entry import Entry

_decode_json = msgspec.json.Decoder().decode
_decode_msgpack = msgspec.msgpack.Decoder().decode
_decode_stream = msgspec.msgpack.Decoder(tuple[bytes, list[bytes]]).decode


def value_of(entry: Entry) -> Any:
    """The answer as builtins: text; the decoded value; of a recording what its events or its body say, as
    text where that is found. None for what cannot be read."""
    payload = entry.payload
    if isinstance(payload, str):
        return payload
    try:
        match entry.content:
            case "stream":
                _, chunks = _decode_stream(payload)
                return _of_body(b"".join(chunks))
            case "json":
                return said(_decode_json(payload))
            case "msgpack":
                return said(_decode_msgpack(payload))
            case _:
                return payload
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def said(value: Any) -> Any:
    """The text of a response in the shape of a known protocol; anything else as it is."""
    try:
        if isinstance(value, dict):
            if isinstance(value.get("choices"), list):
                return "".join(_of_message(choice.get("message") or choice) for choice in value["choices"])
            if isinstance(value.get("output"), list):
                return "".join(_of_message(item) for item in value["output"])
            if isinstance(value.get("content"), list):
                return _of_message(value)
    except (AttributeError, TypeError):
        pass
    return value


def _of_message(message: Any) -> str:
    """Text, and calls of tools with their arguments but without their ids, which are another each time."""
    content = message.get("content", message.get("text"))
    text = content if isinstance(content, str) else ""
    if isinstance(content, list):
        text = "".join(_of_part(part) for part in content)
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    if message.get("type") == "function_call":
        calls.append(message)
    return text + "".join(f"{call.get('name')}({call.get('arguments')})" for call in calls)


def _of_part(part: Any) -> str:
    if part.get("type") == "tool_use":
        return f"{part.get('name')}({msgspec.json.encode(part.get('input'), order='sorted').decode()})"
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _of_body(body: bytes) -> Any:
    if not body.lstrip().startswith((b"data:", b"event:", b":")):
        return said(_decode_json(body))
    found: list[str] = []
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            found.append(_of_event(_decode_json(data)))
    return "".join(found)


def _of_event(event: Any) -> str:
    """What an event adds to the answer."""
    if not isinstance(event, dict):
        return ""
    if isinstance(event.get("delta"), str):
        return event["delta"] if str(event.get("type", "")).endswith(".delta") else ""
    choices = event.get("choices")
    deltas = (
        [choice.get("delta", choice) for choice in choices]
        if isinstance(choices, list)
        else [event.get("delta")]
    )
    return "".join(_of_delta(delta) for delta in deltas if isinstance(delta, dict))


def _of_delta(delta: dict[str, Any]) -> str:
    parts = [delta.get("content"), delta.get("text"), delta.get("partial_json")]
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        parts += [function.get("name"), function.get("arguments")]
    return "".join(part for part in parts if isinstance(part, str))
