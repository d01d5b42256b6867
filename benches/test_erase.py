"""How long it takes to erase one person of many entries from a disk tier, Redis, Postgres and a journal.

    python -m benches.figures --only erase

All tiers are on this machine and hold as many entries of others; a thousand of the person's are on their way
to the disk tier, in the journal. Files and servers are searched for the person's words afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benches.figure import Figure
from benches.rounds import Spread
from llmcache_fast import LLMCache
from llmcache_fast._entry import NEVER, Entry, Facts
from llmcache_fast.tiers.base import PutReport
from llmcache_fast.tiers.disk import DiskTier
from tests.servers.postgres import running_postgres
from tests.servers.redis import RedisServer

ENTRIES = int(os.environ.get("LLMCACHE_ERASE_ENTRIES", "100000"))
"""Of the person; as many of others."""
ON_THE_WAY = 1_000
WORDS = b"what only this person ever said"
TARGET = 10.0
"""Seconds."""


class Held(DiskTier):
    """A disk tier that takes nothing while it is told so."""

    held: asyncio.Event | None = None

    async def put_many(self, records: Any) -> PutReport:
        if self.held is not None:
            await self.held.wait()
        return await super().put_many(records)


def entry(number: int, epoch: int, snap: int) -> Entry:
    mine = number % 2 == 0
    text = (WORDS.decode() if mine else "what somebody else asked, often") + f" {number} "
    facts = Facts(tags=("user:42" if mine else "user:7",), label=f"mail/{number % 100}")
    key = hashlib.sha256(b"%d" % number).digest()
    return Entry(key, "default", "text", text * 16, facts, 1, NEVER, NEVER, epoch, snap, 100)


async def _round(folder: Path, urls: list[str], entries: int) -> tuple[float, dict[str, int]]:
    """Seconds of an erasure, and what was found afterwards by place."""
    disk = Held(folder / "disk", max_bytes=8 << 30, budget=30.0)
    async with LLMCache(
        tiers=[disk, *urls], journal=folder / "journal", compress=False, sweep_rate=0
    ) as cache:
        epoch, snap = cache._stamp(cache._namespace_id("default"))
        floors = cache._lookup.floors
        for first in range(0, 2 * entries, 1000):
            records = [cache._wire.record(entry(n, epoch, snap)) for n in range(first, first + 1000)]
            for floor in floors:
                await floor.tier.inner.put_many(records)
        disk.held = asyncio.Event()
        for number in range(ON_THE_WAY):
            await cache.set({"n": number}, f"{WORDS.decode()} {number}", tags=["user:42"])
        begun = time.perf_counter()
        erasing = asyncio.ensure_future(cache.erase(tags=["user:42"]))
        await asyncio.sleep(0.05)
        disk.held.set()
        done = await erasing
        took = time.perf_counter() - begun
        assert done.finished, done
        assert all(count >= entries for count in done.tiers.values()), done
        left = {}
        for floor in floors:
            tier: Any = floor.tier.inner
            cursor, found = None, 0
            while True:
                page, cursor = await tier.scan(cursor, 2000)
                found += sum(WORDS in envelope for _, envelope in page)
                if cursor is None:
                    break
            left[floor.name] = found
        left["files"] = _holding(folder)
    return took, left


def _holding(folder: Path) -> int:
    """How many files have the person's words in them."""
    return sum(WORDS in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def erase(rounds: int, entries: int = ENTRIES) -> Figure:
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
            (Path(folder) / "redis").mkdir()
            server = RedisServer.start(Path(folder) / "redis")
            try:
                urls = [f"{server.url}?budget=30", f"{postgres.url(postgres.create_database())}?budget=30"]
                (Path(folder) / "local").mkdir()
                took, left = asyncio.run(_round(Path(folder) / "local", urls, entries))
            finally:
                server.stop()
        assert not any(left.values()), left
        seconds.append(took)
    return Figure(
        f"erase {entries:,} of {2 * entries:,} entries from disk, Redis, Postgres and a journal",
        "",
        {"erase": Spread.of(seconds)},
        TARGET,
        ours="erase",
        unit="s",
    )


def figures(rounds: int) -> Iterator[Figure]:
    yield erase(max(1, rounds // 10))


@pytest.mark.parametrize("entries", [2_000])
def test_an_erasure_leaves_nothing(entries: int) -> None:
    assert erase(1, entries).ratios["erase"].median > 0
