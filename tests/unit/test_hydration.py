"""Vectors of a partition from the tiers: read once, then followed, and never waited for too long."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast._core import Engine
from llmcache_fast._entry import NEVER, Entry, Facet, Facts
from llmcache_fast._hydration import AT_ONCE, FOLLOW, PAGE, Hydration
from llmcache_fast._lookup import Lookup
from llmcache_fast._wire import PLAIN
from llmcache_fast.testing import FaultyTier, ManualClock, MemoryTier, fail_first
from llmcache_fast.tiers.base import Tier

PARTITION, OTHER = bytes([1]) * 32, bytes([2]) * 32
NAMESPACE = "default"


def entry(number: int, partition: bytes = PARTITION, namespace: str = NAMESPACE) -> Entry:
    facet = Facet(partition, bytes(16), f"question {number}", b"\0\x3c" * 4)
    key = number.to_bytes(32, "big")
    return Entry(key, namespace, "text", "answer", Facts(semantic=facet), 0, NEVER, NEVER, 1, 1, 0)


class Noted:
    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def __call__(self, entry: Entry) -> None:
        assert entry.facts.semantic is not None
        assert entry.facts.semantic.vector
        self.keys.append(entry.key)


class Setting:
    """A hydration over some tiers that are open."""

    def __init__(self, tasks: Any, *tiers: Tier) -> None:
        self.clock = ManualClock()
        self.noted = Noted()
        self.lookup = Lookup(Engine(), tiers, self.clock)
        self.tasks = tasks
        self.hydration = Hydration(self.lookup, self.noted, clock=self.clock, tasks=tasks)

    async def open(self) -> None:
        for floor in self.lookup.floors:
            await floor.tier.open()

            class Trusted:
                trusted = True

            floor.recovery = Trusted()  # type: ignore[assignment]

    async def ready(self, partition: bytes = PARTITION) -> list[bytes]:
        """What is noted once the partition has been asked for and all reading is done."""
        await self.hydration.ready(partition, NAMESPACE)
        await anyio.wait_all_tasks_blocked()
        return self.noted.keys


async def put(tier: Tier, entries: Sequence[Entry]) -> None:
    await tier.put_many([PLAIN.record(each) for each in entries])


async def test_members_are_read_when_a_partition_is_asked_for() -> None:
    tier = MemoryTier()
    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, tier)
        await setting.open()
        count = 2 * PAGE + 3
        await put(tier, [entry(number) for number in range(count)])
        await put(tier, [entry(count, OTHER), entry(count + 1, PARTITION, "another namespace")])
        assert sorted(await setting.ready()) == [number.to_bytes(32, "big") for number in range(count)]


async def test_what_others_add_is_read_when_it_is_time() -> None:
    tier = MemoryTier()
    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, tier)
        await setting.open()
        await put(tier, [entry(1)])
        await setting.ready()
        await put(tier, [entry(2)])
        assert len(await setting.ready()) == 1
        setting.clock.advance(FOLLOW + 0.1)
        assert [key[-1] for key in await setting.ready()] == [1, 2]
        setting.clock.advance(FOLLOW + 0.1)
        assert len(await setting.ready()) == 2
        setting.hydration.again(PARTITION)
        assert len(await setting.ready()) == 4


async def test_a_tier_that_fails_costs_nothing_but_its_vectors() -> None:
    broken, tier = FaultyTier(MemoryTier(), fail_first(1, "members")), MemoryTier()
    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, broken, tier)
        await setting.open()
        await put(tier, [entry(1)])
        assert len(await setting.ready()) == 1
        assert setting.lookup.floors[0].errors == 1


async def test_who_asks_first_waits_no_longer_than_that() -> None:
    class Slow(MemoryTier):
        async def members(
            self, partition: bytes, after: bytes | None = None, limit: int = 1000
        ) -> tuple[list[bytes], bytes | None]:
            await anyio.sleep_forever()
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, Slow())
        await setting.open()
        await setting.hydration.ready(PARTITION, NAMESPACE)  # ends, although the tier does not
        assert setting.noted.keys == []
        tasks.cancel_scope.cancel()


async def test_a_record_under_another_name_is_none() -> None:
    tier = MemoryTier()
    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, tier)
        await setting.open()
        record = PLAIN.record(entry(1))
        await tier.put_many([record._replace(key=bytes([9]) * 32)])
        assert await setting.ready() == []


async def longest_turn(members: int) -> int:
    """How many members are taken in at most before another task runs."""
    tier = MemoryTier()
    await tier.open()
    await put(tier, [entry(number) for number in range(members)])
    async with anyio.create_task_group() as tasks:
        setting = Setting(tasks, tier)
        await setting.open()
        keys = setting.noted.keys
        tasks.start_soon(setting.ready)
        seen = [0]
        while seen[-1] < members:
            await anyio.lowlevel.checkpoint()
            seen.append(len(keys))
    return max(later - before for before, later in itertools.pairwise(seen))


async def test_others_run_while_a_large_partition_is_taken_in() -> None:
    # Two turns of the reading may lie between two of another task: trio draws the order.
    assert await longest_turn(PAGE) <= 2 * AT_ONCE


async def test_a_reading_that_does_not_let_others_run_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._hydration.AT_ONCE", PAGE + 1)
    assert await longest_turn(PAGE) == PAGE
