"""The disk tier beyond the contract: its address, its life, its cancellation, two processes and a fork."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from llmcache_fast._core import DiskStore
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from tests.faults.disk_worker import MAX_BYTES, envelope, key


@pytest.mark.parametrize(
    ("url", "path", "max_bytes", "budget"),
    [
        ("disk:///var/lib/app", "/var/lib/app", 1 << 30, 0.25),
        ("disk:///a%20b/c?max_bytes=10GiB&budget=1.5", "/a b/c", 10 << 30, 1.5),
        ("disk:///x?max_bytes=5000000", "/x", 5_000_000, 0.25),
    ],
)
def test_addresses(url: str, path: str, max_bytes: int, budget: float) -> None:
    tier = DiskTier.from_url(url)
    assert (str(tier.path), tier.max_bytes, tier.budget) == (path, max_bytes, budget)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("disk://relative/path", "three slashes"),
        ("disk:relative", "three slashes"),
        ("file:///x", "three slashes"),
        ("disk:///x?maxbytes=1GiB", "unknown option 'maxbytes'"),
        ("disk:///x?max_bytes=lots", "512MiB"),
        ("disk:///x?max_bytes=1KiB", "at least 1 MiB"),
        ("disk:///x?budget=soon", "number of seconds"),
        ("disk:///x?budget=0", "positive"),
        ("disk:///x?budget=nan", "positive"),
    ],
)
def test_addresses_that_cannot_work_say_what_to_write(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DiskTier.from_url(url)


async def test_opening_and_closing_twice_is_once(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    await tier.open()
    assert (await tier.stats())["rows"] == 0
    await tier.aclose()
    await tier.aclose()
    with pytest.raises(TierError, match=r"disk\.get_many: the tier is not open"):
        await tier.get_many([bytes(32)])


async def test_a_key_that_is_no_fingerprint_is_a_mistake_not_a_failure(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    with pytest.raises(ValueError, match="32 bytes, this one has 5"):
        await tier.get_many([b"short"])
    await tier.aclose()


@pytest.mark.parametrize("cursor", [b"", b"short", bytes(9), b"\xff" * 8])
async def test_a_cursor_of_something_else_is_a_mistake_not_a_failure(tmp_path: Path, cursor: bytes) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    with pytest.raises(ValueError, match="the scan before"):
        await tier.scan(cursor)
    assert await tier.scan(bytes(8), limit=0) == ([], None)
    await tier.aclose()


async def test_a_cancelled_call_leaves_the_tier_whole(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    records = [StoredRecord(key(0, 0, n), envelope(0, 0, n), 1, 1, NEVER, 1) for n in range(50)]
    for delay in (0, 0.0005, 0.002):
        with anyio.move_on_after(delay):
            await tier.put_many(records)
        with anyio.move_on_after(delay):
            await tier.get_many([record.key for record in records])
    await tier.put_many(records)
    assert await tier.get_many([r.key for r in records]) == [r.envelope for r in records]
    assert await tier.check() == []
    await tier.aclose()


async def test_vacuum_gives_space_back(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    await tier.put_many([StoredRecord(key(0, 0, n), bytes(100_000), 1, 1, NEVER, 1) for n in range(50)])
    await tier.delete_many([key(0, 0, n) for n in range(50)])
    assert await tier.vacuum() > 4_000_000
    await tier.aclose()


def test_processes_write_and_read_at_once(tmp_path: Path) -> None:
    """Four writers, killed after a while: all that each acknowledged is there, for each to read."""
    arguments = [sys.executable, "-m", "tests.faults.disk_worker", str(tmp_path)]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([*arguments, str(number), "0", "sound"], stdout=subprocess.PIPE, cwd=root)
        for number in range(4)
    ]
    acknowledged = [0] * 4
    while min(acknowledged) < 128:
        for number, worker in enumerate(workers):
            assert worker.stdout is not None
            line = worker.stdout.readline().split()
            assert line[0] != b"unreadable"
            if line[0] == b"put":
                acknowledged[number] += int(line[2])
    for worker in workers:
        worker.kill()
        worker.communicate()
    store = DiskStore(str(tmp_path), MAX_BYTES, 10.0)
    for number, count in enumerate(acknowledged):
        found = store.get_many([key(number, 0, n) for n in range(count)])
        assert found == [envelope(number, 0, n) for n in range(count)]
    assert store.check() == []


def _in_child(store: DiskStore, answers: multiprocessing.SimpleQueue[str]) -> None:
    for call in (lambda: store.get_many([bytes(32)]), store.close):
        try:
            call()
        except TierUnavailableError as error:
            answers.put(error.reason)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_cannot_harm_its_parent(tmp_path: Path) -> None:
    store = DiskStore(str(tmp_path), MAX_BYTES, 1.0)
    store.put_many([(key(0, 0, 0), b"before", 1, 1, NEVER, 1)], 0)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(store, answers))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert [answers.get(), answers.get()] == ["forked", "forked"]
    store.put_many([(key(0, 0, 1), b"after", 1, 1, NEVER, 1)], 0)
    other = DiskStore(str(tmp_path), MAX_BYTES, 1.0)
    assert other.get_many([key(0, 0, 0), key(0, 0, 1)]) == [b"before", b"after"]
    assert other.check() == []
