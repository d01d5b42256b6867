"""1,000 and 10,000 concurrent callers of one missing key: one computation, and what waiting costs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiocache import SimpleMemoryCache, cached
from async_lru import alru_cache
from cashews import Cache as Cashews
from langchain_core.caches import InMemoryCache
from langchain_core.outputs import Generation

from benches.figure import OURS, Figure, from_times
from benches.peers import litellm_cache
from benches.rounds import AsyncContender, interleave_async, pedantic_async
from llmcache_fast import LLMCache

BASE = "dict of futures"
COMPUTED: dict[str, int] = {}
"""How often the last burst of each contender computed."""


class Upstream:
    """Computes an answer in the time it takes to let every waiting task run a few times; counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        for _ in range(3):
            await asyncio.sleep(0)
        return "an answer"


def _burst(
    name: str, call: Callable[[bytes, Upstream], Awaitable[Any]]
) -> Callable[[list[bytes]], Awaitable[None]]:
    """All callers at once: `batch` holds one and the same key as often as there are callers."""

    async def run(batch: list[bytes]) -> None:
        upstream = Upstream()
        await asyncio.gather(*[call(key, upstream) for key in batch])
        COMPUTED[name] = upstream.calls

    return run


@asynccontextmanager
async def entrants() -> AsyncIterator[dict[str, AsyncContender]]:
    def prepare(size: int) -> list[bytes]:
        return [random.randbytes(32)] * size

    futures: dict[bytes, asyncio.Future[str]] = {}

    async def dict_of_futures(key: bytes, upstream: Upstream) -> str:
        future = futures.get(key)
        if future is None:
            future = futures[key] = asyncio.ensure_future(upstream())
        return await asyncio.shield(future)

    async def bare_dict_of_futures(key: bytes, upstream: Upstream) -> str:
        # Without the shield one cancelled caller takes the answer from all others.
        future = futures.get(key)
        if future is None:
            future = futures[key] = asyncio.ensure_future(upstream())
        return await future

    @alru_cache(maxsize=100_000)
    async def with_async_lru(key: bytes, upstream: Upstream) -> str:
        return await upstream()

    @cached(ttl=3600, cache=SimpleMemoryCache, key_builder=lambda function, key, upstream: key.hex())
    async def with_aiocache(key: bytes, upstream: Upstream) -> str:
        return await upstream()

    cashews = Cashews()
    cashews.setup("mem://", size=100_000)

    @cashews(ttl=3600, key="{key}", lock=True)
    async def with_cashews(key: str, upstream: Upstream) -> str:
        return await upstream()

    langchain, litellm = InMemoryCache(), litellm_cache().cache

    async def with_langchain(key: bytes, upstream: Upstream) -> Any:
        name = key.hex()
        if (found := await langchain.alookup(name, "model")) is None:
            found = [Generation(text=await upstream())]
            await langchain.aupdate(name, "model", found)
        return found

    async def with_litellm(key: bytes, upstream: Upstream) -> Any:
        name = key.hex()
        if (found := await litellm.async_get_cache(name)) is None:
            found = await upstream()
            await litellm.async_set_cache(name, found)
        return found

    async with LLMCache(memory="64MiB") as cache:
        calls: dict[str, Callable[[bytes, Upstream], Awaitable[Any]]] = {
            BASE: dict_of_futures,
            "dict of futures, no shield": bare_dict_of_futures,
            OURS: cache.get_or_compute,
            "async-lru": with_async_lru,
            "cashews (lock)": lambda key, upstream: with_cashews(key.hex(), upstream),
            "aiocache": with_aiocache,
            "langchain-core": with_langchain,
            "litellm": with_litellm,
        }
        yield {name: AsyncContender(prepare, _burst(name, call)) for name, call in calls.items()}
    await with_async_lru.cache_close()
    await cashews.close()


def figures(rounds: int) -> Iterator[Figure]:
    for callers in (1_000, 10_000):

        async def measure(callers: int = callers) -> Figure:
            async with entrants() as contenders:
                few = {"cashews (lock)": min(callers, 1_000)}
                repeats = 2 * rounds if callers == 1_000 else rounds
                times = await interleave_async(contenders, size=callers, rounds=repeats, sizes=few)
            figure = from_times(f"{callers:,} concurrent callers of one missing key", times, BASE, target=1.2)
            counts = ", ".join(f"{name}: {count:,}" for name, count in COMPUTED.items())
            figure.notes.append(f"computations: {counts}")
            figure.notes.append(
                "without the shield one caller's cancellation takes the answer from all others"
            )
            return figure

        yield asyncio.run(measure())


@pytest.mark.parametrize("name", [BASE, OURS, "async-lru", "aiocache", "langchain-core", "litellm"])
def test_burst(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=1_000)
