"""`await cache.get(fingerprint)` of an entry that is there, beside a coroutine that returns at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import cachebox
import pytest
from aiocache import SimpleMemoryCache
from async_lru import alru_cache
from cashews import Cache as Cashews
from langchain_core.caches import InMemoryCache
from langchain_core.outputs import Generation

from benches.figure import OURS, Figure, from_times
from benches.peers import litellm_cache
from benches.rounds import AsyncContender, interleave_async, pedantic_async
from benches.workloads import keys
from llmcache_fast import LLMCache

BASE = "bare coroutine"
ENTRIES = 1000
VALUE = b"an answer of some length, as bytes. " * 57


def _await_each(get: Callable[[Any], Awaitable[Any]]) -> Callable[[list[Any]], Awaitable[None]]:
    async def run(batch: list[Any]) -> None:
        for key in batch:
            await get(key)

    return run


@asynccontextmanager
async def entrants() -> AsyncIterator[dict[str, AsyncContender]]:
    """All caches open and holding the same entries."""
    own = keys(ENTRIES)
    texts = [key.hex() for key in own]
    plain = dict.fromkeys(own, VALUE)

    def prepare(size: int) -> list[bytes]:
        # A key just computed: its own object, its hash not yet known.
        return [bytes(memoryview(own[number % ENTRIES])) for number in range(size)]

    def prepare_text(size: int) -> list[str]:
        return [texts[number % ENTRIES].encode().decode() for number in range(size)]

    async def bare(key: bytes) -> bytes:
        return VALUE

    async def dict_coroutine(key: bytes) -> bytes:
        return plain[key]

    @cachebox.cached(cachebox.LRUCache(2 * ENTRIES))
    async def with_cachebox(key: bytes) -> bytes:
        return VALUE

    @alru_cache(maxsize=2 * ENTRIES, ttl=3600)
    async def with_async_lru(key: bytes) -> bytes:
        return VALUE

    langchain, aiocache, cashews, litellm = (
        InMemoryCache(),
        SimpleMemoryCache(),
        Cashews(),
        litellm_cache().cache,
    )
    cashews.setup("mem://", size=2 * ENTRIES)
    generations = [Generation(text=VALUE.decode())]
    for key, name in zip(own, texts, strict=True):
        await langchain.aupdate(name, "model", generations)
        await aiocache.set(name, VALUE, ttl=3600)
        await cashews.set(name, VALUE, expire=3600)
        await litellm.async_set_cache(name, VALUE)
        await with_cachebox(key)
        await with_async_lru(key)

    async with LLMCache(memory="64MiB") as cache:
        for key in own:
            await cache.set(key, VALUE, ttl=3600)
            assert await cache.get(key) == VALUE
        yield {
            BASE: AsyncContender(prepare, _await_each(bare)),
            "coroutine over a dict": AsyncContender(prepare, _await_each(dict_coroutine)),
            OURS: AsyncContender(prepare, _await_each(cache.get)),
            "langchain-core": AsyncContender(
                prepare_text, _await_each(lambda name: langchain.alookup(name, "model"))
            ),
            "cachebox": AsyncContender(prepare, _await_each(with_cachebox)),
            "async-lru": AsyncContender(prepare, _await_each(with_async_lru)),
            "cashews": AsyncContender(prepare_text, _await_each(cashews.get)),
            "aiocache": AsyncContender(prepare_text, _await_each(aiocache.get)),
            "litellm": AsyncContender(prepare_text, _await_each(litellm.async_get_cache)),
        }
    await with_async_lru.cache_close()
    await cashews.close()


SIZES = {"cashews": 200, "aiocache": 200, "litellm": 200}


def figures(rounds: int) -> Iterator[Figure]:
    async def measure() -> Figure:
        async with entrants() as contenders:
            times = await interleave_async(contenders, size=1000, rounds=2 * rounds, sizes=SIZES)
        return from_times("await cache.get(fingerprint), a hit", times, BASE, target=2.0)

    yield asyncio.run(measure())


@pytest.mark.parametrize(
    "name", [BASE, OURS, "langchain-core", "cachebox", "async-lru", "cashews", "aiocache"]
)
def test_get(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=200)
