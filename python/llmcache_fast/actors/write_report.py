"""What happened to buffered writes, for those who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from llmcache_fast.actors.journal import JournalStatistics

Durability: TypeAlias = Literal["memory", "journal", "sync"]

Outcome: TypeAlias = Literal[
    "stored", "superseded", "refused", "expired", "dropped", "shed", "replaced", "given_up", "closed"
]
"""How a pending write ended. `refused`: the tier never will; `given_up`: it failed too often; `closed`: the
buffer was closed before its turn."""


class WriteReport(NamedTuple):
    """What happened during one `flush` or `aclose`, in entries."""

    written: int
    shed: int
    """Given up for lack of room."""
    lost: int
    """Given up after the last attempt, or refused by the tier."""
    remaining: int
    """Still in the buffer. After `aclose` they are gone, and counted as lost by `statistics`."""


@dataclass(frozen=True, slots=True)
class WriteStatistics:
    """Counts of a buffer since its start; `*_cost` in micro-USD."""

    items: int = 0
    """In the buffer now, those being written included."""
    bytes: int = 0
    offered: int = 0
    written: int = 0
    replaced: int = 0
    """Pending writes that a newer one of the same fingerprint took the place of."""
    superseded: int = 0
    """Not written because a newer stamp was pending or stored."""
    expired: int = 0
    dropped: int = 0
    """Taken out by an invalidation."""
    shed: int = 0
    shed_cost: int = 0
    lost: int = 0
    lost_cost: int = 0
    retries: int = 0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class WritersStatistics:
    """Counts since the start; `*_cost` in micro-USD."""

    durability: Durability
    """What is kept now: `memory` as long as the journal cannot be used."""
    lost: int
    """Writes given up for good: refused, failed or still pending at the end, and kept nowhere."""
    lost_cost: int
    shed: int
    """Writes given up for lack of room."""
    shed_cost: int
    spilled: int
    """Writes put out of memory for lack of room that the journal still had."""
    kept: int
    """Writes left to the journal at the end, for the next start."""
    kept_cost: int
    replayed: int
    """Records of earlier processes that were written again."""
    dead: int
    """Writes that ended as dead letters."""
    dead_cost: int
    journal: JournalStatistics | None
    tiers: dict[str, WriteStatistics]
