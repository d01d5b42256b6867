"""The public doubles do what they say; that they keep the contract is `tests/contract`'s to check."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.testing import (
    FakeEmbedder,
    Fault,
    FaultyEmbedder,
    FaultyTier,
    ManualClock,
    MemoryTier,
    fail_first,
)
from llmcache_fast.tiers.base import StoredRecord

RECORD = StoredRecord(bytes(32), b"x", 1, 1, NEVER, 0)


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(1_000)
    assert (clock(), clock()) == (1_000, 1_000)
    clock.advance(1.5)
    assert clock() == 1_501_000
    clock.advance(-2)
    assert clock() == -499_000


async def test_faults_come_where_the_plan_says() -> None:
    tier = FaultyTier(MemoryTier(), fail_first(2, "put_many"))
    await tier.open()
    for _ in range(2):
        with pytest.raises(TierError, match="planned"):
            await tier.put_many([RECORD])
    assert await tier.get_many([RECORD.key]) == [None]
    assert await tier.put_many([RECORD]) == (1, 0, 0)
    assert tier.calls == {"open": 1, "put_many": 3, "get_many": 1}


async def test_a_fault_may_come_after_the_work() -> None:
    error = TierError("lost reply")
    tier = FaultyTier(
        MemoryTier(), lambda operation, _: Fault(error, after=True) if operation == "clear" else None
    )
    await tier.open()
    await tier.put_many([RECORD])
    with pytest.raises(TierError, match="lost reply"):
        await tier.clear()
    assert await tier.get_many([RECORD.key]) == [None]


async def test_a_held_call_waits() -> None:
    gate = anyio.Event()
    tier = FaultyTier(
        MemoryTier(), lambda operation, _: Fault(hold=gate) if operation == "put_many" else None
    )
    await tier.open()
    async with anyio.create_task_group() as group:
        group.start_soon(tier.put_many, [RECORD])
        for _ in range(5):
            await checkpoint()
        assert await tier.get_many([RECORD.key]) == [None]
        gate.set()
    assert await tier.get_many([RECORD.key]) == [b"x"]


async def test_a_memory_tier_refuses_what_is_too_large() -> None:
    tier = MemoryTier(max_record=3)
    await tier.open()
    assert await tier.put_many([RECORD, RECORD._replace(envelope=b"four")]) == (1, 0, 1)


async def test_a_fake_embedder_has_the_vectors_that_were_chosen() -> None:
    embedder = FakeEmbedder({"hello": [1, 0]}, dimension=2)
    chosen, drawn = await embedder.embed(["hello", "other"])
    assert (chosen, len(drawn)) == ([1, 0], 2)
    assert await embedder.embed(["other"]) == [drawn]
    assert embedder.calls == [["hello", "other"], ["other"]]


async def test_an_embedder_fails_where_the_plan_says() -> None:
    embedder = FaultyEmbedder(FakeEmbedder(), fail_first(1, "embed", error=OSError("planned")))
    with pytest.raises(OSError, match="planned"):
        await embedder.embed(["a"])
    assert len(await embedder.embed(["a"])) == 1
    assert embedder.calls["embed"] == 2
    assert (embedder.name, embedder.version, embedder.dimension) == ("fake", "1", 384)
