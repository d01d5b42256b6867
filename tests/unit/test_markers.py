"""Markers: what is invalidated anywhere is learnt here, what is invalidated here is told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, TierError
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Asked, Changes, Raised
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.disk import DiskTier
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.clocks import markers_of

REQUEST = {"q": "a request"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def answer() -> str:
    return "computed"


async def test_another_process_learns_of_an_invalidation_with_its_next_read_below_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", -1.0)
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as one, LLMCache(tiers=[f"disk://{tmp_path}"]) as other:
        await one.set(REQUEST, "old", tags=["doc"])
        await one.flush()
        assert await other.get(REQUEST) == "old"
        await one.invalidate(tags=["doc"])
        await other.get({"q": "anything below memory"})
        assert other.get_nowait(REQUEST) is None


async def test_an_invalidation_of_ones_own_does_not_hide_an_earlier_one_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", -1.0)
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as one, LLMCache(tiers=[f"disk://{tmp_path}"]) as other:
        await one.set(REQUEST, "old", tags=["doc"])
        await one.flush()
        await other.invalidate(tags=["doc"])
        await one.invalidate(tags=["something else"])
        await one.get({"q": "anything below memory"})
        assert await one.get(REQUEST) is None


class Deaf(MemoryTier):
    """An authority that hears nothing while `deaf`."""

    deaf = False

    async def raise_markers(self, *given: Any, **options: Any) -> Raised:
        if self.deaf:
            raise TierError("planned", tier=self.name, operation="raise_markers", reason="planned")
        return await super().raise_markers(*given, **options)


async def test_a_deferred_invalidation_is_delivered_before_anything_else(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", -1.0)
    tier = Deaf(clock=clock)
    guards = [GuardedTier(tier, GuardOptions(breaker=BreakerOptions(least=20))) for _ in range(2)]
    async with (
        LLMCache(tiers=[guards[0]], clock=clock) as cache,
        LLMCache(tiers=[guards[1]], clock=clock) as other,
    ):
        await cache.set(REQUEST, "old")
        await cache.flush()
        assert await other.get(REQUEST) == "old"
        tier.deaf = True
        assert (await cache.invalidate(REQUEST)).deferred
        assert await cache.get(REQUEST) is None
        tier.deaf = False
        await cache.get({"q": "the next read"})
        await other.get({"q": "the next read"})
        assert await other.get(REQUEST) is None
        assert not (await cache.invalidate(REQUEST)).deferred


class Slow(MemoryTier):
    """An authority that answers when `go` is set."""

    go: anyio.Event | None = None

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        if self.go is not None:
            await self.go.wait()
        return await super().changes(asked)


@pytest.mark.parametrize("given", [{"tags": ["doc"]}, {"label": "a/b"}, {}])
async def test_what_was_invalidated_while_it_was_being_set_is_not_stored(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", -1.0)
    tier = Slow(clock=clock)
    guarded = GuardedTier(tier, GuardOptions(read_budget=60.0, write_budget=60.0))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        tier.go = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(cache.set, REQUEST, "from the old document", **given))
            await anyio.wait_all_tasks_blocked()
            await (cache.invalidate(**given) if given else cache.invalidate(REQUEST))
            tier.go.set()
        assert await cache.get(REQUEST) is None
        await cache.set(REQUEST, "new", **given)
        assert await cache.get(REQUEST) == "new"


async def test_markers_are_asked_for_once_for_all_who_come_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    changes = DiskTier.changes

    async def counted(tier: DiskTier, of: Sequence[Asked]) -> list[Changes]:
        nonlocal asked
        asked += 1
        return await changes(tier, of)

    async with LLMCache(tiers=[DiskTier(tmp_path)], coherence_lease=3600) as cache:
        for number in range(50):
            await cache.set({"q": number}, "stored")
    monkeypatch.setattr(DiskTier, "changes", counted)
    async with LLMCache(tiers=[DiskTier(tmp_path)], coherence_lease=3600) as cache:
        cache._lookup.markers.doubt()
        asked = 0

        async def look(number: int) -> None:
            assert await cache.get_or_compute({"q": number}, answer) == "stored"

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(look, number)
        stats = cache.stats()
    assert asked == 1
    assert stats.tiers[0].hits == 50
    assert stats.computations == 0


async def test_many_deferred_invalidations_are_delivered_in_few_calls(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._markers.DELIVERED_AT_ONCE", 10)
    calls: list[int] = []

    class Counted(Deaf):
        async def raise_markers(self, *given: Any, **options: Any) -> Raised:
            result = await super().raise_markers(*given, **options)
            calls.append(len(given[1]))
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
        assert len(await markers_of(tier, cache._namespace_id("default"), 0)) == 26


async def test_more_deferred_invalidations_than_are_kept_become_one_of_all(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast._untold.MAX_DEFERRED", 3)
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
        assert space in dict(await markers_of(tier, space, 0))
