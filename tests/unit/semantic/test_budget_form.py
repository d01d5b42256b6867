"""Evidence as bytes: what is read was written by a budget, or is refused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast.semantic.budget import Budget
from llmcache_fast.semantic.budget_form import State, read


def written() -> bytes:
    budget = Budget(0.1, rng=random.Random(1).random)
    for number in range(60):
        budget.observe(0.97, b"%d" % number, number % 20 == 0, served=False, source="uncertain")
    return budget.dump()


def test_what_was_written_is_read() -> None:
    state = read(written(), 0.1, 0.95)
    assert state.counts.compared == 60
    assert len(state.tight) == 3


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="evidence of a false-hit budget"):
        read(data, 0.1, 0.95)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_are_refused_or_harmless(at: int, patch: bytes) -> None:
    data = bytearray(written())
    at %= len(data)
    data[at : at + len(patch)] = patch
    budget = Budget(0.1)
    before = budget.statistics()
    try:
        budget.load(bytes(data))
    except ValueError:
        assert budget.statistics() == before
    else:
        budget.observe(0.97, b"e", True, served=False, source="uncertain")
        budget.dump()


def changed(change: Callable[[State], Any]) -> bytes:
    state = msgspec.msgpack.decode(written(), type=State)
    change(state)
    return msgspec.msgpack.encode(state)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: setattr(state, "version", 2), "version 2"),
        (lambda state: setattr(state, "confidence", 0.9), "says nothing of that"),
        (lambda state: setattr(state, "shown", [True]), "impossible"),
        (lambda state: setattr(state, "source", b"none of them"), "impossible"),
        (lambda state: state.sources[state.source].levels.pop(), "impossible"),
        (lambda state: setattr(state.sources[state.source].levels[0], "seen", math.nan), "impossible"),
        (lambda state: state.sources[state.source].levels[0].opening.append(1.0), "impossible"),
        (
            lambda state: setattr(state.sources[state.source].levels[3], "closing", [math.inf] * 3),
            "impossible",
        ),
        (lambda state: setattr(next(iter(state.tight.values())), "wrongs", 0), "impossible"),
        (lambda state: setattr(state.counts, "served", -5), "impossible"),
    ],
)
def test_what_cannot_be_is_refused(change: Callable[[State], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(changed(change), 0.1, 0.95)
