"""Reads through the Redis tier, beside redis-py by hand and beside caches that use it.

Processor time of this process, and wall-clock rates in the notes: the server has a core of its own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis.asyncio

from benches.figure import OURS, Figure, from_times
from benches.rounds import AsyncContender, Spread, interleave_async, pedantic_async
from llmcache_fast.actors.reader import ReadActor
from llmcache_fast.tiers.base import NEVER, StoredRecord
from llmcache_fast.tiers.redis import RedisTier
from tests.servers.redis import RedisServer

SINGLE = "redis-py, a command a call"
MGET = "redis-py, MGET of 64 by hand"
CALLERS = 256
VALUE = os.urandom(2048)
KEYS = [os.urandom(32) for _ in range(8192)]
BUDGET = 0.25

Get = Callable[[bytes], Awaitable[Any]]


@asynccontextmanager
async def gets() -> AsyncIterator[tuple[dict[str, Get], Any]]:
    """How each contender reads one key, and redis-py's client."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start(Path(folder))
        try:
            client = redis.asyncio.Redis(port=server.port, max_connections=2 * CALLERS)
            tier = RedisTier.from_url(f"{server.url}?budget=5")
            await tier.open()
            await tier.put_many([StoredRecord(key, VALUE, 1, 1, NEVER, 0) for key in KEYS])
            reader = ReadActor(tier)
            async with anyio.create_task_group() as group:
                await group.start(reader.run)
                yield (
                    {
                        OURS: lambda key: reader.get(key, BUDGET),
                        SINGLE: lambda key: client.get(b"lc:r" + key),
                    },
                    client,
                )
                group.cancel_scope.cancel()
            await tier.aclose()
            await client.aclose()
        finally:
            server.stop()


def chosen(size: int) -> list[bytes]:
    return [KEYS[(number * 7919) % len(KEYS)] for number in range(size)]


async def together(get: Get, keys: list[bytes], waits: list[float]) -> None:
    """So many callers at once, each with one read after the other."""
    source = iter(keys)

    async def caller() -> None:
        for key in source:
            start = time.perf_counter()
            assert await get(key) is not None
            waits.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


@asynccontextmanager
async def entrants(work: str) -> AsyncIterator[dict[str, AsyncContender]]:
    async with gets() as (each, client):

        def contender(get: Get) -> AsyncContender:
            async def many(keys: list[bytes]) -> None:
                await together(get, keys, [])

            async def one(keys: list[bytes]) -> None:
                for key in keys:
                    assert await get(key) is not None

            return AsyncContender(chosen, many if work == "many" else one)

        async def by_hand(keys: list[bytes]) -> None:
            names = [b"lc:r" + key for key in keys]
            for start in range(0, len(names), 64):
                await client.mget(names[start : start + 64])

        contenders = {name: contender(get) for name, get in each.items()}
        if work == "many":
            contenders[MGET] = AsyncContender(chosen, by_hand)
        yield contenders


async def _waits(rounds: int) -> dict[str, Spread]:
    """The 99th percentile of a read among 256 callers, in milliseconds of the wall clock."""
    slowest: dict[str, list[float]] = {}
    async with gets() as (each, _):
        for _ in range(rounds):
            for name, get in each.items():
                waits: list[float] = []
                await together(get, chosen(2048), waits)
                slowest.setdefault(name, []).append(sorted(waits)[int(0.99 * len(waits))] * 1000)
    return {name: Spread.of(values) for name, values in slowest.items()}


async def _times(work: str, size: int, rounds: int) -> Any:
    async with entrants(work) as contenders:
        return await interleave_async(contenders, size=size, rounds=rounds)


def figures(rounds: int) -> Iterator[Figure]:
    times = asyncio.run(_times("many", 4096, rounds))
    yield from_times(f"redis: {CALLERS} callers at once, 2 KB", times, SINGLE, target=1 / 8)
    yield from_times(f"redis: {CALLERS} callers at once, 2 KB, beside MGET", times, MGET, target=1 / 0.75)
    slowest = asyncio.run(_waits(max(3, rounds // 3)))
    base = slowest[SINGLE].median
    ratios = {name: Spread(*(value / base for value in spread)) for name, spread in slowest.items()}
    absolute = {name: f"{spread.median:.2g} ms" for name, spread in slowest.items()}
    yield Figure(f"redis: 99th percentile of {CALLERS} callers", SINGLE, ratios, 0.1, absolute)
    times = asyncio.run(_times("one", 500, rounds))
    yield from_times("redis: one caller at a time, 2 KB", times, SINGLE, target=1.0)


@pytest.mark.parametrize("name", [OURS, SINGLE, MGET])
def test_redis_together(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, lambda: entrants("many"), name, size=1024)
