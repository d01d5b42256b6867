"""What the authority could not be told is told later: each target once, few at a time, bounded in number.

Outages of the authority and what is true after them: `tests/faults/test_outage.py`.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, TierError
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Deaf(MemoryTier):
    """An authority that hears nothing while `deaf`."""

    deaf = False

    async def raise_markers(self, namespace: int, targets: Any) -> tuple[int, int]:
        if self.deaf:
            raise TierError("planned", tier=self.name, operation="raise_markers", reason="planned")
        return await super().raise_markers(namespace, targets)


async def test_many_deferred_invalidations_are_delivered_in_few_calls(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.DELIVERED_AT_ONCE", 10)
    calls: list[int] = []

    class Counted(Deaf):
        async def raise_markers(self, namespace: int, targets: Any) -> tuple[int, int]:
            result = await super().raise_markers(namespace, targets)
            calls.append(len(targets))
            return result

    tier = Counted(clock=clock)
    guarded = GuardedTier(tier, GuardOptions(breaker=BreakerOptions(window=100, least=100)))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        tier.deaf = True
        for number in range(50):
            assert (await cache.invalidate(tags=[f"doc:{number % 25}"])).deferred
        tier.deaf = False
        assert not (await cache.invalidate(tags=["another"])).deferred
        assert calls == [10, 10, 5, 1], "each target once"
        assert len(await tier.markers_since(cache._namespace_id("default"), 0)) == 26


async def test_more_deferred_invalidations_than_are_kept_become_one_of_all(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.MAX_DEFERRED", 3)
    tier = Deaf(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache, LLMCache(tiers=[tier], clock=clock) as other:
        await other.set({"q": 1}, "old", tags=["doc:0"])
        tier.deaf = True
        for number in range(9):
            assert (await cache.invalidate(tags=[f"doc:{number}"])).deferred
        tier.deaf = False
        while cache.stats().tiers[0].guard["markers"].state != "closed":  # noqa: ASYNC110
            await anyio.sleep(0.01)
        space = cache._namespace_id("default")
        assert not (await cache.invalidate(tags=["the end"])).deferred
        assert space in dict(await tier.markers_since(space, 0))
