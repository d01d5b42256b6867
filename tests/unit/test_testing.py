"""The test doubles do what they say: tests stand on them."""

from __future__ import annotations

import hashlib

import anyio
import pytest

from llmcache_fast import TierError
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier, fail_first
from llmcache_fast.tiers.base import NEVER, StoredRecord

KEY = hashlib.sha256(b"k").digest()


def record(envelope: bytes = b"x", snap: int = 1) -> StoredRecord:
    return StoredRecord(KEY, envelope, 1, snap, NEVER, 0)


def test_the_clock_stands_still_until_told() -> None:
    clock = ManualClock()
    start = clock()
    assert clock() == clock.now == start
    clock.advance(1.5)
    assert clock() - start == 1_500_000
    clock.advance(-2)
    assert clock() - start == -500_000
    assert ManualClock(5)() == 5


async def test_a_memory_tier_refuses_what_is_too_large() -> None:
    tier = MemoryTier(max_record=3)
    await tier.open()
    assert await tier.put_many([record(b"abcd"), record(b"abc")]) == (1, 0, 1)


async def test_faults_come_where_the_plan_says() -> None:
    tier = FaultyTier(MemoryTier(), fail_first(2, "put_many"))
    await tier.open()
    for _ in range(2):
        with pytest.raises(TierError, match="planned"):
            await tier.put_many([record()])
    assert await tier.get_many([KEY]) == [None], "it failed before the work"
    assert (await tier.put_many([record()])).stored == 1
    assert tier.calls == {"open": 1, "put_many": 3, "get_many": 1}


async def test_a_fault_after_the_work_was_done() -> None:
    tier = FaultyTier(MemoryTier())
    await tier.open()
    tier.plan = lambda operation, number: Fault(TierError("late"), after=True) if number == 0 else None
    with pytest.raises(TierError, match="late"):
        await tier.put_many([record(b"done")])
    await anyio.lowlevel.checkpoint()
    tier.plan = None
    assert await tier.get_many([KEY]) == [b"done"]


async def test_a_held_call_starts_when_it_is_let_go() -> None:
    gate = anyio.Event()
    tier = FaultyTier(MemoryTier())
    await tier.open()
    tier.plan = lambda operation, number: Fault(hold=gate)
    done: list[int] = []

    async def put() -> None:
        done.append((await tier.put_many([record()])).stored)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        gate.set()
    assert done == [1]
