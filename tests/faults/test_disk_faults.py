"""Disks that are full, read-only or forbidden, files that are damaged or somebody else's."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcache_fast._core import DiskStore
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from tests.faults.disk_worker import MAX_BYTES, envelope, key

DATABASE = "cache.sqlite3"


def record(number: int, data: bytes | None = None) -> StoredRecord:
    return StoredRecord(key(9, 0, number), data or envelope(9, 0, number), 1, 1, NEVER, 1)


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at `path`; skips where mounting is not allowed."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def damage(path: Path, start: int) -> None:
    """Overwrite the file from `start` on, as a bad sector or another program would.

    Not from this process, which would lose SQLite's locks by closing the file.
    """
    program = """
import sys
with open(sys.argv[1], "r+b") as file:
    end, start = file.seek(0, 2), file.seek(int(sys.argv[2]))
    file.write(b"U" * (end - start))
"""
    subprocess.run([sys.executable, "-c", program, str(path), str(start)], check=True)


def set_aside(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]


async def test_a_full_disk_fails_the_write_and_keeps_what_is_there(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as folder:
        tier = DiskTier(folder / "cache", max_bytes=1 << 30)
        await tier.open()
        stored: list[int] = []

        async def fill() -> None:
            for number in range(200):
                await tier.put_many([record(number, bytes([number]) * 60_000)])
                stored.append(number)

        with pytest.raises(TierUnavailableError) as caught:
            await fill()
        assert caught.value.reason == "full"
        assert len(stored) > 20
        found = await tier.get_many([key(9, 0, n) for n in stored])
        assert found == [bytes([n]) * 60_000 for n in stored]
        assert await tier.check() == []
        # Room that somebody makes is used.
        remount(folder, "size=16m")
        await tier.put_many([record(500)])
        assert await tier.get_many([key(9, 0, 500)]) == [envelope(9, 0, 500)]
        await tier.aclose()


async def test_no_room_for_a_database_at_all(tmp_path: Path) -> None:
    with mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=16k", "tmpfs") as folder:
        with pytest.raises(TierUnavailableError) as caught:
            await DiskTier(folder / "cache").open()
        assert caught.value.reason == "full"


def test_a_file_size_limit_fails_the_write_and_damages_nothing(tmp_path: Path) -> None:
    """In a process of its own: the limit is the process's."""
    store = DiskStore(str(tmp_path), MAX_BYTES, 1.0)
    program = """
import sys
from llmcache_fast._errors import TierUnavailableError
from llmcache_fast._core import DiskStore
from tests.faults.disk_worker import batch
store = DiskStore(sys.argv[1], 1 << 30, 1.0)
done = 0
try:
    while done < 4000:
        store.put_many(batch(9, 0, done), 0)
        done += 16
except TierUnavailableError as error:
    print(done, error.reason, flush=True)
"""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    count, reason = done.stdout.split()
    assert int(count) > 0
    assert reason in {"io", "full"}
    found = store.get_many([key(9, 0, n) for n in range(int(count))])
    assert found == [envelope(9, 0, n) for n in range(int(count))]
    assert store.check() == []


async def test_a_read_only_file_system_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "-t", "tmpfs", "-o", "ro", "tmpfs") as folder:
        with pytest.raises(TierUnavailableError, match="read-only file system or file: choose") as caught:
            await DiskTier(folder / "cache").open()
        assert (caught.value.reason, caught.value.tier, caught.value.operation) == (
            "read_only",
            "disk",
            "open",
        )


async def test_a_file_system_that_turns_read_only_fails_writes_and_recovers(tmp_path: Path) -> None:
    with mounted(tmp_path / "rw", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as folder:
        tier = DiskTier(folder / "cache")
        await tier.open()
        await tier.put_many([record(1)])
        await tier.aclose()
        remount(folder, "ro")
        with pytest.raises(TierUnavailableError) as caught:
            await tier.open()
        assert caught.value.reason == "read_only"
        remount(folder, "rw")
        await tier.open()
        assert await tier.get_many([key(9, 0, 1)]) == [envelope(9, 0, 1)]
        await tier.aclose()


def _open_as_nobody(folder: str, answers: multiprocessing.SimpleQueue[str]) -> None:
    if os.geteuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    try:
        DiskStore(folder, MAX_BYTES, 1.0)
    except TierUnavailableError as error:
        answers.put(f"{error.reason}: {error}")
    else:
        answers.put("opened")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_without_permission() -> None:
    """In a child that gives up root's rights, if it has them: root ignores the modes of files."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        closed = Path(parent, "closed")
        closed.mkdir(mode=0o555)
        context = multiprocessing.get_context("fork")
        answers = context.SimpleQueue()
        child = context.Process(target=_open_as_nobody, args=(str(closed / "cache"), answers))
        child.start()
        child.join(30)
        answer = answers.get()
        assert answer.startswith("permission: disk.open: no permission to use")
        assert "choose another folder" in answer


async def test_a_damaged_file_is_set_aside_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    await tier.put_many([record(n) for n in range(100)])
    await tier.aclose()
    (tmp_path / DATABASE).write_bytes(b"\xa5" * 70_000)
    with caplog.at_level(logging.WARNING):
        await tier.open()
    assert len(caplog.records) == 1
    aside = set_aside(tmp_path)
    assert len(aside) == 1
    assert aside[0].read_bytes() == b"\xa5" * 70_000
    assert str(aside[0]) in caplog.text
    assert await tier.get_many([key(9, 0, 1)]) == [None]
    await tier.put_many([record(1)])
    assert await tier.get_many([key(9, 0, 1)]) == [envelope(9, 0, 1)]
    await tier.aclose()


async def test_damage_met_in_use_costs_one_failed_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = DiskTier(tmp_path)
    await tier.open()
    await tier.put_many([record(n) for n in range(300)])
    await tier.vacuum()
    other = DiskTier(tmp_path)
    await other.open()
    damage(tmp_path / DATABASE, 65_536)  # behind the roots of the trees, which opening looks at
    keys = [key(9, 0, n) for n in range(300)]
    failures = []
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for each in (tier, other):
                try:
                    await each.put_many([record(1)])
                    await each.get_many(keys)
                except TierError as error:
                    failures.append(error.reason)
    assert failures in (["corrupt"], ["corrupt", "corrupt"])
    assert "damaged" in caplog.text
    await tier.put_many([record(7)])
    assert await other.get_many([key(9, 0, 7)]) == [envelope(9, 0, 7)]
    assert len(set_aside(tmp_path)) == 1
    await tier.aclose()
    await other.aclose()


@pytest.mark.parametrize("content", [b"my notes\n" * 1000, b"SQLite format 3\0" + b"\x10" * 5000])
async def test_a_file_that_was_never_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    for _ in range(2):
        with pytest.raises(TierUnavailableError, match="left as it is") as caught:
            await DiskTier(tmp_path).open()
        assert caught.value.reason == "foreign"
    assert (tmp_path / DATABASE).read_bytes() == content
