"""The report adds up."""

from __future__ import annotations

from collections import Counter

from llmcache_fast import LLMCache
from llmcache_fast._stats import MemoryStats, cache_stats, memory_stats


def shard(value: int) -> dict[str, int]:
    return dict.fromkeys(MemoryStats.__struct_fields__, value)


def test_memory_is_the_sum_of_its_shards() -> None:
    total = memory_stats([shard(1), shard(20)])
    assert {getattr(total, name) for name in MemoryStats.__struct_fields__} == {21}


def test_hits_are_of_all_tiers() -> None:
    counts = Counter(hit=2, stale=3, miss=4, joined=5, computations=6)
    stats = cache_stats(
        [shard(10)], [], counts, stored=7, not_stored={"option": 1}, flights={}, saved=2_500_000
    )
    assert (stats.hits, stats.stale, stats.misses, stats.joined) == (12, 3, 4, 5)
    assert stats.hit_rate == (12 + 3 + 5) / (12 + 3 + 5 + 4)
    assert stats.saved_usd == 2.5
    assert (
        cache_stats([shard(0)], [], Counter(), stored=0, not_stored={}, flights={}, saved=0).hit_rate == 0.0
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
