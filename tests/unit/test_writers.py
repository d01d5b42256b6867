"""Write-behind of all tiers behind one journal: what each durability promises."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._entry import NEVER, Facts
from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.actors.dead_letters import DeadLetters
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.writers import Writers
from llmcache_fast.testing import Fault, FaultyTier, MemoryTier
from llmcache_fast.tiers.base import PutReport, StoredRecord, Tier

OUTAGE = TierUnavailableError("down", tier="upper", operation="put_many", reason="io")
ONLY = "upper"
FACTS = Facts(tags=("doc:7",), label="a/b", model="m")


class Named(MemoryTier):
    """A tier in memory, by any name, that can be down."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name
        self.down = False

    async def put_many(self, records: Any) -> PutReport:
        if self.down:
            raise OUTAGE
        return await super().put_many(records)


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(number: int, envelope: bytes = b"x", **changes: Any) -> StoredRecord:
    made = StoredRecord(key(number), envelope, 1, 10, NEVER, 100, 5, 6, "tenant", FACTS)
    return made._replace(**changes)


def journal(folder: Path, **options: Any) -> Journal:
    return Journal(folder, **({"segment_bytes": 64 << 10} | options))


async def opened(*names: str) -> list[Named]:
    tiers = [Named(name) for name in names]
    for tier in tiers:
        await tier.open()
    return tiers


@asynccontextmanager
async def running(
    tiers: list[Any], *, closed: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Writers]:
    """Writers in their task group; what is not closed by the test ends as in a crash."""
    writers = Writers(**({"backoff": 0.001, "max_backoff": 0.01} | options))
    async with anyio.create_task_group() as group:
        await writers.open(group, tiers, closed=closed)
        yield writers
        group.cancel_scope.cancel()


def lanes(folder: Path) -> list[Path]:
    return list(folder.glob("lane-*"))


