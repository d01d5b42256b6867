"""Counters of a cache and the report of `stats()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec


class MemoryStats(msgspec.Struct, frozen=True):
    """L1; counts are exact. `hit_cost` (of the answers that hits gave) and `evicted_cost` in micro-USD."""

    entries: int
    bytes: int
    capacity: int
    hits: int
    hit_cost: int
    stale_hits: int
    misses: int
    inserts: int
    replaced: int
    evictions: int
    evicted_bytes: int
    evicted_cost: int
    expirations: int
    invalidated: int
    removed: int
    older: int
    too_large: int
    not_admitted: int


class GuardStats(msgspec.Struct, frozen=True):
    """One direction of a tier (`read`, `write` or `markers`) behind its guard: see `tiers.guarded`."""

    state: str
    """Of its breaker: `closed` (all is well), `open` (nothing is tried) or `half-open` (being tried)."""
    opened: int
    """How often the breaker opened."""
    calls: int
    """Calls that reached the tier."""
    failures: int
    """Of these: failed in a way that counts against the tier."""
    slow: int
    """Of these: well, but later than half the budget; that counts against it, too."""
    timeouts: int
    """Of these: not within the budget."""
    busy: int
    """Calls that the tier, or the limit of calls at once, had no room for. They count against nothing."""
    rejected: int
    """Calls that were not made because the breaker was not closed, or too many were abandoned."""
    late: int
    """Abandoned calls that ended after all; their results were dropped."""
    running: int
    """Calls somebody waits for now."""
    abandoned: int
    """Calls under way that nobody waits for any more."""


class TierStats(msgspec.Struct, frozen=True):
    """A tier below memory."""

    name: str
    available: bool
    """Open, and its entries are read: False before it could be opened, and in an outage."""
    reads: int
    hits: int
    errors: int
    incidents: dict[str, int]
    """Records that were not what was asked for or not whole, by reason (I9): each was a miss."""
    writes: dict[str, int]
    """The write-behind buffer: see `WriteStatistics`."""
    guard: dict[str, GuardStats] = {}
    """By direction."""
    leases: dict[str, int] = {}
    """Computations agreed on with other processes, where this tier is asked: see `LeaseStatistics`."""


class CoherenceStats(msgspec.Struct, frozen=True):
    """What is known of invalidations by other processes."""

    namespaces: int
    """Whose clocks are followed."""
    vouched: bool
    """All that others invalidated until a lease ago is known here, of each of them (I2)."""
    connected: bool
    """Messages come; without them it is asked for."""
    messages: int
    """Heard."""
    gaps: int
    """Messages before which something was missing, or that did not tell all: each led to a question."""
    polls: int
    """Questions to the authority, of all that is followed."""
    deferred: int
    """Invalidations made here that the authority has not been told of."""


class SemanticStats(msgspec.Struct, frozen=True):
    """What was answered with the answer to another request that asks the same."""

    served: int
    stages: dict[str, int]
    """Candidates by the stage at which they were decided: see `SemanticMatch.stage`."""
    checks: int
    """Comparisons with what the provider said."""
    wrong: int
    """Of these: the stored answer was another one."""
    embedding_failures: int
    """Calls that had no vector because the embedder failed."""
    vectors: int
    partitions: int
    index_bytes: int
    """Of the cache's memory."""
    budgets: dict[str, Any]
    """By namespace: see `semantic.budget`."""


class CacheStats(msgspec.Struct, frozen=True):
    """What a cache did since it was opened."""

    memory: MemoryStats
    shards: list[dict[str, int]]
    tiers: list[TierStats]
    hits: int
    """Answers from any tier, fresh."""
    stale: int
    """Answers that were old, within their stale window."""
    misses: int
    """Computations that a call started and got a value of."""
    joined: int
    """Calls that waited for a computation another call had started."""
    computations: int
    """Computations that gave a value, those of background refreshes included."""
    failures: int
    """Computations that raised."""
    stored: int
    """Values that memory took."""
    not_stored: dict[str, int]
    """By reason: `admission`, `superseded`, `unstorable`, `option`, `too_large`, ..."""
    writes: dict[str, Any]
    """What was written behind to all tiers, and what of it was lost or shed, in entries and micro-USD: see
    `WritersStatistics`."""
    flights: dict[str, int]
    """See `actors.flights.FlightStatistics`."""
    coherence: CoherenceStats | None
    """What is known of other processes; None for a cache that shares nothing."""
    semantic: SemanticStats | None
    """None for a cache that matches nothing."""
    saved_usd: float
    """Recorded cost of all answers that were not computed for their call, where it is known."""

    @property
    def hit_rate(self) -> float:
        """Share of calls that were answered without a computation of their own."""
        answered = self.hits + self.stale + self.joined + (self.semantic.served if self.semantic else 0)
        return answered / (answered + self.misses) if answered + self.misses else 0.0


def memory_stats(shards: list[dict[str, int]]) -> MemoryStats:
    """The sum over the shards."""
    total: dict[str, Any] = {
        name: sum(shard[name] for shard in shards) for name in MemoryStats.__struct_fields__
    }
    return MemoryStats(**total)


def cache_stats(
    shards: list[dict[str, int]],
    tiers: list[TierStats],
    counts: Counter[str],
    *,
    stored: int,
    not_stored: Mapping[str, int],
    writes: dict[str, Any],
    flights: dict[str, int],
    coherence: CoherenceStats | None,
    saved: int,
    semantic: SemanticStats | None = None,
) -> CacheStats:
    """The report of what the parts counted; `saved` in micro-USD, without the fresh hits in memory."""
    memory = memory_stats(shards)
    return CacheStats(
        memory=memory,
        shards=shards,
        tiers=tiers,
        hits=memory.hits + counts["hit"],
        stale=counts["stale"],
        misses=counts["miss"],
        joined=counts["joined"],
        computations=counts["computations"],
        failures=counts["failures"],
        stored=stored,
        not_stored=dict(not_stored),
        writes=writes,
        flights=flights,
        coherence=coherence,
        semantic=semantic,
        saved_usd=(memory.hit_cost + saved) / 1_000_000,
    )
