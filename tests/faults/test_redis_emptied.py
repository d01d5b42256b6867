"""Redis restarted empty under load: what has to be computed again is computed once, and nothing else is.

Two caches with next to no memory share a Redis, alone and above a Postgres that has everything. Short in CI;
`-m long` is 20 restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.to_thread
import pytest

from llmcache_fast import LLMCache
from tests.servers.redis import RedisServer, StartRedis

pytestmark = pytest.mark.timeout(900)

CACHES, CALLERS, KEYS = 2, 4, 60
ROUNDS = [4, pytest.param(20, marks=pytest.mark.long)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def caches(tiers: list[str], lease_wait: float = 60.0) -> AsyncIterator[list[LLMCache]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                LLMCache(tiers=tiers, memory="64KiB", ttl=None, lease_wait=lease_wait)
            )
            for _ in range(CACHES)
        ]


async def emptied(
    server: RedisServer, tiers: list[str], rounds: int, lease_wait: float = 60.0
) -> list[Counter[int]]:
    """How often each key was computed: with everything cold, and then after each restart.

    Readers go on all the while. When the caches are over the outage, every caller
    of every cache asks for every key once. What is asked for during the outage is computed without leases,
    by design (I6): that is not counted here.
    """
    computed: list[Counter[int]] = []
    stop = False

    async def compute(number: int) -> str:
        computed[-1][number] += 1
        await anyio.sleep(0.005)
        return answer(number)

    async def load(cache: LLMCache) -> None:
        number = 0
        while not stop:
            number += 7
            found = await cache.get({"n": number % KEYS})
            assert found in (None, answer(number % KEYS))
            await anyio.sleep(0.001)

    async def everything(cache: LLMCache, first: int) -> None:
        for turn in range(KEYS):
            number = (first + turn) % KEYS
            assert await cache.get_or_compute({"n": number}, lambda n=number: compute(n)) == answer(number)

    async with caches(tiers, lease_wait=lease_wait) as opened, anyio.create_task_group() as loading:
        for cache in opened:
            loading.start_soon(load, cache)
        for turn in range(rounds + 1):
            if turn:
                await anyio.to_thread.run_sync(lambda: server.restart(empty=True))
                for cache in opened:
                    await over_it(cache)
                    cache._clear()
            computed.append(Counter())
            async with anyio.create_task_group() as callers:
                for caller in range(CALLERS * len(opened)):
                    callers.start_soon(everything, opened[caller % len(opened)], caller * 11)
            for cache in opened:
                await cache.flush(60)
        stop = True
    return computed


async def over_it(cache: LLMCache) -> None:
    """Return when the cache reads and writes Redis again and knows its clock. A restart may be so fast that
    no breaker opened: then the clock is asked for within `SYNC_EVERY`, which is not waited for here."""
    with anyio.fail_after(60):
        while True:
            errors = cache.stats().tiers[0].errors
            cache._lookup.markers.doubt()
            await cache.get({"n": "nowhere"})
            if is_well(cache) and cache.stats().tiers[0].errors == errors:
                return
            await anyio.sleep(0.01)


def is_well(cache: LLMCache) -> bool:
    """Whether the Redis tier is read and written again."""
    tier = cache.stats().tiers[0]
    return tier.available and all(lane.state == "closed" for lane in tier.guard.values())


def answer(number: int) -> str:
    return f"answer {number} " + "x" * 3000


def again(computed: list[Counter[int]]) -> int:
    """Computations after the first round, and what there was to compute, printed."""
    calls = sum(counts.total() for counts in computed[1:])
    cold = KEYS * (len(computed) - 1)
    print([counts.total() for counts in computed])  # noqa: T201
    print(f"{calls} computations after {len(computed) - 1} restarts, {cold} keys lost")  # noqa: T201
    return calls


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_what_redis_lost_is_computed_once(start_redis: StartRedis, rounds: int) -> None:
    server = start_redis()
    computed = await emptied(server, [f"{server.url}?budget=1"], rounds)
    assert again(computed) <= 1.05 * KEYS * rounds


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_what_postgres_has_is_not_computed_again(
    start_redis: StartRedis, postgres_url: str, rounds: int
) -> None:
    server = start_redis()
    computed = await emptied(server, [f"{server.url}?budget=1", f"{postgres_url}?budget=1"], rounds)
    assert computed[0] == dict.fromkeys(range(KEYS), 1)
    assert again(computed) == 0


async def test_without_leases_it_would_be_computed_more_often(start_redis: StartRedis) -> None:
    """The planted bug of the tests above: each cache computes for itself."""
    server = start_redis()
    computed = await emptied(server, [f"{server.url}?budget=1"], 1, lease_wait=0)
    assert again(computed) > 1.05 * KEYS
