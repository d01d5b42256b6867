"""The write-behind buffer: bounded, newest stamp wins, every record accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.write_behind import WriteBehind, WriteReport
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier, Plan, fail_first
from llmcache_fast.tiers.base import PutReport, StoredRecord

OUTAGE = TierUnavailableError("down", tier="faulty", operation="put_many", reason="io")
BAD = TierError("bad record", tier="faulty", operation="put_many", reason="engine")


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(
    number: int,
    envelope: bytes = b"x",
    *,
    epoch: int = 1,
    snap: int = 10,
    stale_until: int = NEVER,
    cost: int = 100,
) -> StoredRecord:
    return StoredRecord(key(number), envelope, epoch, snap, stale_until, cost)


class PickyTier(MemoryTier):
    """Fails every batch that has one of certain records in it."""

    def __init__(self, bad: frozenset[int] = frozenset(), **options: Any) -> None:
        super().__init__(**options)
        self.bad = {key(number) for number in bad}

    async def put_many(self, records: Any) -> PutReport:
        if any(pending.key in self.bad for pending in records):
            raise BAD
        return await super().put_many(records)


async def open_tier(plan: Plan | None = None, **options: Any) -> FaultyTier:
    inner = PickyTier(**options)
    await inner.open()
    return FaultyTier(inner, plan)


def stored(tier: FaultyTier) -> dict[bytes, StoredRecord]:
    assert isinstance(tier.inner, MemoryTier)
    return tier.inner.records


@asynccontextmanager
async def running(tier: FaultyTier, **options: Any) -> AsyncIterator[WriteBehind]:
    buffer = WriteBehind(tier, **({"backoff": 0.001, "max_backoff": 0.01} | options))
    async with anyio.create_task_group() as group:
        await group.start(buffer.run)
        yield buffer
        group.cancel_scope.cancel()


async def test_records_are_written_in_batches_of_what_has_arrived() -> None:
    tier = await open_tier()
    async with running(tier) as buffer:
        for number in range(1000):
            assert buffer.put_nowait(record(number, b"%d" % number))
        assert await buffer.flush() == WriteReport(written=1000, shed=0, lost=0, remaining=0)
        statistics = buffer.statistics()
    assert {k: r.envelope for k, r in stored(tier).items()} == {key(n): b"%d" % n for n in range(1000)}
    assert statistics.batches == tier.calls["put_many"] == 2
    assert (statistics.items, statistics.bytes, statistics.written) == (0, 0, 1000)


async def test_what_is_buffered_can_be_read_until_it_is_in_the_tier() -> None:
    gate = anyio.Event()
    tier = await open_tier(lambda operation, number: Fault(hold=gate))
    async with running(tier) as buffer:
        buffer.put_nowait(record(1, b"one"))
        assert buffer.get(key(1)) == b"one"
        while not tier.calls["put_many"]:
            await checkpoint()
        assert buffer.get(key(1)) == b"one"  # under way is not there yet
        assert buffer.get(key(2)) is None
        gate.set()
        await buffer.flush()
        assert buffer.get(key(1)) is None
        assert stored(tier)[key(1)].envelope == b"one"


async def test_one_pending_write_per_fingerprint_and_the_newest_stamp_wins() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier)
    assert buffer.put_nowait(record(1, b"first", snap=10))
    assert buffer.put_nowait(record(1, b"newer", snap=11))
    assert not buffer.put_nowait(record(1, b"older", snap=10))
    assert buffer.put_nowait(record(1, b"same", snap=11))
    assert buffer.put_nowait(record(1, b"other epoch", snap=1, epoch=2))
    assert buffer.get(key(1)) == b"other epoch"
    statistics = buffer.statistics()
    assert (statistics.items, statistics.replaced, statistics.superseded) == (1, 3, 1)
    report = await buffer.aclose()
    assert report == WriteReport(written=1, shed=0, lost=0, remaining=0)
    assert stored(tier)[key(1)].envelope == b"other epoch"


async def test_a_newer_record_than_the_one_under_way_is_written_after_it() -> None:
    gate = anyio.Event()
    tier = await open_tier(lambda operation, number: Fault(hold=gate))
    async with running(tier) as buffer:
        buffer.put_nowait(record(1, b"first", snap=10))
        while not tier.calls["put_many"]:
            await checkpoint()
        buffer.put_nowait(record(1, b"newer", snap=11))
        assert not buffer.put_nowait(record(1, b"older", snap=9))
        assert buffer.get(key(1)) == b"newer"
        gate.set()
        assert (await buffer.flush()).written == 2
    assert stored(tier)[key(1)].envelope == b"newer"


async def test_dropped_writes_are_neither_read_nor_written() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier)
    for number in range(6):
        buffer.put_nowait(record(number, cost=number))
    assert buffer.drop([key(0), key(0), key(99)]) == 1
    assert buffer.drop_where(lambda pending: pending.cost >= 4) == 2
    assert buffer.get(key(5)) is None
    await buffer.aclose()
    assert set(stored(tier)) == {key(1), key(2), key(3)}
    assert buffer.statistics().dropped == 3


async def test_settled_waits_for_a_write_that_cannot_be_recalled() -> None:
    gate = anyio.Event()
    tier = await open_tier(lambda operation, number: Fault(hold=gate) if operation == "put_many" else None)
    async with running(tier) as buffer:
        buffer.put_nowait(record(1))
        while not tier.calls["put_many"]:
            await checkpoint()
        assert buffer.drop([key(1)]) == 1
        assert buffer.get(key(1)) is None
        async with anyio.create_task_group() as group:
            group.start_soon(buffer.settled, [key(1), key(2)])
            await checkpoint()
            gate.set()
        assert await tier.delete_many([key(1)]) == 1
        await buffer.settled([key(1)])
        await buffer.flush()
    assert stored(tier) == {}


async def test_expired_records_are_dropped_when_their_turn_comes() -> None:
    clock = ManualClock()
    tier = await open_tier()
    buffer = WriteBehind(tier, clock=clock)
    buffer.put_nowait(record(1, stale_until=clock() + 5_000_000))
    buffer.put_nowait(record(2, stale_until=clock() + 5_000_001))
    clock.advance(5)
    assert (await buffer.aclose()).written == 1
    assert set(stored(tier)) == {key(2)}
    assert buffer.statistics().expired == 1


async def test_full_it_sheds_the_lowest_dollars_per_byte_and_counts_them() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier, max_items=3)
    assert buffer.put_nowait(record(1, cost=50))
    assert buffer.put_nowait(record(2, cost=10))
    assert buffer.put_nowait(record(3, b"x" * 5000, cost=100))  # dear, but large
    assert buffer.put_nowait(record(4, cost=40))
    assert buffer.get(key(2)) == b"x"
    assert buffer.get(key(3)) is not None or buffer.get(key(2)) is not None
    assert not buffer.put_nowait(record(5, cost=1)), "the newcomer itself is worth least"
    assert buffer.put_nowait(record(6, cost=1000))
    statistics = buffer.statistics()
    assert (statistics.items, statistics.shed) == (3, 3)
    # Dollars per byte: 3 has 100/5512, 5 has 1/513, 2 has 10/513.
    assert statistics.shed_cost == 100 + 1 + 10
    await buffer.aclose()
    assert set(stored(tier)) == {key(1), key(4), key(6)}


async def test_the_bound_in_bytes_holds_also_when_a_record_grows() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier, max_bytes=10_000)
    for number in range(50):
        buffer.put_nowait(record(number % 7, bytes(700 + 100 * (number % 9)), snap=number, cost=number))
        assert buffer.statistics().bytes <= 10_000
    assert not buffer.put_nowait(record(99, bytes(20_000), cost=10**9)), "larger than the whole buffer"
    await buffer.aclose()
    statistics = buffer.statistics()
    assert statistics.offered == (
        statistics.written + statistics.replaced + statistics.shed + statistics.superseded
    )
    assert (statistics.items, statistics.bytes) == (0, 0)


async def test_room_is_waited_for() -> None:
    gate = anyio.Event()
    tier = await open_tier(lambda operation, number: Fault(hold=gate))
    async with running(tier, max_items=2) as buffer:
        buffer.put_nowait(record(1))
        buffer.put_nowait(record(2))
        while not tier.calls["put_many"]:
            await checkpoint()
        async with anyio.create_task_group() as group:
            group.start_soon(buffer.room, key(3), 1)
            await checkpoint()
            assert not buffer.fits(key(3), 1)
            gate.set()
        assert buffer.put_nowait(record(3))
        assert (await buffer.flush()).shed == 0
    assert set(stored(tier)) == {key(1), key(2), key(3)}


async def test_an_outage_is_retried_and_nothing_is_lost() -> None:
    tier = await open_tier(fail_first(4, error=OUTAGE))
    async with running(tier) as buffer:
        for number in range(20):
            buffer.put_nowait(record(number))
        report = await buffer.flush()
        assert report == WriteReport(written=20, shed=0, lost=0, remaining=0)
        assert buffer.statistics().retries == 80


async def test_an_outage_uses_up_no_attempts() -> None:
    tier = await open_tier(fail_first(20, error=OUTAGE))
    async with running(tier, attempts=1) as buffer:
        for number in range(5):
            buffer.put_nowait(record(number))
        assert await buffer.flush() == WriteReport(written=5, shed=0, lost=0, remaining=0)


async def test_a_record_that_keeps_failing_is_given_up_and_counted() -> None:
    tier = await open_tier(lambda operation, number: Fault(BAD))
    async with running(tier, attempts=3) as buffer:
        buffer.put_nowait(record(1, cost=7))
        assert await buffer.flush() == WriteReport(written=0, shed=0, lost=1, remaining=0)
        assert buffer.statistics().lost_cost == 7
    assert tier.calls["put_many"] == 3


async def test_bad_records_in_both_halves_of_a_batch_take_no_other_with_them() -> None:
    tier = await open_tier(bad=frozenset({3, 60, 61, 99}))
    async with running(tier, attempts=2) as buffer:
        for number in range(100):
            buffer.put_nowait(record(number))
        assert await buffer.flush() == WriteReport(written=96, shed=0, lost=4, remaining=0)
    assert set(stored(tier)) == {key(n) for n in range(100) if n not in {3, 60, 61, 99}}


async def test_every_record_with_a_receipt_ends_once() -> None:
    ends: list[tuple[Any, str]] = []
    tier = await open_tier(max_record=50)
    clock = ManualClock()
    buffer = WriteBehind(
        tier,
        max_items=3,
        clock=clock,
        ended=lambda receipt, _, outcome, reason: ends.append((receipt, outcome)),
    )
    buffer.put_nowait(record(1, snap=5), "old")
    buffer.put_nowait(record(1, snap=6), "new")
    buffer.put_nowait(record(1, snap=4), "older")
    buffer.put_nowait(record(2, bytes(100), cost=10**9), "large")
    buffer.put_nowait(record(3, stale_until=clock()), "stale")
    buffer.put_nowait(record(4, cost=1), "cheap")
    buffer.drop([key(3)])
    buffer.put_nowait(record(5, stale_until=clock()), "expired")
    await buffer.aclose()
    buffer.put_nowait(record(6), "late")
    assert ends == [
        ("old", "replaced"),
        ("older", "superseded"),
        ("cheap", "shed"),
        ("stale", "dropped"),
        ("expired", "expired"),
        ("new", "stored"),
        ("large", "refused"),
        ("late", "closed"),
    ]


async def test_one_bad_record_never_blocks_the_others() -> None:
    tier = await open_tier(bad=frozenset({13}))
    async with running(tier, attempts=2) as buffer:
        for number in range(100):
            buffer.put_nowait(record(number, cost=number))
        assert await buffer.flush() == WriteReport(written=99, shed=0, lost=1, remaining=0)
        assert buffer.statistics().lost_cost == 13
    assert set(stored(tier)) == {key(n) for n in range(100) if n != 13}


async def test_a_tier_that_fails_every_batch_is_not_asked_for_every_half() -> None:
    tier = await open_tier(lambda operation, number: Fault(BAD) if number < 3 else None)
    async with running(tier) as buffer:
        for number in range(100):
            buffer.put_nowait(record(number))
        assert (await buffer.flush()).written == 100
    # Whole, two halves; then, as a bad record in each half would need it, 25, 50 and the last 25.
    assert tier.calls["put_many"] == 6


async def test_a_write_that_failed_after_it_was_done_may_be_repeated() -> None:
    tier = await open_tier(lambda operation, number: Fault(OUTAGE, after=True) if number == 0 else None)
    async with running(tier) as buffer:
        buffer.put_nowait(record(1))
        assert (await buffer.flush()).written == 1
    assert set(stored(tier)) == {key(1)}


async def test_records_the_tier_refuses_are_lost_not_retried() -> None:
    tier = await open_tier(max_record=10)
    async with running(tier) as buffer:
        buffer.put_nowait(record(1, bytes(100)))
        assert await buffer.flush() == WriteReport(written=0, shed=0, lost=1, remaining=0)


async def test_a_defect_of_the_tier_does_not_end_the_task() -> None:
    tier = await open_tier(fail_first(1, error=ZeroDivisionError()))
    async with running(tier) as buffer:
        buffer.put_nowait(record(1))
        assert (await buffer.flush()).written == 1


async def test_flush_reports_what_remains_at_its_deadline() -> None:
    tier = await open_tier(lambda operation, number: Fault(hold=anyio.Event()))
    async with running(tier) as buffer:
        buffer.put_nowait(record(1))
        buffer.put_nowait(record(2))
        assert await buffer.flush(timeout=0.01) == WriteReport(0, 0, 0, remaining=2)


async def test_closing_drains_takes_no_more_and_ends_the_task() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier)
    async with anyio.create_task_group() as group:
        await group.start(buffer.run)
        buffer.put_nowait(record(1))
        assert await buffer.aclose() == WriteReport(written=1, shed=0, lost=0, remaining=0)
    assert not buffer.put_nowait(record(2))
    assert buffer.statistics().lost == 1


async def test_closing_under_its_deadline_counts_what_remained() -> None:
    tier = await open_tier(lambda operation, number: Fault(OUTAGE))
    buffer = WriteBehind(tier, backoff=60.0)
    async with anyio.create_task_group() as group:
        await group.start(buffer.run)
        buffer.put_nowait(record(1, cost=9))
        report = await buffer.aclose(timeout=0.01)
    assert report == WriteReport(written=0, shed=0, lost=0, remaining=1)
    assert (buffer.statistics().lost, buffer.statistics().lost_cost, buffer.statistics().items) == (1, 9, 0)


@pytest.mark.parametrize("under_way", [False, True])
async def test_what_a_cancelled_task_leaves_is_written_at_closing(under_way: bool) -> None:
    gate = anyio.Event()
    tier = await open_tier(lambda operation, number: Fault(hold=gate) if number == 0 and under_way else None)
    buffer = WriteBehind(tier)
    async with anyio.create_task_group() as group:
        await group.start(buffer.run)
        if under_way:
            buffer.put_nowait(record(0))
            while not tier.calls["put_many"]:
                await checkpoint()
        group.cancel_scope.cancel()
        buffer.put_nowait(record(1))
    expected = {key(0), key(1)} if under_way else {key(1)}
    report = await buffer.aclose()
    assert (report.remaining, set(stored(tier))) == (0, expected)


async def test_closing_inside_a_cancelled_scope_still_drains() -> None:
    tier = await open_tier()
    buffer = WriteBehind(tier)
    buffer.put_nowait(record(1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await buffer.aclose()
    assert set(stored(tier)) == {key(1)}
