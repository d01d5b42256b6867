"""What comes from a lower tier is put into the upper ones, while others write, invalidate and fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache
from llmcache_fast.testing import FaultyTier, ManualClock, MemoryTier, fail_first
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.clocks import clock_of, markers_of

REQUEST = {"q": 1}


async def answer() -> str:
    return "computed"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Held(MemoryTier):
    """Reads are answered, with what was there when they came, when `go` is set."""

    go: anyio.Event | None = None

    async def get_many(self, keys: Any) -> list[bytes | None]:
        found = await super().get_many(keys)
        if self.go is not None:
            await self.go.wait()
        return found


async def while_a_read_is_under_way(
    cache: LLMCache, tier: Held, meanwhile: Callable[[], Awaitable[Any]]
) -> Any:
    """What a `get` returns during whose read below memory something happens."""
    cache._clear()
    tier.go = anyio.Event()
    found: list[Any] = []

    async def read() -> None:
        found.append(await cache.get(REQUEST))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await meanwhile()
        tier.go.set()
    return found[0]


def patient(tier: Any) -> GuardedTier:
    return GuardedTier(tier, GuardOptions(read_budget=60.0, write_budget=60.0))


async def test_what_is_superseded_while_it_is_read_is_not_promoted(clock: ManualClock) -> None:
    fast, slow = MemoryTier(clock=clock), Held(clock=clock)
    async with LLMCache(tiers=[fast, patient(slow)], clock=clock) as cache:
        await cache.set(REQUEST, "old", tags=["doc"])
        await cache.flush()
        await fast.clear()
        found = await while_a_read_is_under_way(cache, slow, partial(cache.invalidate, tags=["doc"]))
        assert found is None
        await cache.flush()
        assert fast.records == {}
        assert await cache.get(REQUEST) is None


async def test_an_old_value_of_a_lower_tier_replaces_no_newer_one(clock: ManualClock) -> None:
    """Both have the same stamp: nothing was invalidated, it was only computed again."""
    fast, slow = MemoryTier(clock=clock), Held(clock=clock)
    async with LLMCache(tiers=[fast, patient(slow)], clock=clock) as cache:
        await cache.set(REQUEST, "old")
        await cache.flush()
        await fast.clear()
        clock.advance(1)
        found = await while_a_read_is_under_way(cache, slow, partial(cache.set, REQUEST, "new"))
        assert found == "new"
        assert await cache.get(REQUEST) == "new"
        await cache.flush()
        cache._clear()
        assert (await cache.get(REQUEST), slow.records.keys()) == ("new", fast.records.keys())
        await slow.clear()
        cache._clear()
        assert await cache.get(REQUEST) == "new", "in the upper tier as well"


async def test_a_tier_that_did_not_answer_is_not_filled(clock: ManualClock) -> None:
    """What it has may be newer."""
    fast = FaultyTier(MemoryTier(clock=clock))
    slow = MemoryTier(clock=clock)
    async with LLMCache(tiers=[fast, slow], clock=clock) as cache:
        await cache.set(REQUEST, "old")
        await cache.flush()
        cache._clear()
        fast.plan = fail_first(10**6, "get_many")
        puts = fast.calls["put_many"]
        assert await cache.get(REQUEST) == "old"
        await cache.flush()
        assert fast.calls["put_many"] == puts


async def test_a_fill_is_told_to_nobody(clock: ManualClock) -> None:
    """Neither the clock nor a marker moves."""
    fast, slow = MemoryTier(clock=clock), MemoryTier(clock=clock)
    async with LLMCache(tiers=[fast, slow], clock=clock) as cache:
        await cache.set(REQUEST, "value")
        await cache.flush()
        await fast.clear()
        cache._clear()
        space = cache._namespace_id("default")
        before = [await clock_of(tier, space) for tier in (fast, slow)]
        assert await cache.get(REQUEST) == "value"
        await cache.flush()
        assert len(fast.records) == 1
        assert [await clock_of(tier, space) for tier in (fast, slow)] == before
        assert await markers_of(slow, space, 0) == []


class RefusedError(Exception):
    status_code = 404


async def test_a_refusal_does_not_take_the_place_of_a_stale_value_below(clock: ManualClock) -> None:
    async def refuse() -> str:
        raise RefusedError

    async with LLMCache(
        tiers=[MemoryTier(clock=clock)], clock=clock, ttl=10, jitter=0.0, stale_if_error=1000
    ) as cache:
        await cache.set(REQUEST, "good")
        await cache.flush()
        cache._clear()
        clock.advance(20)
        for _ in range(3):
            result = await cache.resolve(REQUEST, refuse)
            assert (result.value, result.status) == ("good", "stale")
            cache._clear()
            clock.advance(10)
        assert await cache.get_or_compute(REQUEST, answer) == "computed", "the refusal was not remembered"
