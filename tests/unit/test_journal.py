"""The journal's actor: groups, durability answered truthfully, disks that fail, forks, cancelled callers."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.journal import Journal
from llmcache_fast.tiers.base import NEVER, StoredRecord

FULL = TierUnavailableError("full", tier="journal", operation="sync", reason="full")


def record(number: int, envelope: bytes = b"x") -> StoredRecord:
    return StoredRecord(number.to_bytes(32, "big"), envelope, 1, 1, NEVER, 100)


@contextlib.asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Journal]:
    journal = Journal(folder, **({"segment_bytes": 64 << 10} | options))
    async with anyio.create_task_group() as group:
        await journal.open()
        await group.start(journal.run)
        yield journal
        group.cancel_scope.cancel()
    await journal.aclose()


def spawn(program: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not possible here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Fails:
    """A lane whose disk fails when told to; everything else is the real one's."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def sync(self) -> tuple[int, TierError | None]:
        through, error = self.core.sync()
        return through, FULL if self.broken else error


async def test_concurrent_callers_share_a_sync(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        answers: list[bool] = []

        async def append(number: int) -> None:
            given = journal.append_nowait(record(number), "disk")
            assert given is not None
            answers.append(await journal.durable(given))

        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(append, number)
        assert answers == [True] * 500
        assert journal.own is not None
        assert journal.own.core.stats()["syncs"] <= 10


async def test_a_group_that_failed_is_not_durable_and_the_next_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, retry_after=0.0) as journal:
        assert journal.own is not None
        disk = Fails(journal.own.core)
        journal.own.core = disk  # type: ignore[assignment]
        for round_, broken in enumerate((False, True, True, False)):
            disk.broken = broken
            number = journal.append_nowait(record(round_), "disk")
            assert number is not None
            assert await journal.durable(number) is not broken
        assert (journal.counts.failures, journal.counts.undurable) == (2, 2)
        assert [entry.levelno for entry in caplog.records].count(logging.ERROR) == 1, "logged once"


async def test_after_a_failure_nothing_is_journalled_for_a_while(tmp_path: Path) -> None:
    async with running(tmp_path, retry_after=60.0) as journal:
        assert journal.own is not None
        disk = Fails(journal.own.core)
        disk.broken = True
        journal.own.core = disk  # type: ignore[assignment]
        number = journal.append_nowait(record(1), "disk")
        assert number is not None
        assert not await journal.durable(number)
        assert journal.append_nowait(record(2), "disk") is None
        assert journal.counts.undurable == 2


