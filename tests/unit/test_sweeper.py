"""Sweeping: only when markers rose, by one process at a time, going on where another stopped."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import LLMCache
from llmcache_fast._erasure import Erasures
from llmcache_fast._errors import TierError
from llmcache_fast._wire import PLAIN
from llmcache_fast.actors.sweeper import NOTE_KEY, PAGE, Notes, Place, Sweeper
from llmcache_fast.actors.walking import KEEP, UNREADABLE, Verdict
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import NEVER, StoredRecord

pytestmark = pytest.mark.anyio

FAST = 1e9
NOTES = Notes(PLAIN.note, PLAIN.noted)


def record(number: int) -> StoredRecord:
    return StoredRecord(number.to_bytes(32, "big"), b"%d" % number, 1, 5, NEVER, 0)


class Counted(MemoryTier):
    """Counts pages, and fails after as many as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0
        self.breaks_after = 10**9

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        if self.pages >= self.breaks_after:
            raise TierError("broken", tier=self.name, operation="scan", reason="io")
        self.pages += 1
        return await super().scan(cursor, limit)


async def tier_of(count: int) -> Counted:
    tier = Counted()
    await tier.open()
    await tier.put_many([record(number) for number in range(1, count + 1)])
    return tier


def odd(_key: bytes, envelope: bytes) -> Verdict:
    number = int(envelope)
    return UNREADABLE if number % 10 == 0 else Verdict("take", 1, 5) if number % 2 else KEEP


def sweeper(tier: Any, heard: dict[int, tuple[int, int]], **options: Any) -> Sweeper:
    ready = options.pop("ready", lambda: True)
    options = {"rate": FAST, "clock": ManualClock(), **options}
    return Sweeper([Place("upper", tier, ready)], odd, lambda: heard, NOTES, **options)


async def test_it_walks_once_for_each_rise_of_the_markers() -> None:
    tier = await tier_of(50)
    heard = {7: (1, 10)}
    one = sweeper(tier, heard)
    await one.sweep()
    assert len(tier.records) == 25 + 1  # and the note
    assert NOTE_KEY in tier.records
    pages = tier.pages
    await one.sweep()
    assert tier.pages == pages
    await tier.put_many([record(1)])
    heard[7] = (1, 11)
    await one.sweep()
    assert len(tier.records) == 26
    found = one.statistics()
    assert (found.walks, found.deleted, found.unreadable, found.failures) == (2, 26, 10, 0)


async def test_what_one_process_swept_for_the_others_do_not_walk_again() -> None:
    tier = await tier_of(50)
    await sweeper(tier, {7: (1, 10), 8: (1, 3)}).sweep()
    pages = tier.pages
    other = sweeper(tier, {7: (1, 10)})
    await other.sweep()
    assert tier.pages == pages
    await sweeper(tier, {9: (1, 1)}).sweep()
    assert tier.pages > pages


async def test_another_process_goes_on_where_one_failed() -> None:
    pages = 25
    tier = await tier_of(pages * PAGE)
    tier.breaks_after = 22
    one = sweeper(tier, {7: (1, 10)})
    await one.sweep()
    assert one.statistics().failures == 1
    tier.breaks_after = 10**9
    other = sweeper(tier, {7: (1, 10)})
    await other.sweep()
    # The note was written after twenty pages; keys of the pages before are not read again.
    assert other.statistics().seen < 7 * PAGE
    assert other.statistics().walks == 1
    assert len(tier.records) == pages * PAGE // 2 + 1


async def test_one_process_at_a_time() -> None:
    tier = await tier_of(50)
    await tier.lease_many([NOTE_KEY], b"another process.", 60)
    one = sweeper(tier, {7: (1, 10)})
    await one.sweep()
    assert (tier.pages, len(tier.records)) == (0, 50)
    await tier.release_leases([NOTE_KEY], b"another process.")
    await one.sweep()
    assert len(tier.records) == 26
    assert await tier.lease_many([NOTE_KEY], b"another process.", 60) == [True]


async def test_not_while_the_tier_or_the_authority_is_away() -> None:
    tier = await tier_of(50)
    one = sweeper(tier, {7: (1, 10)}, ready=lambda: False)
    await one.sweep()
    assert tier.pages == 0


async def test_what_this_process_holds_is_forgotten_once_for_each_rise() -> None:
    tier = await tier_of(1)
    heard, calls, fails = {7: (1, 10)}, 0, True

    async def own() -> None:
        nonlocal calls
        calls += 1
        if fails:
            raise TierError("full", tier="journal", operation="compact", reason="full")

    one = sweeper(tier, heard, own=own)
    await one.sweep()
    fails = False
    await one.sweep()
    await one.sweep()
    assert calls == 2
    heard[7] = (1, 11)
    await one.sweep()
    assert calls == 3


async def test_a_walk_keeps_its_rate() -> None:
    tier = await tier_of(3 * PAGE)
    async with anyio.create_task_group() as group:
        one = sweeper(tier, {7: (1, 10)}, rate=PAGE / 1_000)
        group.start_soon(one.sweep)
        while not tier.pages:
            await anyio.lowlevel.checkpoint()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert tier.pages == 1
        group.cancel_scope.cancel()
    # Cancelled as the cache is closed: the lease is free.
    assert await tier.lease_many([NOTE_KEY], b"another process.", 60) == [True]


async def test_a_note_that_somebody_made_up_is_no_note() -> None:
    tier = await tier_of(50)
    for envelope in (b"junk", PLAIN.note(NOTE_KEY, b"\xc1junk", 0).envelope):
        await tier.put_many([StoredRecord(NOTE_KEY, envelope, 0, 0, NEVER, 0)])
        await sweeper(tier, {7: (1, 10)}).sweep()
        assert len(tier.records) == 26
        await tier.put_many([record(1)])


def swept(cache: LLMCache) -> Sweeper:
    erasures: Erasures = cache._erasures
    made = erasures.sweeper(FAST)
    assert made is not None
    return made


async def test_a_cache_sweeps_what_is_invalid_or_gone_and_nothing_else() -> None:
    clock = ManualClock()
    tier = MemoryTier(clock=clock)
    options: dict[str, Any] = {"clock": clock, "jitter": 0.0, "sweep_rate": 0}
    async with LLMCache(tiers=[tier], **options) as cache:
        for number in range(10):
            await cache.set({"n": number}, number, tags=["odd" if number % 2 else "even"], ttl=None)
        await cache.set({"n": 10}, "short", ttl=1)
        await cache.set({"n": 0}, "of another namespace", namespace="other", ttl=None)
        await cache.flush()
    async with LLMCache(tiers=[tier], **options) as cache:
        clock.advance(2)
        await cache.invalidate(tags=["odd"])
        await cache.invalidate(namespace="other")
        await swept(cache).sweep()
        assert len(tier.records) == 5 + 1
        assert await cache.get_many([{"n": number} for number in range(11)]) == [
            number if number < 10 and number % 2 == 0 else None for number in range(11)
        ]
    async with LLMCache(tiers=[tier], **options) as cache:
        # Of a namespace whose markers nobody here has heard of, nothing is judged.
        await cache.set({"n": 0}, "of another namespace", namespace="third", ttl=None)
        await cache.flush()
    async with LLMCache(tiers=[tier], **options) as cache:
        await cache.invalidate(tags=["x"])
        await swept(cache).sweep()
        assert await cache.get({"n": 0}, namespace="third") == "of another namespace"
