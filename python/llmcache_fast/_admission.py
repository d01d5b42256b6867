"""Whether a computed value may be stored (invariant I5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FINISH_REASONS = frozenset(
    {"stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence", "completed"}
)
"""Finish reasons after which an answer is whole. What is not known to be a full answer is not stored."""


def admit(value: Any) -> bool:
    """The default rule: no empty text or bytes, and no response that says it is not whole.

    A mapping that looks like a provider's response (`choices`, `stop_reason`, or a `status` beside an
    `output`) is stored only if its finish reasons are in `FINISH_REASONS`. Everything else is.
    """
    if isinstance(value, str | bytes):
        return bool(value)
    if not isinstance(value, Mapping):
        return True
    if value.get("error") is not None and ("choices" in value or "output" in value or len(value) == 1):
        return False
    choices = value.get("choices")
    if isinstance(choices, list):
        reasons = [choice.get("finish_reason") for choice in choices if isinstance(choice, Mapping)]
        return bool(reasons) and all(reason in FINISH_REASONS for reason in reasons)
    if value.get("type") == "message" and "stop_reason" in value:
        return value["stop_reason"] in FINISH_REASONS
    if value.get("object") == "response" and "status" in value:
        return value["status"] in FINISH_REASONS
    return True