async def test_a_caller_cancelled_while_it_waits_leaves_the_others_and_the_record(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        first, second = journal.append_nowait(record(1), "disk"), journal.append_nowait(record(2), "disk")
        assert first is not None
        assert second is not None
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.durable(first)
        assert await journal.durable(second)
        assert journal.own is not None
        assert [row[0] for row in await journal.read(journal.own)] == [first, second]


@pytest.mark.parametrize("when", range(6))
async def test_a_cancelled_task_leaves_nobody_waiting_and_nothing_lost(tmp_path: Path, when: int) -> None:
    """Cancelled before, while and after a group is synced: whoever waits gets an answer, and a true one."""
    journal = Journal(tmp_path, segment_bytes=64 << 10)
    await journal.open()
    answers: dict[int, bool] = {}

    async def wait(number: int) -> None:
        answers[number] = await journal.durable(number)

    async with anyio.create_task_group() as callers, anyio.create_task_group() as group:
        await group.start(journal.run)
        for number in range(3):
            given = journal.append_nowait(record(number), "disk")
            assert given is not None
            callers.start_soon(wait, given)
        for _ in range(when):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert len(answers) == 3
    await journal.aclose()
    again = Journal(tmp_path, segment_bytes=64 << 10)
    await again.open()
    found = [row[0] for lane in again.adopted for row in await again.read(lane)]
    assert found == [1, 2, 3], "closing writes what was appended"
    await again.aclose()


async def test_a_child_neither_uses_nor_keeps_its_parents_lane(tmp_path: Path) -> None:
    """In a process of its own: forking this one would copy its threads' locks."""
    program = """
import os, sys, anyio
from llmcache_fast._errors import TierError
from llmcache_fast.actors.journal import Journal
from llmcache_fast.tiers.base import NEVER, StoredRecord

record = StoredRecord(bytes(32), b"x", 1, 1, NEVER, 1)

async def main():
    journal = Journal(sys.argv[1], segment_bytes=65536)
    await journal.open()
    journal.append_nowait(record, "disk")
    await journal.sync()
    return journal

journal = anyio.run(main)
if os.fork() == 0:
    try:
        journal.own.core.append(record, None, "disk")
    except TierError as error:
        os.write(1, error.reason.encode())
    os.close(1)
    os.read(0, 1)  # lives until the test has looked
    os._exit(0)
os.close(1)
os.wait3(os.WNOHANG)
os._exit(0)  # the parent dies; the child does not
"""
    process = spawn(program, tmp_path)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.read() == b"forked"
    process.wait()
    process.stdout.close()
    again = Journal(tmp_path, segment_bytes=64 << 10)
    await again.open()
    assert again.counts.recovered == 1
    await again.aclose()
    process.stdin.close()


async def test_processes_share_a_folder_and_each_lane_has_one_adopter(tmp_path: Path) -> None:
    program = """
import sys, anyio
from llmcache_fast.actors.journal import Journal
from llmcache_fast.tiers.base import NEVER, StoredRecord

async def main():
    journal = Journal(sys.argv[1], segment_bytes=65536)
    await journal.open()
    for number in range(100):
        journal.append_nowait(StoredRecord(number.to_bytes(32, "big"), b"x", 1, 1, NEVER, 1), "disk")
    await journal.sync()
    print(journal.counts.recovered, flush=True)
    sys.stdin.read()

anyio.run(main)
"""
    processes = [spawn(program, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n", "lanes of the living are nobody's"
    async with running(tmp_path) as journal:
        assert journal.adopted == []
    for process in processes:
        process.kill()
        process.communicate()
    one, two = Journal(tmp_path), Journal(tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(one.open)
        group.start_soon(two.open)
    assert one.counts.recovered + two.counts.recovered == 300
    assert {lane.core.path for lane in one.adopted}.isdisjoint(lane.core.path for lane in two.adopted)
    await one.aclose()
    await two.aclose()


async def test_two_may_finish_the_lanes_of_others_at_once(tmp_path: Path) -> None:
    """The journal's own task, and an erasure: each lane is let go of once."""
    for number in range(3):
        other = Journal(tmp_path)
        await other.open()
        other.append_nowait(record(number), "disk")
        await other.sync()
        await other.aclose()
    one = Journal(tmp_path)
    await one.open()
    for lane in one.adopted:
        for number, left, _, _ in await one.read(lane):
            one.done(lane, number, left)
        lane.replayed = True
    assert len(one.adopted) == 3
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one.sync)
    assert one.adopted == []
    await one.aclose()


async def test_a_full_disk_costs_durability_and_no_acknowledged_record(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with small_disk(folder, "1m"):
        acknowledged = 0
        journal = Journal(folder, segment_bytes=64 << 10, retry_after=0.0)
        await journal.open()
        async with anyio.create_task_group() as group:
            await group.start(journal.run)
            for number in range(400):
                given = journal.append_nowait(record(number, os.urandom(5000)), "disk")
                if given is None or not await journal.durable(given):
                    break
                acknowledged += 1
            group.cancel_scope.cancel()
        assert acknowledged > 50
        assert journal.counts.failures > 0
        await journal.aclose()
        again = Journal(folder, segment_bytes=64 << 10)
        with contextlib.suppress(TierError):
            await again.open()  # a full disk may have no room for a lane; adopting needs none
        found: list[bytes] = []
        for lane in again.adopted:
            after = 0
            while rows := await again.read(lane, after):
                after = rows[-1][0]
                found += [row[3].key for row in rows]
        assert set(found) >= {number.to_bytes(32, "big") for number in range(acknowledged)}
        await again.aclose()
