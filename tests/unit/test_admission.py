"""What may be stored (I5): complete answers, and nothing that says it is not one."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast._admission import FINISH_REASONS, admit


def chat(*reasons: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "x"}, "finish_reason": reason} for reason in reasons]}


@pytest.mark.parametrize("reason", sorted(FINISH_REASONS))
def test_finished_responses_are_stored(reason: str) -> None:
    assert admit(chat(reason))
    assert admit({"type": "message", "stop_reason": reason})
    assert admit({"object": "response", "status": reason})


@pytest.mark.parametrize(
    "reason", ["length", "content_filter", "max_tokens", "refusal", "pause_turn", None, "new"]
)
def test_responses_that_are_not_whole_are_not(reason: str | None) -> None:
    assert not admit(chat(reason))
    assert not admit(chat("stop", reason)), "one unfinished choice is enough"
    assert not admit({"type": "message", "stop_reason": reason})
    assert not admit({"object": "response", "status": reason})


@pytest.mark.parametrize(
    "value", ["", b"", {"choices": []}, {"error": {"message": "m"}}, {"error": "e", "output": []}]
)
def test_nothing_and_errors_are_not(value: Any) -> None:
    assert not admit(value)


@pytest.mark.parametrize(
    "value",
    ["text", b"bytes", 0, None, [], {}, {"a": 1}, {"error": None, "answer": 5}, {"error": "field", "a": 1}],
)
def test_a_programs_own_values_are(value: Any) -> None:
    assert admit(value)
