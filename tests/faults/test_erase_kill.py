"""SIGKILL at any moment of an erasure: nothing erased is answered afterwards, and erasing again finishes.

Then every file and every server is searched for the person's words. `LLMCACHE_KILLS` sets the length of the
run (6).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import Erasure
from llmcache_fast._entry import NEVER, Entry, Facts
from llmcache_fast._wire import Wire
from llmcache_fast.actors.dead_letters import FOLDER, DeadLetters
from llmcache_fast.actors.walking import Walk
from llmcache_fast.actors.writers import Writers
from tests.faults.erase_worker import ENTRIES, PERSON, canary, opened
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

KILLS = int(os.environ.get("LLMCACHE_KILLS", "6"))
ROOT = Path(__file__).resolve().parents[2]
WORDS = b"what only this person ever said"


def worker(folder: Path, turn: int, mode: str, tiers: list[str]) -> subprocess.Popen[bytes]:
    """A worker that begins to erase now."""
    command = [sys.executable, "-m", "tests.faults.erase_worker", str(folder), str(turn), mode, *tiers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"erasing\n"
    return process


def takes(folder: Path, tiers: list[str]) -> float:
    """Seconds of an erasure that nobody kills."""
    process = worker(folder, -1, "sound", tiers)
    assert process.stdout is not None
    started = time.monotonic()
    while process.stdout.readline() != b"erased\n":
        assert process.poll() is None
    seconds = time.monotonic() - started
    process.kill()
    process.communicate()
    return seconds


def killed(folder: Path, turn: int, mode: str, tiers: list[str], after: float) -> bytes:
    """Run a worker and kill it `after` seconds of its erasure; what it said since."""
    process = worker(folder, turn, mode, tiers)
    time.sleep(after)  # when the kill comes is the test's input, not something it waits for
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    return said


def holding(folder: Path) -> list[str]:
    """The files with the person's words in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if WORDS in path.read_bytes()]


async def held(folder: Path, tiers: list[str]) -> dict[str, int]:
    """By tier, records with the person's words, as the tier itself tells them."""
    found = {}
    async with opened(str(folder), tiers) as cache:
        for floor in cache._lookup.floors:
            tier: Any = floor.tier
            cursor, count = None, 0
            while True:
                records, cursor = await tier.scan(cursor, 500)
                count += sum(WORDS in envelope for _, envelope in records)
                if cursor is None:
                    break
            found[floor.name] = count
    return {name: count for name, count in found.items() if count}


async def answered(folder: Path, turn: int, tiers: list[str]) -> int:
    """How much of the person's a new process answers."""
    async with opened(str(folder), tiers) as cache:
        found = await cache.get_many([{"turn": turn, "n": number} for number in range(0, ENTRIES, 2)])
        return sum(value is not None for value in found)


async def erased(folder: Path, tiers: list[str]) -> Erasure:
    async with opened(str(folder), tiers) as cache:
        return await cache.erase(tags=PERSON)


async def dead_letters(folder: Path) -> None:
    """What a tier did not take of the person's."""
    entry = Entry(bytes(32), "default", "text", canary(1), Facts(tuple(PERSON)), 1, NEVER, NEVER, 1, 1, 0)
    record = Wire(compress=False).record(entry)
    await DeadLetters(folder / "journal" / FOLDER).add([("disk", "refused", record)] * 3)


@pytest.fixture
def tiers(tmp_path: Path, redis_server: RedisServer, redis_prefix: str, postgres_url: str) -> list[str]:
    return [
        f"disk://{tmp_path}/disk?budget=10",
        f"{redis_server.url}?prefix={redis_prefix}&budget=5",
        f"{postgres_url}?budget=5",
    ]


def erased_after_kills(
    folder: Path, tiers: list[str], kills: int, mode: str = "sound", *, span: float | None = None
) -> tuple[int, int]:
    """How often an erasure was cut short, and how much was answered, or found, that was erased."""
    rng = random.Random(1)
    span = takes(folder, tiers) if span is None else span
    cut = bad = 0
    for turn in range(kills):
        anyio.run(dead_letters, folder)
        said = killed(folder, turn, mode, tiers, rng.random() * span)
        cut += b"marked" in said and b"erased" not in said
        if b"marked" in said:
            bad += anyio.run(answered, folder, turn, tiers)
        anyio.run(dead_letters, folder)
        done = anyio.run(erased, folder, tiers)
        assert done.finished, done
        bad += anyio.run(answered, folder, turn, tiers)
        bad += sum(anyio.run(held, folder, tiers).values()) + len(holding(folder))
    return cut, bad


def test_whenever_it_is_killed_nothing_is_answered_and_erasing_again_finishes(
    tmp_path: Path, tiers: list[str], postgres_server: PostgresServer, postgres_url: str
) -> None:
    cut, bad = erased_after_kills(tmp_path, tiers, KILLS)
    assert not bad
    assert cut, "no kill came in the midst of an erasure"
    database = postgres_url.rpartition("/")[2].partition("?")[0]
    rows = "select count(*) from llmcache.records where position('only this person'::bytea in envelope) > 0"
    assert postgres_server.execute(rows, database).strip() == "0"


def test_an_erasure_without_its_invalidation_is_caught(tmp_path: Path, tiers: list[str]) -> None:
    """Were it not caught, the test above would prove nothing."""
    assert erased_after_kills(tmp_path, tiers, 2, "unmarked")[1]


def test_dead_letters_that_are_forgotten_are_caught(
    tmp_path: Path, tiers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgotten(_self: Writers, _matches: object) -> int:
        return 0

    monkeypatch.setattr(Writers, "erase_letters", forgotten)
    assert erased_after_kills(tmp_path, tiers, 1, span=0)[1]


def test_a_walk_that_ends_too_soon_is_caught(
    tmp_path: Path, tiers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Walk.step

    async def one_page(self: Walk) -> bool:
        await real(self)
        return False

    monkeypatch.setattr(Walk, "step", one_page)
    assert erased_after_kills(tmp_path, tiers, 1, span=0)[1]
