"""How soon another process hears of an invalidation, and what an invalidation costs, at Redis and Postgres.

    python -m benches.figures --only staleness

Staleness is the time from `raise_markers` returning in this process to `heard` being called in another, in
milliseconds of the clock that both share; 0 where it was heard before. Loaded means that both processes also
keep a number of callers busy with reads and writes of the same tier. Postgres syncs its commits here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from benches.figure import OURS, Figure, duration
from benches.rounds import Spread, Times
from llmcache_fast.tiers.base import NEVER, Message, StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier
from tests.servers.postgres import running_postgres
from tests.servers.redis import RedisServer

SPACE = 1
RAISES = 200
"""In a round, some milliseconds apart."""
BUSY = 16
"""Callers of each process when it is loaded."""
ENTRIES = 100_000
TARGETS = {"idle": 5.0, "loaded": 50.0}
KEYS = [hashlib.sha256(b"%d" % number).digest() for number in range(2000)]


def tier_of(url: str) -> Any:
    return RedisTier.from_url(url) if url.startswith("redis") else PostgresTier.from_url(url)


def record(key: bytes) -> StoredRecord:
    return StoredRecord(key, bytes(2048), 1, 1, NEVER, 0)


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Addresses by name."""
    with tempfile.TemporaryDirectory() as folder, running_postgres(fsync="on") as postgres:
        server = RedisServer.start(Path(folder))
        try:
            database = postgres.create_database()
            yield {"redis": f"{server.url}?budget=5", "postgres": f"{postgres.url(database)}?budget=5"}
        finally:
            server.stop()


async def work(tier: Any) -> None:
    """What a busy caller does, until cancelled."""
    rng = random.Random()
    while True:
        await tier.get_many(rng.sample(KEYS, 16))
        await tier.put_many([record(rng.choice(KEYS))])


@contextlib.asynccontextmanager
async def busy(tier: Any, callers: int) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work(tier)) for _ in range(callers)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(url: str, callers: int) -> None:
    """The other process: a line for each message, and one when it listens; until its input ends."""
    tier = tier_of(url)
    await tier.open()
    lines: list[str] = []

    def heard(message: Message | None) -> None:
        if message is None:
            print("listening", flush=True)
        else:
            lines.append(f"{message.seq} {time.monotonic_ns()}")

    following = asyncio.ensure_future(tier.follow(heard))
    async with busy(tier, callers):
        await asyncio.to_thread(sys.stdin.read)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    print("\n".join(lines), flush=True)
    await tier.aclose()


async def _round(url: str, callers: int) -> tuple[list[float], list[float]]:
    """Milliseconds until it was heard, and milliseconds each raise took."""
    tier = tier_of(url)
    await tier.open()
    await tier.put_many([record(key) for key in KEYS])
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benches.test_staleness", url, str(callers)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"listening\n"
    returned, took = {}, []
    async with busy(tier, callers):
        for number in range(RAISES + 20):
            start = time.monotonic_ns()
            seq = (await tier.raise_markers(SPACE, [number % 7])).seq
            if number >= 20:  # connections and statements are warm now
                returned[seq] = time.monotonic_ns()
                took.append((returned[seq] - start) / 1e6)
            await asyncio.sleep(random.uniform(0.001, 0.008))
        await asyncio.sleep(1.0)
    out, _ = await other.communicate(b"")
    heard = dict(map(int, line.split()) for line in out.splitlines())
    await tier.aclose()
    assert heard.keys() >= returned.keys(), "a message was lost"
    return [max(0, heard[seq] - at) / 1e6 for seq, at in returned.items()], took


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * len(values))]


def staleness(url: str, name: str, state: str, rounds: int) -> Figure:
    late: list[list[float]] = []
    took: list[float] = []
    for _ in range(rounds):
        waits, raises = asyncio.run(_round(url, BUSY if state == "loaded" else 0))
        late.append(waits)
        took += raises
    return Figure(
        f"{name}: heard in another process, {state}",
        "",
        {
            f"p{round(share * 100)}": Spread.of([_percentile(waits, share) for waits in late])
            for share in (0.5, 0.99)
        },
        TARGETS[state],
        ours="p99",
        notes=[f"an invalidation took {_percentile(took, 0.5):.2g} ms, p99 {_percentile(took, 0.99):.2g} ms"],
        unit="ms",
    )


async def _costs(urls: dict[str, str], rounds: int) -> Times:
    """Nanoseconds of the wall clock of a raise, by name of its tier."""
    tiers = {name: tier_of(url) for name, url in urls.items()}
    for name, tier in tiers.items():
        await tier.open()
        count = ENTRIES if name != OURS else 1
        for first in range(0, count, 1000):
            keys = [hashlib.sha256(b"%d" % n).digest() for n in range(first, min(count, first + 1000))]
            await tier.put_many([StoredRecord(key, bytes(100), 1, 1, NEVER, 0) for key in keys])
        for _ in range(50):
            await tier.raise_markers(SPACE, [1, 2])
    times = Times({name: [] for name in tiers})
    for _ in range(rounds):
        for name, tier in tiers.items():
            samples = []
            for _ in range(50):
                start = time.perf_counter_ns()
                await tier.raise_markers(SPACE, [1, 2])
                samples.append(time.perf_counter_ns() - start)
            times.rounds[name].append(statistics.median(samples))
    for tier in tiers.values():
        await tier.aclose()
    return times


def cost(url: str, name: str, rounds: int) -> Figure:
    """The tag of one entry beside one of very many: in another prefix, or another schema."""
    many = f"{url}&prefix=many:" if name == "redis" else f"{url}&schema=many"
    label = f"a tag of {ENTRIES:,} entries"
    times = asyncio.run(_costs({OURS: url, label: many}, rounds))
    return Figure(
        f"{name}: invalidating",
        OURS,
        {each: times.ratio(each, OURS) for each in times.rounds},
        1.1,
        {each: duration(times.ns(each).median) for each in times.rounds},
        label,
    )


def figures(rounds: int) -> Iterator[Figure]:
    with servers() as urls:
        for name, url in urls.items():
            yield cost(url, name, rounds)
            for state in TARGETS:
                yield staleness(url, name, state, max(3, rounds // 3))


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_raise(benchmark: Any, name: str) -> None:
    with servers() as urls, asyncio.Runner() as runner:
        tier = tier_of(urls[name])
        runner.run(tier.open())
        benchmark.pedantic(
            lambda: runner.run(tier.raise_markers(SPACE, [1, 2])), rounds=200, warmup_rounds=20
        )
        runner.run(tier.aclose())


if __name__ == "__main__":
    asyncio.run(_follow(sys.argv[1], int(sys.argv[2])))
