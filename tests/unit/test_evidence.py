"""What semantic hits have taught is kept in the tiers, and read by other processes."""

from __future__ import annotations

from llmcache_fast import LLMCache, SemanticOptions
from llmcache_fast._core import Clock
from llmcache_fast._evidence import NAMESPACES, SAVE_EVERY, Evidence
from llmcache_fast.testing import FakeEmbedder, MemoryTier

OPTIONS = SemanticOptions(embedder=FakeEmbedder(), false_hit_budget=0.1)
SPACE, PAIR = bytes(16), bytes([1]) * 32


def evidence(cache: LLMCache, space: bytes = SPACE) -> Evidence:
    return Evidence(cache, cache._lookup, OPTIONS, space, Clock())


async def shown(evidence: Evidence, namespace: str = "default") -> float:
    """How strict the budget of a namespace is after many right answers."""
    budget = await evidence.budget(namespace)
    for number in range(200):
        budget.observe(0.99, number.to_bytes(32, "big"), False, served=False, source="uncertain")
    return budget.threshold


async def test_evidence_survives_the_process_and_is_of_one_embedder() -> None:
    async with LLMCache(tiers=[MemoryTier()]) as cache:
        first = evidence(cache)
        threshold = await shown(first)
        assert threshold < 1
        await first.learned("default")
        await first.aclose()
        seen = {
            name: sum(each.evidence for each in (await each.budget("default")).statistics().thresholds)
            for name, each in {"same": evidence(cache), "other": evidence(cache, bytes([9]) * 16)}.items()
        }
        assert seen["same"] > seen["other"]


async def test_it_is_written_when_enough_has_come_together() -> None:
    tier = MemoryTier()
    async with LLMCache(tiers=[tier]) as cache:
        one = evidence(cache)
        for _ in range(SAVE_EVERY - 1):
            await one.learned("default")
        await cache.flush()
        assert tier.records == {}
        await one.learned("default")
        await cache.flush()
        assert len(tier.records) == 1


async def test_a_blocked_pair_is_blocked_for_all() -> None:
    async with LLMCache(tiers=[MemoryTier()]) as cache:
        one, other = evidence(cache), evidence(cache)
        assert not await other.is_blocked(PAIR, "default")
        await one.block(PAIR, "default")
        assert await one.is_blocked(PAIR, "default")
        assert await other.is_blocked(PAIR, "default")


async def test_bytes_of_somebody_else_are_no_evidence() -> None:
    async with LLMCache(tiers=[MemoryTier()]) as cache:
        one = evidence(cache)
        await one._keep(one._key("default"), "default", b"\xc1")
        assert (await one.budget("default")).statistics().compared == 0


async def test_namespaces_that_were_not_used_for_longest_are_forgotten() -> None:
    async with LLMCache() as cache:
        one = evidence(cache)
        for number in range(NAMESPACES + 5):
            await one.budget(f"tenant {number}")
        assert len(one.statistics()) == NAMESPACES
