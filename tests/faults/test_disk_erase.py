"""What was deleted cannot be read in any file of the disk tier's folder once it was scrubbed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from tests.faults.disk_worker import MAX_BYTES, key

ROOT = Path(__file__).resolve().parents[2]
CANARY = b"what only this person ever said"
OTHERS = b"what somebody else asked, often"


def record(number: int, text: bytes, size: int) -> StoredRecord:
    return StoredRecord(key(3, 0, number), text * (size // len(text) + 1), 1, 1, NEVER, 1)


def readable(folder: Path, text: bytes) -> dict[str, int]:
    """By file: how often the text is in it."""
    found = {path.name: path.read_bytes().count(text) for path in folder.rglob("*") if path.is_file()}
    assert any(name.endswith("sqlite3") for name in found)
    return {name: count for name, count in found.items() if count}


async def filled(tier: DiskTier, rng: random.Random) -> list[int]:
    """A store in which records came, grew, shrank and went, of one page and of many; the person's numbers."""
    person = [n for n in range(600) if n % 3 == 0]
    for turn in range(4):
        numbers = [rng.randrange(600) for _ in range(600)] if turn else list(range(600))
        for first in range(0, 600, 40):
            await tier.put_many(
                [
                    record(n, OTHERS if n % 3 else CANARY, rng.choice([20, 300, 900, 3_000, 9_000, 40_000]))
                    for n in numbers[first : first + 40]
                ]
            )
        await tier.delete_many([key(3, 0, n) for n in numbers[:60]])
    return person


async def test_after_a_scrub_nothing_of_the_deleted_can_be_read(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, max_bytes=MAX_BYTES, budget=10.0)
    await tier.open()
    person = await filled(tier, random.Random(6))
    rows = (await tier.stats())["rows"]
    gone = await tier.delete_many([key(3, 0, n) for n in person])
    assert gone > 50
    # The planted bugs: to delete is not enough, and neither is to give back every empty page.
    assert readable(tmp_path, CANARY)
    await tier.vacuum()
    assert readable(tmp_path, CANARY)
    assert await tier.scrub() == []
    assert readable(tmp_path, CANARY) == {}
    assert set(readable(tmp_path, OTHERS)) == {"cache.sqlite3"}
    assert await tier.check() == []
    assert (await tier.stats())["rows"] == rows - gone
    await tier.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_others_go_on_while_one_scrubs(seed: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.disk_worker", str(tmp_path), "1", "0", "sound"]
    tier = DiskTier(tmp_path, max_bytes=MAX_BYTES, budget=10.0)
    await tier.open()
    person = await filled(tier, random.Random(seed))
    worker = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    )
    assert worker.stdout is not None
    try:
        await anyio.to_thread.run_sync(worker.stdout.readline)
        await tier.delete_many([key(3, 0, n) for n in person])
        for _ in range(3):
            assert await tier.scrub() == []
            assert readable(tmp_path, CANARY) == {}
            for _ in range(5):
                line = await anyio.to_thread.run_sync(worker.stdout.readline)
                assert line.startswith((b"put", b"mark"))
    finally:
        worker.kill()
        worker.communicate()
    assert await tier.check() == []
    await tier.aclose()


async def test_files_set_aside_are_told(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, budget=0.01)
    await tier.open()
    aside = tmp_path / "cache.sqlite3.corrupt-17"
    aside.write_bytes(CANARY)
    assert await tier.scrub() == [aside]
    assert readable(tmp_path, CANARY) == {aside.name: 1}
    await tier.aclose()
    with pytest.raises(TierError) as caught:
        await tier.scrub()
    assert caught.value.reason == "closed"
