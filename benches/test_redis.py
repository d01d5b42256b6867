"""Reads through a cache over Redis, and through its read actor and tier alone, beside redis-py by hand.

Memory is too small for what is read, so every read goes to the server. Processor time of this process, and
wall-clock times where that is said: the server has a core of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
import redis.asyncio

from benches.figure import OURS, Figure, from_times
from benches.rounds import AsyncContender, Times, interleave_async, pedantic_async
from llmcache_fast import LLMCache
from llmcache_fast.actors.reader import ReadActor
from llmcache_fast.tiers.redis import RedisTier
from tests.servers.redis import RedisServer

SINGLE = "redis-py, a command a call"
MGET = "redis-py, MGET of 64 by hand"
ACTOR = f"{OURS} (read actor and tier)"
CALLERS = 256
VALUE = os.urandom(2048)
KEYS = [os.urandom(32) for _ in range(8192)]
BUDGET = 5.0
MEMORY = 1 << 16

Get = Callable[[bytes], Awaitable[Any]]


@asynccontextmanager
async def gets() -> AsyncIterator[tuple[dict[str, Get], Any]]:
    """How each contender reads one key, and redis-py's client."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start(Path(folder))
        url = f"{server.url}?budget={BUDGET}"
        try:
            client = redis.asyncio.Redis(port=server.port, max_connections=2 * CALLERS)
            async with LLMCache(tiers=[url]) as writer:
                for key in KEYS:
                    await writer.set(key, VALUE)
                await writer.flush()
            tier = RedisTier.from_url(url)
            await tier.open()
            reader = ReadActor(tier)
            async with LLMCache(tiers=[url], memory=MEMORY) as cache, anyio.create_task_group() as group:
                await group.start(reader.run)
                yield (
                    {
                        OURS: cache.get,
                        ACTOR: lambda key: reader.get(key, BUDGET),
                        SINGLE: lambda key: client.get(b"lc:r" + key),
                    },
                    client,
                )
                group.cancel_scope.cancel()
            await tier.aclose()
            await client.aclose()
        finally:
            server.stop()


_next = count()


def chosen(size: int) -> list[bytes]:
    """Each key as often as the others, and none again soon: what is in memory is not asked for."""
    return [KEYS[(number * 7919) % len(KEYS)] for number in islice(_next, size)]


async def together(get: Get, keys: list[bytes], waits: list[float], callers: int = CALLERS) -> None:
    """So many callers at once, each with one read after the other."""
    source = iter(keys)

    async def caller() -> None:
        for key in source:
            start = time.perf_counter()
            assert await get(key) is not None
            waits.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))


@asynccontextmanager
async def entrants(callers: int = CALLERS) -> AsyncIterator[dict[str, AsyncContender]]:
    async with gets() as (each, client):

        def contender(get: Get) -> AsyncContender:
            async def run(keys: list[bytes]) -> None:
                await together(get, keys, [], callers)

            return AsyncContender(chosen, run)

        contenders = {name: contender(get) for name, get in each.items()}
        if callers > 1:
            contenders[MGET] = AsyncContender(chosen, lambda keys: by_hand(client, keys))
        yield contenders


async def by_hand(client: Any, keys: list[bytes]) -> None:
    names = [b"lc:r" + key for key in keys]
    for start in range(0, len(names), 64):
        assert None not in await client.mget(names[start : start + 64])


async def _times(callers: int, size: int, rounds: int) -> Times:
    """Processor time."""
    async with entrants(callers) as contenders:
        return await interleave_async(contenders, size=size, rounds=rounds)


class Waits(NamedTuple):
    """By the wall clock and contender, in nanoseconds, by round: a read's share, half and the slowest."""

    each: Times
    p50: Times
    p99: Times


async def _waits(callers: int, size: int, rounds: int) -> Waits:
    waits = Waits(Times(), Times(), Times())
    rng = random.Random(1)
    async with gets() as (gets_, client):
        for _ in range(rounds):
            names = [*gets_, MGET]
            rng.shuffle(names)
            for name in names:
                keys, seen = chosen(size), [0.0]
                gc.collect()
                gc.disable()
                start = time.perf_counter()
                if name == MGET:
                    await by_hand(client, keys)
                else:
                    await together(gets_[name], keys, seen, callers)
                waits.each.rounds.setdefault(name, []).append((time.perf_counter() - start) / size * 1e9)
                gc.enable()
                if name != MGET:
                    seen.sort()
                    waits.p50.rounds.setdefault(name, []).append(seen[len(seen) // 2] * 1e9)
                    waits.p99.rounds.setdefault(name, []).append(seen[len(seen) * 99 // 100] * 1e9)
    return waits


def figures(rounds: int) -> Iterator[Figure]:
    many = f"redis: {CALLERS} callers at once, 2 KB"
    times = asyncio.run(_times(CALLERS, 4096, rounds))
    yield from_times(many, times, SINGLE, target=1 / 8)
    yield from_times(f"{many}, beside MGET", times, MGET, target=1 / 0.75)
    waits = asyncio.run(_waits(CALLERS, 4096, rounds))
    yield from_times(f"{many}, beside MGET, wall clock", waits.each, MGET, target=1 / 0.75)
    yield from_times(f"redis: 99th percentile of {CALLERS} callers", waits.p99, SINGLE, target=0.1)
    times = asyncio.run(_times(1, 500, rounds))
    yield from_times("redis: one caller at a time, 2 KB", times, SINGLE, target=1.0)
    waits = asyncio.run(_waits(1, 500, rounds))
    yield from_times("redis: median latency of one caller, 2 KB, wall clock", waits.p50, SINGLE, target=1.0)


@pytest.mark.parametrize("name", [OURS, ACTOR, SINGLE, MGET])
def test_redis_together(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=1024)
