"""The report adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, LLMCache, Recorder
from llmcache_fast._stats import MemoryStats, cache_stats, memory_stats
from llmcache_fast.testing import ManualClock, MemoryTier


def shard(value: int) -> dict[str, int]:
    return dict.fromkeys(MemoryStats.__struct_fields__, value)


def test_memory_is_the_sum_of_its_shards() -> None:
    total = memory_stats([shard(1), shard(20)])
    assert {getattr(total, name) for name in MemoryStats.__struct_fields__} == {21}


def test_hits_are_of_all_tiers() -> None:
    counts = Counter(hit=2, stale=3, miss=4, joined=5, computations=6)
    stats = cache_stats(
        [shard(10)],
        [],
        counts,
        stored=7,
        not_stored={"option": 1},
        writes={},
        flights={},
        coherence=None,
        saved=2_500_000,
    )
    assert (stats.hits, stats.stale, stats.misses, stats.joined) == (12, 3, 4, 5)
    assert stats.hit_rate == (12 + 3 + 5) / (12 + 3 + 5 + 4)
    assert stats.saved_usd == 2.5 + 10e-6, "and what memory saved"
    assert (
        cache_stats(
            [shard(0)], [], Counter(), stored=0, not_stored={}, writes={}, flights={}, coherence=None, saved=0
        ).hit_rate
        == 0.0
    )


async def test_a_caches_counts_are_exact() -> None:
    async def compute() -> str:
        return "answer"

    async with LLMCache() as cache:
        for _ in range(3):
            await cache.get_or_compute({"q": 1}, compute)
        await cache.get({"q": 2})
        stats = cache.stats()
    assert (stats.memory.entries, stats.memory.inserts, stats.memory.hits) == (1, 1, 2)
    assert (stats.hits, stats.misses, stats.computations, stats.stored) == (2, 1, 1, 1)
    assert stats.hit_rate == 2 / 3
    assert sum(one["hits"] for one in stats.shards) == stats.memory.hits
    assert stats.memory.bytes <= stats.memory.capacity


async def test_every_way_of_not_computing_is_saved(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock, jitter=0.0, ttl=10, stale_while_revalidate=50) as cache:
        go = anyio.Event()

        async def compute() -> Computed[str]:
            await go.wait()
            return Computed("answer", cost=1_000_000)

        async def source(recorder: Recorder) -> None:
            recorder.begin()
            recorder.commit(cost=10_000_000)

        async def costs(expected: float, *calls: Callable[[], Any]) -> None:
            before = cache.stats().saved_usd
            for call in calls:
                await call()
            assert cache.stats().saved_usd - before == pytest.approx(expected)

        ask = partial(cache.get_or_compute, {"q": 1}, compute)

        async def read() -> None:
            await (await cache.stream({"s": 1}, source)).aclose()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(partial(cache.resolve, {"q": 1}, compute))
            await anyio.wait_all_tasks_blocked()
            go.set()
        assert cache.stats().saved_usd == pytest.approx(2.0), "two joined"
        await costs(4.0, ask, ask, ask, ask)
        await costs(2.0, partial(cache.get, {"q": 1}), partial(cache.resolve, {"q": 1}, compute))
        await costs(1.0, partial(ask, only_if_cached=True))
        await cache.flush()
        cache._clear()
        assert cache.stats().saved_usd == pytest.approx(9.0), "what is gone has saved it all the same"
        await costs(2.0, ask, ask)
        await costs(0.0, read)
        await costs(10.0, read)
        clock.advance(11)
        await costs(0.0, partial(cache.get, {"q": 1}))
        await costs(1.0, ask)
