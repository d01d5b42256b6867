"""The bytes in which a budget's evidence survives a restart and travels to other processes.

What belongs here: what is written, and whether what is read can be true. What does not: what it means
(`budget`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from llmcache_fast.semantic import evidence
from llmcache_fast.semantic.entries import Record
from llmcache_fast.semantic.evidence import GRID, Level

VERSION: Final = 1
MAX_SOURCES: Final = 256
"""Processes whose evidence is kept apart."""


class Own(msgspec.Struct):
    """The evidence of one process."""

    version: int
    levels: list[Level]


class Counts(msgspec.Struct):
    """What happened so far; see `BudgetStatistics`."""

    served: int = 0
    checked: int = 0
    wrong: int = 0
    wrong_weight: float = 0.0
    compared: int = 0
    judged: int = 0
    reports: int = 0
    reported_entries: int = 0
    alarms: int = 0
    recent: int = 0
    """Served since the last alarm."""
    trusted: int = 0
    """Not served since, and right, though they reached the threshold."""
    suspicious: int = 0
    """Hits still to be checked without exception."""
    by_reports: bool = False


class State(msgspec.Struct):
    """What `dump` writes."""

    version: int
    false_hit_budget: float
    confidence: float
    source: bytes
    sources: dict[bytes, Own]
    shown: list[bool]
    counts: Counts
    tight: dict[bytes, Record]
    clean: dict[bytes, Record]
    moments: tuple[float, float, float, float]


def read(data: bytes, false_hit_budget: float, confidence: float) -> State:
    """What `data` holds.

    Raises:
        ValueError: it is damaged, of another version, or gathered for another budget or confidence.
    """
    what = "evidence of a false-hit budget"
    try:
        state = msgspec.msgpack.decode(data, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{what}: cannot be read ({problem}); start without it") from None
    if state.version != VERSION:
        raise ValueError(f"{what}: version {state.version}, not {VERSION}; start without it")
    if (state.false_hit_budget, state.confidence) != (false_hit_budget, confidence):
        raise ValueError(
            f"{what}: gathered for {state.false_hit_budget} at {state.confidence}, not for "
            f"{false_hit_budget} at {confidence}, and says nothing of that; start without it"
        )
    if not _sane(state):
        raise ValueError(f"{what}: holds impossible numbers; start without it")
    return state


def _sane(state: State) -> bool:
    return (
        state.source in state.sources
        and 0 < len(state.source) <= 64
        and len(state.sources) <= MAX_SOURCES
        and len(state.shown) == len(GRID)
        and all(len(own.levels) == len(GRID) and own.version >= 0 for own in state.sources.values())
        and all(_sane_level(level) for own in state.sources.values() for level in own.levels)
        and all(_sane_numbers(msgspec.structs.astuple(one)) for one in (state.counts, *state.clean.values()))
        and all(
            _sane_numbers(msgspec.structs.astuple(one)) and one.wrongs > 0 for one in state.tight.values()
        )
        and _sane_numbers(state.moments)
    )


def _sane_level(level: Level) -> bool:
    return (
        len(level.opening) == len(evidence.OPENING)
        and len(level.closing) == len(evidence.CLOSING)
        and all(math.isfinite(log) for log in (*level.opening, *level.closing))
        and _sane_numbers((level.burnt, level.restarts, level.seen))
    )


def _sane_numbers(numbers: Sequence[float]) -> bool:
    return all(-1 <= number < 1e15 for number in numbers)
