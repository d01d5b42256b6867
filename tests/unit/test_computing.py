"""Stale answers, admission, what becomes of a computed value."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, LLMCache
from llmcache_fast.testing import ManualClock, MemoryTier
from tests.unit.conftest import Calls, StatusError, settled

REQUEST = {"q": 1}


@pytest.fixture
def cache_options() -> dict[str, Any]:
    return {"ttl": 10, "stale_while_revalidate": 20, "stale_if_error": 60}


async def test_a_stale_answer_is_given_at_once_and_renewed_behind(
    cache: LLMCache, clock: ManualClock
) -> None:
    upstream = Calls()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(11)
    stale = await cache.resolve(REQUEST, upstream)
    assert (stale.value, stale.status, stale.tier, stale.age) == ("answer 1", "stale", "memory", 11.0)
    again = await cache.resolve(REQUEST, upstream)
    assert again.status == "stale", "a flight is running: still at once"
    await settled(cache)
    assert upstream.count == 2, "one flight for both"
    assert upstream.contexts[1].stale == "answer 1"
    fresh = await cache.resolve(REQUEST, upstream)
    assert (fresh.value, fresh.status) == ("answer 2", "hit")
    assert await cache.get(REQUEST) == "answer 2"


async def test_get_never_returns_stale(cache: LLMCache, clock: ManualClock) -> None:
    await cache.get_or_compute(REQUEST, Calls())
    clock.advance(11)
    assert await cache.get(REQUEST) is None


async def test_a_fallback_is_not_given_while_it_can_be_computed(cache: LLMCache, clock: ManualClock) -> None:
    upstream = Calls()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(31)
    result = await cache.resolve(REQUEST, upstream)
    assert (result.value, result.status) == ("answer 2", "miss")


async def test_a_failed_renewal_leaves_the_stale_value(cache: LLMCache, clock: ManualClock) -> None:
    upstream = Calls()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(11)
    upstream.error = StatusError(400)
    for _ in range(3):
        assert await cache.get_or_compute(REQUEST, upstream) == "answer 1"
        await settled(cache)
    assert upstream.count == 2
    assert cache.stats().failures == 1


async def test_a_tag_known_only_at_the_end_is_held_against_what_came_meanwhile(cache: LLMCache) -> None:
    async def compute() -> Computed[str]:
        await cache.invalidate(tags=["doc"])
        return Computed("of an old document", tags=["doc"])

    result = await cache.resolve(REQUEST, compute)
    assert result.superseded
    assert await cache.get(REQUEST) is None


async def test_a_joining_callers_tags_count(cache: LLMCache) -> None:
    started, go = anyio.Event(), anyio.Event()

    async def slow() -> str:
        started.set()
        await go.wait()
        return "value"

    async def join() -> None:
        result = await cache.resolve(REQUEST, slow, tags=["second"])
        assert result.status == "joined"

    async def first() -> None:
        await cache.get_or_compute(REQUEST, slow)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await started.wait()
        tasks.start_soon(join)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert await cache.get(REQUEST) == "value"
    await cache.invalidate(tags=["second"])
    assert await cache.get(REQUEST) is None


async def test_a_plain_function_is_refused_by_name(cache: LLMCache) -> None:
    with pytest.raises(TypeError, match="async callable; it returned a str"):
        await cache.get_or_compute(REQUEST, lambda: "no coroutine")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("below", [False, True], ids=["memory", "disk"])
async def test_refreshes_in_the_background_are_bounded(clock: ManualClock, below: bool) -> None:
    go = anyio.Event()
    running = most = 0

    async def compute() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return "new"

    tiers = [MemoryTier(clock=clock)] if below else []
    async with LLMCache(
        tiers=tiers, clock=clock, jitter=0.0, ttl=10, stale_while_revalidate=90, max_background=8
    ) as cache:
        for number in range(100):
            await cache.set({"n": number}, "old")
        await cache.flush()
        clock.advance(11)
        if below:
            cache._clear()
        for number in range(100):
            assert (await cache.resolve({"n": number}, compute)).status == "stale"
        await anyio.wait_all_tasks_blocked()
        assert (most, cache.stats().flights["background"]) == (8, 8)
        go.set()
        await settled(cache)
        assert cache.stats().flights["background"] == 0
        for number in range(50, 58):
            assert (await cache.resolve({"n": number}, compute)).status == "stale"
        await settled(cache)
        assert (await cache.resolve({"n": 57}, compute)).value == "new", "the next ones have their turn"
