"""When a response may be stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast._usage import Usage
from llmcache_fast.integrations.wire.endpoints import ENDPOINTS, Endpoint
from llmcache_fast.integrations.wire.judge import FINISH_REASONS, judge_body, stream_judge
from llmcache_fast.integrations.wire.sse import SseEvent

BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "error",
                    "type",
                    "response",
                    "message",
                    "delta",
                    "usage",
                    "output",
                    "content",
                    "status",
                    "index",
                    "n",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def choice(**fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop", **fields}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


def responded(*output: Any) -> dict[str, Any]:
    return {"status": "completed", "output": output}


def judged(name: str, body: Any) -> str | None:
    return judge_body(BY_NAME[name], json.dumps(body).encode(), FINISH_REASONS).refused


@pytest.mark.parametrize(
    ("name", "body", "refused"),
    [
        ("chat", {"choices": [choice()]}, None),
        ("chat", {"choices": [choice(finish_reason="length")]}, "finish_reason"),
        ("chat", {"choices": [choice(finish_reason=None)]}, "finish_reason"),
        ("chat", {"choices": [choice(finish_reason="brand_new")]}, "finish_reason"),
        ("chat", {"choices": [choice(), choice(finish_reason="content_filter")]}, "finish_reason"),
        ("chat", {"choices": [choice(message={"refusal": "no"})]}, "refusal"),
        ("chat", {"choices": [choice(message={"content": ""})]}, "empty"),
        ("chat", {"choices": [choice(message={"tool_calls": [{}]}, finish_reason="tool_calls")]}, None),
        ("chat", {"choices": []}, "empty"),
        ("chat", {"error": {"message": "m"}}, "error"),
        ("chat", {"id": "x"}, "malformed"),
        ("chat", ["x"], "malformed"),
        ("completions", {"choices": [{"text": "a", "finish_reason": "stop"}]}, None),
        ("completions", {"choices": [{"text": "", "finish_reason": "stop"}]}, "empty"),
        ("embeddings", {"data": [{"embedding": [1]}]}, None),
        ("embeddings", {"data": []}, "empty"),
        ("responses", responded(said("a")), None),
        ("responses", responded({"type": "function_call", "name": "f"}), None),
        ("responses", responded({"type": "image_generation_call"}, said("")), None),
        ("responses", responded({"type": "reasoning"}, said("a")), None),
        ("responses", responded({"type": "message", "content": []}), "empty"),
        ("responses", responded(said("")), "empty"),
        ("responses", responded({"type": "reasoning", "content": [{"text": "hm"}]}, said("")), "empty"),
        ("responses", responded({"type": "reasoning"}), "empty"),
        ("responses", {"status": "completed", "output": []}, "empty"),
        ("responses", {"status": "queued", "output": [{}]}, "finish_reason"),
        ("responses", {"status": "completed", "output": [{"content": [{"type": "refusal"}]}]}, "refusal"),
        ("messages", {"stop_reason": "end_turn", "content": [{}]}, None),
        ("messages", {"stop_reason": "max_tokens", "content": [{}]}, "finish_reason"),
        ("messages", {"stop_reason": "pause_turn", "content": [{}]}, "finish_reason"),
        ("messages", {"stop_reason": "refusal", "content": [{}]}, "refusal"),
        ("messages", {"stop_reason": "end_turn", "content": []}, "empty"),
        ("messages", {"stop_reason": "end_turn", "content": [{"type": "text", "text": ""}]}, "empty"),
        (
            "messages",
            {"stop_reason": "end_turn", "content": [{"type": "thinking", "thinking": "hm"}]},
            "empty",
        ),
        ("messages", {"stop_reason": "tool_use", "content": [{"type": "tool_use", "input": {}}]}, None),
    ],
)
def test_plain_bodies(name: str, body: Any, refused: str | None) -> None:
    assert judged(name, body) == refused


def test_usage_and_model() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    body = json.dumps({"model": "m", "choices": [choice()], "usage": usage}).encode()
    verdict = judge_body(BY_NAME["chat"], body, FINISH_REASONS)
    assert (verdict.model, verdict.usage) == ("m", Usage(9, 4, 2))
    parts = {
        "input_tokens": 1,
        "cache_read_input_tokens": 2,
        "cache_creation_input_tokens": 4,
        "output_tokens": 8,
    }
    body = json.dumps({"stop_reason": "end_turn", "content": [{}], "usage": parts}).encode()
    assert judge_body(BY_NAME["messages"], body, FINISH_REASONS).usage == Usage(7, 8, 2, 4)


def chunk(**fields: Any) -> SseEvent:
    return SseEvent(b"", json.dumps({"choices": [{"index": 0, "delta": {}, **fields}]}).encode())


DONE = SseEvent(b"", b"[DONE]")


def test_every_choice_of_a_stream_must_end() -> None:
    events = [chunk(delta={"content": "a"}), chunk(finish_reason="stop"), DONE]
    for wanted, refused in ((1, None), (2, "finish_reason")):
        judge = stream_judge(BY_NAME["chat"], {"n": wanted}, FINISH_REASONS)
        assert [judge.event(event) for event in events] == [False, False, True]
        assert judge.verdict().refused == refused


def test_done_is_not_the_end_of_a_typed_stream() -> None:
    for name in ("responses", "messages"):
        judge = stream_judge(BY_NAME[name], {}, FINISH_REASONS)
        assert judge.event(DONE) is False
        assert judge.verdict().refused == "malformed"


@pytest.mark.parametrize(("text", "refused"), [("", "empty"), ("a", None)])
def test_a_streamed_message_must_say_something(text: str, refused: str | None) -> None:
    judge = stream_judge(BY_NAME["messages"], {}, FINISH_REASONS)
    for value in (
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ):
        judge.event(SseEvent(b"", json.dumps(value).encode()))
    assert judge.verdict().refused == refused


def test_null_counts_of_a_later_event_do_not_erase_earlier_ones() -> None:
    judge = stream_judge(BY_NAME["messages"], {}, FINISH_REASONS)
    for value in (
        {
            "type": "message_start",
            "message": {"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}},
        },
        {"type": "content_block_start"},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": None, "output_tokens": 9},
        },
    ):
        assert judge.event(SseEvent(b"", json.dumps(value).encode())) is False
    assert judge.event(SseEvent(b"message_stop", b'{"type":"message_stop"}')) is True
    verdict = judge.verdict()
    assert (verdict.refused, verdict.model, verdict.usage) == (None, "m", Usage(5, 9))


@given(st.sampled_from(ENDPOINTS), JSON)
def test_no_body_makes_a_judge_raise(endpoint: Endpoint, body: Any) -> None:
    verdict = judge_body(endpoint, json.dumps(body).encode(), FINISH_REASONS)
    assert verdict.refused is None or verdict.refused.isidentifier()


@given(st.sampled_from(ENDPOINTS), st.lists(JSON.map(json.dumps) | st.text(max_size=9), max_size=6))
def test_no_stream_makes_a_judge_raise(endpoint: Endpoint, events: list[str]) -> None:
    judge = stream_judge(endpoint, {}, FINISH_REASONS)
    for event in events:
        judge.event(SseEvent(b"", event.encode()))
    assert judge.verdict().refused is not None
