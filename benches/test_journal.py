"""The journal: appending and syncing beside the same bytes written plainly and beside SQLite; replay; a put.

Unlike elsewhere the first row is in wall-clock time: waiting for the disk is the work. A group is synced
before the next one is begun, on one thread: the least that a journal does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio

from benches.figure import OURS, Figure, duration, from_times
from benches.rounds import Contender, Times, interleave
from llmcache_fast._core import Journal as Core
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.writers import Writers
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import NEVER, StoredRecord

VALUE = os.urandom(2048)
GROUP = 512
SEGMENT = 16 << 20
PLAIN = "write + fdatasync of the same bytes"
FACTS = b"\x91\x91\xa5doc:7"


def records(size: int) -> list[StoredRecord]:
    keys = (hashlib.sha256(b"%d" % number).digest() for number in range(size))
    return [StoredRecord(key, VALUE, 1, 1, NEVER, 100, 5, 6, "default") for key in keys]


@contextlib.contextmanager
def writing() -> Iterator[dict[str, Contender]]:
    with tempfile.TemporaryDirectory() as folder:
        plain = os.open(Path(folder) / "plain", os.O_CREAT | os.O_WRONLY, 0o600)
        database = sqlite3.connect(Path(folder) / "journal.sqlite3", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(
            "CREATE TABLE pending (number INTEGER PRIMARY KEY, key BLOB, facts BLOB, envelope BLOB)"
        )
        journal = Core(folder, SEGMENT)

        def ours(batch: list[StoredRecord]) -> None:
            for start in range(0, len(batch), GROUP):
                group = [journal.append(record, FACTS, "disk") for record in batch[start : start + GROUP]]
                _, error = journal.sync()
                assert error is None
                journal.done([(number, 1) for number in group])

        def raw(batch: list[StoredRecord]) -> None:
            for start in range(0, len(batch), GROUP):
                os.write(plain, b"".join([record.envelope for record in batch[start : start + GROUP]]))
                os.fdatasync(plain)

        def sqlite(batch: list[StoredRecord]) -> None:
            for start in range(0, len(batch), GROUP):
                database.execute("BEGIN IMMEDIATE")
                database.executemany(
                    "INSERT INTO pending (key, facts, envelope) VALUES (?, ?, ?)",
                    [(record.key, FACTS, record.envelope) for record in batch[start : start + GROUP]],
                )
                database.execute("COMMIT")

        yield {
            PLAIN: Contender(records, raw),
            OURS: Contender(records, ours),
            "sqlite3, WAL, synchronous=FULL": Contender(records, sqlite),
        }
        journal.close()
        database.close()
        os.close(plain)


def _write_row(rounds: int) -> Figure:
    times = Times()
    with writing() as contenders:
        names = list(contenders)
        for number in range(rounds + 1):
            for name in names[number % 3 :] + names[: number % 3]:
                batch = contenders[name].prepare(4 * GROUP)
                start = time.perf_counter_ns()
                contenders[name].run(batch)
                if number:
                    times.rounds.setdefault(name, []).append((time.perf_counter_ns() - start) / len(batch))
    rate = 1e9 / times.ns(OURS).median
    return from_times(
        f"journal: append entries of 2 KB, synced in groups of {GROUP} (wall clock)",
        times,
        PLAIN,
        notes=[f"{rate:,.0f} entries/s; to reach: 50,000"],
    )


def _replay_row(rounds: int) -> Figure:
    size = 20_000
    with tempfile.TemporaryDirectory() as folder:
        core = Core(folder, SEGMENT)
        for _ in range(0, size, GROUP):
            for record in records(GROUP):
                core.append(record._replace(key=os.urandom(32)), None, "disk")
            core.sync()
        del core

        async def replay() -> int:
            journal = Journal(folder)
            await journal._adopt()
            found = after = 0
            for lane in journal.adopted:
                while rows := await journal.read(lane, after):
                    found, after = found + len(rows), rows[-1][0]
            return found

        def run(expected: int) -> None:
            found = anyio.run(replay)
            assert found >= expected

        contender = {OURS: Contender(lambda size: size, run)}
        times = interleave(contender, size=size, rounds=rounds)
    rate = 1e9 / times.ns(OURS).median
    return from_times(
        "journal: adopt a lane and read back entries of 2 KB",
        times,
        OURS,
        notes=[f"{rate:,.0f} entries/s of processor time; to reach: 200,000"],
    )


async def _nowait_times(rounds: int) -> Times:
    """The caller's own part: what `put_nowait` takes, without the tasks that write."""
    times = Times()
    for durability in ("memory", "journal"):
        with tempfile.TemporaryDirectory() as folder:
            tier = MemoryTier()
            await tier.open()
            journal = Journal(folder) if durability == "journal" else None
            writers = Writers(durability, journal=journal)  # type: ignore[arg-type]
            async with anyio.create_task_group() as group:
                await writers.open(group, [tier])
                for number in range(rounds + 1):
                    batch = records(2000)
                    start = time.process_time_ns()
                    for record in batch:
                        writers.put_nowait(record)
                    if number:
                        spent = (time.process_time_ns() - start) / len(batch)
                        times.rounds.setdefault(f"{OURS} ({durability})", []).append(spent)
                    await writers.flush()
                    tier.records.clear()
                await writers.aclose()
                group.cancel_scope.cancel()
    return times


async def _set_times(rounds: int) -> Times:
    times = Times()
    for durability in ("memory", "journal"):
        with tempfile.TemporaryDirectory() as folder:
            tier = MemoryTier()
            await tier.open()
            journal = Journal(folder) if durability == "journal" else None
            writers = Writers(durability, journal=journal)  # type: ignore[arg-type]
            async with anyio.create_task_group() as group:
                await writers.open(group, [tier])
                for number in range(rounds + 1):
                    batch = records(2000)
                    start = time.process_time_ns()
                    async with anyio.create_task_group() as callers:
                        for record in batch:
                            callers.start_soon(writers.put, record)
                    await writers.flush()
                    if number:
                        spent = (time.process_time_ns() - start) / len(batch)
                        times.rounds.setdefault(f"{OURS} ({durability})", []).append(spent)
                    tier.records.clear()
                await writers.aclose()
                group.cancel_scope.cancel()
    return times


def figures(rounds: int) -> Iterator[Figure]:
    yield _write_row(rounds)
    yield _replay_row(rounds)
    name = f"{OURS} (journal)"
    times = anyio.run(_nowait_times, rounds)
    yield from_times(
        "journal: a put_nowait, the caller's processor time",
        times,
        f"{OURS} (memory)",
        ours=name,
        notes=[f"{duration(times.ns(name).median)}; to reach: 20 us"],
    )
    times = anyio.run(_set_times, rounds)
    yield from_times(
        "journal: a put by one of 2,000 tasks, all its processor time until it is in the tier",
        times,
        f"{OURS} (memory)",
        ours=name,
        notes=[f"{duration(times.ns(name).median)} with its task, its group and the tier's part"],
    )
