"""What an answer says, in whatever shape it came."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llmcache_fast._codec import encode
from llmcache_fast._entry import NEVER, Content, Entry, Facts
from llmcache_fast.semantic.answers import value_of


def entry(payload: bytes | str, content: Content) -> Entry:
    return Entry(bytes(32), "default", content, payload, Facts(), 0, NEVER, NEVER, 1, 1, 0)


def of(value: Any) -> Any:
    content, payload = encode(value)
    return value_of(entry(payload, content))


def recorded(*chunks: bytes) -> Any:
    return value_of(entry(msgspec.msgpack.encode((b"head", list(chunks))), "stream"))


def events(*data: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in data) + b"data: [DONE]\n\n"


CHAT = {"id": "a", "choices": [{"message": {"role": "assistant", "content": "Hot."}}]}
RESPONSES = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hot."}]}]}
MESSAGES = {"content": [{"type": "text", "text": "Hot."}]}


@pytest.mark.parametrize("value", ["Hot.", CHAT, RESPONSES, MESSAGES])
def test_the_text_of_an_answer(value: Any) -> None:
    assert of(value) == "Hot."


def test_what_is_no_response_is_as_it_is() -> None:
    assert of({"degrees": 5500}) == {"degrees": 5500}
    assert of([1, 2]) == [1, 2]
    assert of(b"\xff") == b"\xff"


def test_calls_of_tools_count_without_their_ids() -> None:
    def calling(number: str) -> dict[str, Any]:
        call = {"id": number, "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
        return {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}

    assert of(calling("1")) == of(calling("2")) == 'weather({"city":"Rome"})'
    use = {"type": "tool_use", "id": "x", "name": "weather", "input": {"city": "Rome"}}
    assert of({"content": [use]}) == of(calling("1"))


def test_recordings() -> None:
    body = json.dumps(CHAT).encode()
    assert recorded(body[:7], body[7:]) == "Hot."
    parts = events(*({"choices": [{"delta": {"content": part}}]} for part in ("H", "ot", ".")))
    assert recorded(parts[:40], parts[40:]) == "Hot."
    assert (
        recorded(events({"type": "response.output_text.delta", "delta": "Hot."}, {"type": "done"})) == "Hot."
    )
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hot."}}
    assert recorded(b"event: content_block_delta\n" + events(delta)) == "Hot."


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b"{", "json"),
        (b"\xc1", "msgpack"),
        (b"\xc1", "stream"),
        (msgspec.msgpack.encode((b"", [b"data: {"])), "stream"),
    ],
)
def test_what_cannot_be_read_says_nothing(payload: bytes, content: Content) -> None:
    assert value_of(entry(payload, content)) is None


@pytest.mark.parametrize("odd", [{"choices": [None]}, {"choices": ["x"]}, {"output": [1]}, {"content": [[]]}])
def test_odd_shapes_raise_nothing(odd: Any) -> None:
    assert of(odd) == odd
