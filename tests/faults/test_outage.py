"""An authority that cannot be reached, and what is true when it can again (I1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, TierError
from llmcache_fast._markers import Markers
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Asked, Changes, Raised
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.clocks import markers_of

REQUEST = {"q": 1}


async def answer() -> str:
    return "computed"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Deaf(MemoryTier):
    """An authority that hears nothing while `deaf`."""

    deaf = False

    async def raise_markers(self, *given: Any, **options: Any) -> Raised:
        if self.deaf:
            raise TierError("planned", tier=self.name, operation="raise_markers", reason="planned")
        return await super().raise_markers(*given, **options)


class Slow(MemoryTier):
    """An authority that answers when `go` is set."""

    go: anyio.Event | None = None

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        if self.go is not None:
            await self.go.wait()
        return await super().changes(asked)


async def test_the_authority_is_the_last_tier_even_while_it_cannot_be_used(clock: ManualClock) -> None:
    """Else what is invalidated meanwhile would be forgotten when it can."""
    other, root = MemoryTier(clock=clock), Deaf(clock=clock)
    async with LLMCache(tiers=[other, root], clock=clock) as cache:
        root.deaf = True
        assert (await cache.invalidate(tags=["doc"])).deferred
        assert await markers_of(other, cache._namespace_id("default"), 0) == []
        root.deaf = False
        assert not (await cache.invalidate(tags=["other"])).deferred
        assert len(await markers_of(root, cache._namespace_id("default"), 0)) == 2


async def test_deferred_invalidations_are_delivered_by_several_at_once_and_none_is_lost(
    clock: ManualClock,
) -> None:
    tier = Deaf(clock=clock)
    guarded = GuardedTier(tier, GuardOptions(breaker=BreakerOptions(least=20)))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        tier.deaf = True
        for number in range(3):
            await cache.invalidate(tags=[f"doc:{number}"])
        tier.deaf = False

        async def read(namespace: str) -> None:
            await cache.get(REQUEST, namespace=namespace)

        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(read, name)
        assert len(await markers_of(tier, cache._namespace_id("default"), 0)) == 3


class Cut(MemoryTier):
    """A tier of several caches, that those with a key in `cut` cannot reach."""

    def __init__(self, shared: MemoryTier) -> None:
        super().__init__()
        self.shared = shared
        self.cut = False

    def __getattribute__(self, name: str) -> Any:
        calls = ("get_many", "put_many", "delete_many", "raise_markers", "changes")
        if name not in calls:
            return super().__getattribute__(name)
        if self.cut:
            return self._refuse
        return getattr(self.shared, name)

    async def _refuse(self, *_: Any) -> Any:
        raise TierError("planned", tier="cut", operation="", reason="planned")


async def invalidated_in_an_outage(clock: ManualClock) -> Any:
    """What a cache finds after an outage, in which another one invalidated it, by the first read."""
    shared = MemoryTier(clock=clock)
    await shared.open()
    link = Cut(shared)
    # Without the questions that are asked by themselves: what is done at the outage's end is to be seen.
    never = LLMCache(tiers=[link], clock=clock, coherence_lease=1e6)
    async with never as cache, LLMCache(tiers=[shared], clock=clock) as other:
        await cache.set(REQUEST, "old", tags=["doc"])
        await cache.flush()
        cache._clear()
        link.cut = True
        for number in range(20):
            await cache.get({"q": number})
        assert not cache.stats().tiers[0].available
        await other.invalidate(tags=["doc"])
        link.cut = False
        while not cache.stats().tiers[0].available:  # noqa: ASYNC110 - on a state, not for a time
            await anyio.sleep(0.01)
        return await cache.get(REQUEST)


async def test_what_was_invalidated_in_an_outage_is_not_read_after_it(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", 1e6)
    assert await invalidated_in_an_outage(clock) is None


async def test_a_cache_that_does_not_catch_up_would_read_it(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug of the test above."""

    async def nothing(*_: Any) -> bool:
        return True

    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", 1e6)
    monkeypatch.setattr(Markers, "catch_up", nothing)
    assert await invalidated_in_an_outage(clock) == "old"


async def test_a_frozen_authority_costs_one_budget_and_not_two(clock: ManualClock) -> None:
    """Its markers are asked for before a computation and before a read, and it is read: once is enough."""
    tier = Slow(clock=clock)
    reads = 0

    async def counted(keys: Any) -> list[bytes | None]:
        nonlocal reads
        reads += 1
        return [None for _ in keys]

    tier.get_many = counted  # type: ignore[method-assign]
    guarded = GuardedTier(tier, GuardOptions(read_budget=0.02, write_budget=60.0))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        clock.advance(0.001)
        cache._lookup.markers.doubt()
        tier.go = anyio.Event()
        waits = 0

        async def within(budget: float, done: anyio.Event) -> bool:
            nonlocal waits
            waits += 1
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmcache_fast._markers.within", within)
            assert await cache.get_or_compute(REQUEST, answer) == "computed"
        assert (waits, reads) == (1, 0)
        tier.go.set()
