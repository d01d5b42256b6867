"""Which text a request asks, and what is left of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast import fingerprint
from llmcache_fast.semantic.asked import MAX_TEXT, pair_of, question_of
from llmcache_fast.semantic.vector_cache import digest_of

SYSTEM = {"role": "system", "content": "Be brief."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(content: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": content}


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [SYSTEM, user("How hot is the sun?")]},
        {"messages": [user("Hi"), {"role": "assistant", "content": "Hello"}, user("How hot is the sun?")]},
        {"messages": [user([text("How hot is the sun?")])]},
        {"input": "How hot is the sun?", "model": "m"},
        {"input": [user([text("How hot is the sun?", "input_text")])]},
        {"prompt": "How hot is the sun?", "max_tokens": 5},
    ],
)
def test_the_last_text_of_the_user_is_found(request_: dict[str, Any]) -> None:
    found = question_of(request_)
    assert found is not None
    assert found.text == "How hot is the sun?"
    assert "sun" not in repr(found.rest)
    assert found.rest.keys() == request_.keys()


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"q": "How hot is the sun?"},
        {"messages": []},
        {"messages": [SYSTEM]},
        {"messages": [user("Hi"), {"role": "assistant", "content": "He"}]},
        {"messages": [user("Hi"), CALL, RESULT]},
        {"messages": [user([text("What is this?"), IMAGE])]},
        {"messages": [user([text("One"), text("Two")])]},
        {"messages": [user([{"type": "tool_result", "tool_use_id": "1", "content": "42"}])]},
        {"messages": [user("  \n")]},
        {"messages": [user("x" * (MAX_TEXT + 1))]},
        {"messages": "How hot is the sun?"[:0]},
        {"messages": ["How hot is the sun?"]},
        {"messages": [user(None)]},
        {"model": "text-embedding-3-small", "input": "How hot is the sun?"},
        [user("How hot is the sun?")],
        "How hot is the sun?",
        None,
        object(),
    ],
)
def test_what_ends_in_something_else_is_for_exact_look_ups(request_: Any) -> None:
    assert question_of(request_) is None


def test_images_and_results_of_tools_may_be_there_if_the_caller_says_so() -> None:
    with_image = {"messages": [user([text("What is this?"), IMAGE])]}
    found = question_of(with_image, ["images"])
    assert found is not None
    assert found.text == "What is this?"
    assert found.rest["messages"][0]["content"][1] == IMAGE

    with_result = {"messages": [SYSTEM, user("How hot is it?"), CALL, RESULT]}
    found = question_of(with_result, ["tool_results"])
    assert found is not None
    assert found.text == "How hot is it?"
    assert found.rest["messages"][2:] == [CALL, RESULT]
    assert question_of(with_result, ["images"]) is None
    assert question_of({"messages": [user("Hi"), CALL]}, ["tool_results"]) is None


def test_the_rest_tells_everything_but_the_text_apart() -> None:
    base = {"model": "m", "messages": [SYSTEM, user("How hot is the sun?")]}
    others = [
        {**base, "model": "n"},
        {**base, "temperature": 0.5},
        {**base, "tools": [{"name": "f"}]},
        {**base, "messages": [{"role": "system", "content": "Be long."}, user("How hot is the sun?")]},
        {**base, "messages": [SYSTEM, user("Hi"), user("How hot is the sun?")]},
    ]
    found = [question_of(request) for request in [base, *others]]
    assert all(found)
    assert len({fingerprint(each.rest) for each in found if each}) == len(found)


def test_requests_of_other_types_are_opened() -> None:
    @dataclasses.dataclass
    class Message:
        role: str
        content: str

    class Request(msgspec.Struct):
        model: str
        messages: list[Message]

    found = question_of(Request("m", [Message("user", "How hot is the sun?")]))
    assert found is not None
    assert found.text == "How hot is the sun?"
    plain = question_of({"model": "m", "messages": [user("How hot is the sun?")]})
    assert plain is not None
    assert fingerprint(found.rest) == fingerprint(plain.rest)


def test_the_request_stays_as_it_is() -> None:
    request = {"messages": [SYSTEM, user([text("How hot is the sun?")])]}
    before = fingerprint(request)
    question_of(request, ["images", "tool_results"])
    assert fingerprint(request) == before


_PARTS = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "messages", "input"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(_PARTS)
def test_nothing_that_can_be_asked_raises(request_: Any) -> None:
    question_of(request_, ["images", "tool_results"])


def test_a_pair_is_the_same_in_either_order_and_in_its_partition_alone() -> None:
    one, two = bytes(32), bytes([1]) * 32
    a, b, c = map(digest_of, "abc")
    assert pair_of(one, a, b) == pair_of(one, b, a)
    assert len({pair_of(one, a, b), pair_of(two, a, b), pair_of(one, a, c), pair_of(one, a, a)}) == 4
    # Tiers keep pairs without end: they go by this name in every version.
    assert pair_of(one, a, b).hex() == "8b2eceef76e8d71091deb6eea7c42c63dccecaf6cfe6463f8f4126a0565f9b37"