def files_with(text: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def crash(of: Journal) -> None:
    """Let go of the lanes without another word, as the end of the process does."""
    for lane in of.lanes:
        # In the same process a lock ends with its file.
        lane.core = None  # type: ignore[assignment]
    of.lanes = []
    of._own = None


async def test_each_durability_writes_to_every_tier(tmp_path: Path) -> None:
    for durability in ("memory", "journal", "sync"):
        tiers = await opened("upper", "lower")
        async with running(tiers, durability=durability, journal=journal(tmp_path)) as writers:
            assert await writers.put(record(1))
            writers.put_nowait(record(2), only=["lower"])
            await writers.flush()
            reports = await writers.aclose()
            assert {name: report.remaining for name, report in reports.items()} == {"upper": 0, "lower": 0}
            assert writers.statistics().lost == 0
        assert tiers[0].records == {key(1): record(1)}
        assert tiers[1].records == {key(1): record(1), key(2): record(2)}
        assert not lanes(tmp_path), "all is done: the lane is gone"


async def test_what_was_acknowledged_survives_with_all_its_facts(tmp_path: Path) -> None:
    tiers = await opened("upper", "lower")
    tiers[1].down = True
    first = journal(tmp_path)
    hidden = record(1, namespace=None, facts=None, partition=key(7))
    async with running(tiers, durability="journal", journal=first) as writers:
        assert await writers.put(hidden)
        assert await writers.put(record(2, b"two", partition=bytes(32)))
        await anyio.wait_all_tasks_blocked()
    crash(first)
    again = await opened("upper", "lower")
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.replayed()
        await writers.flush()
        assert writers.statistics().replayed == 2
        assert writers.statistics().journal is not None
        await writers.aclose()
    assert again[1].records == {key(1): hidden, key(2): record(2, b"two", partition=bytes(32))}
    assert (await again[1].members(key(7)))[0] == [key(1)]
    assert not lanes(tmp_path)


async def test_what_is_left_at_the_end_stays_in_the_journal(tmp_path: Path) -> None:
    tiers = await opened("upper")
    tiers[0].down = True
    async with running(tiers, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.put(record(1))
        report = (await writers.aclose(timeout=0.01))["upper"]
        assert report.remaining == 1
        statistics = writers.statistics()
        assert (statistics.kept, statistics.kept_cost, statistics.lost, statistics.lost_cost) == (
            1,
            100,
            0,
            0,
        )
    again = await opened("upper")
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.replayed()
        await writers.aclose()
    assert set(again[0].records) == {key(1)}


async def test_sync_waits_for_the_last_tier_and_says_when_it_has_it_not() -> None:
    gate = anyio.Event()
    upper, lower = await opened("upper", "lower")
    slow = FaultyTier(lower, lambda operation, number: Fault(hold=gate) if operation == "put_many" else None)
    slow.name = "lower"
    async with running([upper, slow], durability="sync") as writers, anyio.create_task_group() as group:
        answers: list[bool] = []

        async def put() -> None:
            answers.append(await writers.put(record(1)))

        group.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert (answers, set(upper.records)) == ([], {key(1)})
        gate.set()
        while not answers:
            await checkpoint()
        assert (answers, set(lower.records)) == ([True], {key(1)})
    lower.down = True
    async with running([lower], durability="sync", sync_deadline=0.01) as writers:
        assert not await writers.put(record(2))
    async with running([lower], durability="sync", sync_deadline=0.01, strict=True) as writers:
        with pytest.raises(TierUnavailableError):
            await writers.put(record(2))


async def test_a_replaced_write_is_kept_until_the_newer_is_durable(tmp_path: Path) -> None:
    tiers = await opened("upper")
    tiers[0].down = True
    first = journal(tmp_path)
    async with running(tiers, durability="journal", journal=first) as writers:
        for snap in range(50):
            assert await writers.put(record(1, b"%d" % snap, snap=snap))
        assert first.own is not None
        await first.sync()
        assert first.own.core.stats()["records"] == 1
        assert len(writers._ledger._journalled) == 1
    crash(first)
    again = await opened("upper")
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.replayed()
        await writers.aclose()
    assert again[0].records[key(1)].envelope == b"49"


async def test_a_record_of_an_earlier_process_never_takes_the_place_of_a_newer_one(tmp_path: Path) -> None:
    first = journal(tmp_path)
    tiers = await opened("upper")
    tiers[0].down = True
    async with running(tiers, durability="journal", journal=first) as writers:
        await writers.put(record(1, b"old", epoch=1))
    crash(first)
    again = await opened("upper")
    again[0].down = True
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        writers.put_nowait(record(1, b"new", epoch=2))
        await writers.replayed()
        again[0].down = False
        await writers.aclose()
    assert again[0].records[key(1)].envelope == b"new"


async def test_what_does_not_fit_into_memory_comes_back_from_the_journal(tmp_path: Path) -> None:
    tiers = await opened("upper")
    tiers[0].down = True
    async with running(
        tiers, durability="journal", journal=journal(tmp_path), max_items=10, room_deadline=0.001
    ) as writers:
        for number in range(60):
            assert await writers.put(record(number, cost=number))
        statistics = writers.statistics()
        assert (statistics.spilled, statistics.shed, statistics.lost) == (50, 0, 0)
        tiers[0].down = False
        while len(tiers[0].records) < 60:
            await checkpoint()
        await writers.aclose()
    assert {r.envelope for r in tiers[0].records.values()} == {b"x"}


async def test_a_full_journal_sheds_the_lowest_dollars_per_byte(tmp_path: Path) -> None:
    tiers = await opened("upper")
    tiers[0].down = True
    size = 1000
    small = journal(tmp_path, max_bytes=4 * (size + 256))
    async with running(tiers, durability="journal", journal=small, room_deadline=0.001) as writers:
        for number, cost in enumerate((50, 10, 30, 40)):
            assert await writers.put(record(number, bytes(size), cost=cost))
        assert await writers.put(record(4, bytes(size), cost=20)), "10 goes"
        assert not await writers.put(record(5, bytes(size), cost=1)), "the newcomer is worth least"
        statistics = writers.statistics()
        assert (statistics.shed, statistics.shed_cost) == (1, 10)
        assert statistics.journal is not None
        assert statistics.journal.undurable == 1
    crash(small)
    again = await opened("upper")
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.replayed()
        await writers.aclose()
    assert set(again[0].records) == {key(0), key(2), key(3), key(4)}


async def test_what_a_tier_refuses_ends_as_a_dead_letter_and_blocks_nobody(tmp_path: Path) -> None:
    tiers = [Named("upper", max_record=100), Named("lower")]
    for tier in tiers:
        await tier.open()
    letters = DeadLetters(tmp_path / "dead-letters")
    async with running(
        tiers, durability="journal", journal=journal(tmp_path), dead_letters=letters
    ) as writers:
        for number in range(20):
            writers.put_nowait(record(number, bytes(200 if number == 7 else 10)))
        await writers.flush()
        await writers.aclose()
        statistics = writers.statistics()
        assert (statistics.dead, statistics.dead_cost, statistics.lost, statistics.lost_cost) == (
            1,
            100,
            0,
            0,
        )
    found, damaged = await letters.all()
    assert damaged == 0
    assert [(letter.tier, letter.reason, letter.record) for letter in found] == [
        ("upper", "refused", record(7, bytes(200)))
    ]
    assert (len(tiers[0].records), len(tiers[1].records)) == (19, 20)
    assert not lanes(tmp_path)


async def test_records_for_a_tier_nobody_knows_become_dead_letters(tmp_path: Path) -> None:
    first = journal(tmp_path)
    tiers: list[Tier] = [*await opened("upper", "gone", "absent")]
    for tier in tiers:
        tier.down = True  # type: ignore[attr-defined]
    async with running(tiers, durability="journal", journal=first) as writers:
        await writers.put(record(1))
    crash(first)
    letters = DeadLetters(tmp_path / "dead-letters")
    again = await opened("upper")
    async with running(
        again, closed=("absent",), durability="journal", journal=journal(tmp_path), dead_letters=letters
    ) as writers:
        await writers.replayed()
        await writers.aclose()
        assert writers.statistics().lost == 0
    assert [(letter.tier, letter.reason) for letter in (await letters.all())[0]] == [("gone", "no_such_tier")]
    assert set(again[0].records) == {key(1)}
    assert len(lanes(tmp_path)) == 1, "it waits for the tier that is absent"


async def test_erasing_leaves_nothing_anywhere(tmp_path: Path) -> None:
    first = journal(tmp_path)
    secret = os.urandom(64)
    tiers = await opened("upper")
    tiers[0].down = True
    async with running(tiers, durability="journal", journal=first) as writers:
        await writers.put(record(1, secret))
        await writers.put(record(2, b"kept", facts=None))
    crash(first)
    again = await opened("upper")
    again[0].down = True
    letters = DeadLetters(tmp_path / "dead-letters")
    await letters.add([("upper", "io", record(9, secret))])
    async with running(
        again,
        durability="journal",
        journal=journal(tmp_path),
        dead_letters=letters,
        max_items=1,
        room_deadline=0.0,
    ) as writers:
        await writers.put(record(3, secret))
        await writers.put(record(4, secret, cost=10_000))
        of_secret = secret.__eq__
        assert await writers.erase_buffered(of_secret) >= 1
        assert await writers.erase_journal(of_secret) >= 1
        assert await writers.erase_letters(of_secret) == 1
        assert await writers.held_elsewhere(of_secret) == 0
        assert files_with(secret, tmp_path) == []
        again[0].down = False
        await writers.replayed()
        await writers.aclose()
    assert set(again[0].records) == {key(2)}


async def test_what_another_living_process_journalled_is_counted_until_it_forgets_it(tmp_path: Path) -> None:
    secret = os.urandom(64)
    tiers, others = await opened("upper"), await opened("upper")
    others[0].down = True
    async with (
        running(tiers, durability="journal", journal=journal(tmp_path)) as writers,
        running(others, durability="journal", journal=journal(tmp_path)) as other,
    ):
        await other.put(record(1, secret))
        await other.put(record(2, b"another"))
        of_secret = secret.__eq__
        assert await writers.erase_journal(of_secret) == 0
        assert await writers.held_elsewhere(of_secret) == 1
        assert await other.held_elsewhere(of_secret) == 0
        await other.erase_buffered(of_secret)
        # Done, but in the file: that counts.
        assert await writers.held_elsewhere(of_secret) == 1
        await other.erase_journal(of_secret)
        assert await writers.held_elsewhere(of_secret) == 0
        assert files_with(secret, tmp_path) == []
        assert await writers.held_elsewhere(b"another".__eq__) == 1
        others[0].down = False
        await other.aclose()
        await writers.aclose()
    assert set(others[0].records) == {key(2)}


async def test_records_of_a_process_that_has_just_gone_are_erased_too(tmp_path: Path) -> None:
    secret = os.urandom(64)
    first = journal(tmp_path)
    tiers = await opened("upper")
    async with running(tiers, durability="journal", journal=journal(tmp_path)) as writers:
        gone = await opened("upper")
        gone[0].down = True
        async with running(gone, durability="journal", journal=first) as other:
            await other.put(record(1, secret))
            await other.put(record(2, b"kept"))
        crash(first)
        assert await writers.erase_journal(secret.__eq__) == 1
        assert files_with(secret, tmp_path) == []
        while key(2) not in tiers[0].records:
            await checkpoint()
        await writers.aclose()
    assert set(tiers[0].records) == {key(2)}


async def test_dropped_writes_are_not_written_again(tmp_path: Path) -> None:
    tiers = await opened("upper", "lower")
    tiers[0].down = tiers[1].down = True
    first = journal(tmp_path)
    async with running(tiers, durability="journal", journal=first) as writers:
        for number in range(4):
            await writers.put(record(number))
        assert writers.get(key(1), "upper") == b"x"
        assert writers.drop([key(1)]) == 2
        assert writers.drop_where(lambda r: r.key == key(2)) == 2
        assert writers.get(key(1), "upper") is None
        await writers.settled([key(1)])
        await writers.aclose(timeout=0.01)
    again = await opened("upper", "lower")
    async with running(again, durability="journal", journal=journal(tmp_path)) as writers:
        await writers.replayed()
        await writers.aclose()
    assert set(again[0].records) == set(again[1].records) == {key(0), key(3)}


async def test_a_journal_without_a_folder_costs_durability_and_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    tiers = await opened("upper")
    async with running(tiers, durability="journal", journal=journal(blocked)) as writers:
        assert writers.statistics().durability == "memory"
        assert not await writers.put(record(1))
        await writers.flush()
        await writers.aclose()
    assert set(tiers[0].records) == {key(1)}
    with pytest.raises(ValueError, match="needs a journal"):
        Writers("journal")


async def test_older_writes_end_in_each_tier_with_the_newest_one_there(tmp_path: Path) -> None:
    """The newest may be on its way into some of the tiers alone: the others do not wait for it."""
    tiers = await opened("upper", "lower")
    async with running(tiers, durability="sync", journal=journal(tmp_path)) as writers:
        first = writers.put_nowait(record(1, b"first"))
        writers.put_nowait(record(1, b"second", snap=11))
        writers.put_nowait(record(1, b"third", snap=12), only=["upper"])
        with anyio.fail_after(10):
            assert await writers.kept(first)
        await writers.flush()
        await writers.aclose()
    assert [tier.records[key(1)].envelope for tier in tiers] == [b"third", b"second"]
    assert not lanes(tmp_path), "all is done: the lane is gone"
