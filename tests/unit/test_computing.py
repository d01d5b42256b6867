"""Stale answers, admission, what becomes of a computed value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, LLMCache, PriceTable, Usage
from llmcache_fast._usage import Price
from llmcache_fast.testing import ManualClock

REQUEST = {"q": 1}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cache(clock: ManualClock, anyio_backend: str) -> AsyncIterator[LLMCache]:
    prices = PriceTable("2026-01-01", {"m": Price(2.0, 10.0)})
    async with LLMCache(
        clock=clock, jitter=0.0, ttl=10, stale_while_revalidate=20, stale_if_error=60, prices=prices
    ) as cache:
        yield cache


class Upstream:
    """Answers or fails as told; each answer is another."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.contexts: list[Any] = []

    async def __call__(self, context: Any) -> str:
        self.calls += 1
        self.contexts.append(context)
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return f"answer {self.calls}"


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


async def settled(cache: LLMCache) -> None:
    while cache.stats().flights["running"]:
        await anyio.lowlevel.checkpoint()


async def test_a_stale_answer_is_given_at_once_and_renewed_behind(
    cache: LLMCache, clock: ManualClock
) -> None:
    upstream = Upstream()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(11)
    stale = await cache.resolve(REQUEST, upstream)
    assert (stale.value, stale.status, stale.tier, stale.age) == ("answer 1", "stale", "memory", 11.0)
    again = await cache.resolve(REQUEST, upstream)
    assert again.status == "stale", "a flight is running: still at once"
    await settled(cache)
    assert upstream.calls == 2, "one flight for both"
    assert upstream.contexts[1].stale == "answer 1"
    fresh = await cache.resolve(REQUEST, upstream)
    assert (fresh.value, fresh.status) == ("answer 2", "hit")
    assert await cache.get(REQUEST) == "answer 2"


async def test_get_never_returns_stale(cache: LLMCache, clock: ManualClock) -> None:
    await cache.get_or_compute(REQUEST, Upstream())
    clock.advance(11)
    assert await cache.get(REQUEST) is None


async def test_a_fallback_is_not_given_while_it_can_be_computed(cache: LLMCache, clock: ManualClock) -> None:
    upstream = Upstream()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(31)
    result = await cache.resolve(REQUEST, upstream)
    assert (result.value, result.status) == ("answer 2", "miss")


async def test_a_failed_renewal_leaves_the_stale_value(cache: LLMCache, clock: ManualClock) -> None:
    upstream = Upstream()
    await cache.get_or_compute(REQUEST, upstream)
    clock.advance(11)
    upstream.error = StatusError(400)
    for _ in range(3):
        assert await cache.get_or_compute(REQUEST, upstream) == "answer 1"
        await settled(cache)
    assert upstream.calls == 2
    assert cache.stats().failures == 1


async def test_what_is_not_admitted_is_returned_and_not_stored(cache: LLMCache) -> None:
    async def cut_off() -> dict[str, Any]:
        return {"choices": [{"finish_reason": "length"}]}

    for _ in range(2):
        assert await cache.get_or_compute(REQUEST, cut_off) == {"choices": [{"finish_reason": "length"}]}
    stats = cache.stats()
    assert (stats.computations, stats.stored, stats.not_stored) == (2, 0, {"admission": 2})


async def test_a_caches_own_rule_of_admission(clock: ManualClock) -> None:
    async with LLMCache(admit=lambda value: value != "secret", clock=clock) as cache:
        for value in ("secret", ""):

            async def compute(value: str = value) -> str:
                return value

            await cache.get_or_compute({"v": value}, compute)
        assert await cache.get_many([{"v": "secret"}, {"v": ""}], "absent") == ["absent", ""]


async def test_what_cannot_be_stored_is_returned_with_a_warning(cache: LLMCache) -> None:
    class Foreign:
        pass

    foreign = Foreign()

    async def compute() -> Foreign:
        return foreign

    with pytest.warns(RuntimeWarning, match="not stored: a value of type Foreign"):
        assert await cache.get_or_compute(REQUEST, compute) is foreign
    assert cache.stats().not_stored == {"unstorable": 1}


async def test_computed_decides_after_the_fact(cache: LLMCache, clock: ManualClock) -> None:
    async def compute() -> Computed[str]:
        return Computed("value", ttl=2, tags=["late"], usage=Usage(100, 10), model="m")

    miss = await cache.resolve(REQUEST, compute, tags=["early"])
    assert (miss.value, miss.tags, miss.usage, miss.model) == (
        "value",
        ("early", "late"),
        Usage(100, 10),
        "m",
    )
    hit = await cache.resolve(REQUEST, compute)
    assert hit.saved == pytest.approx((100 * 2 + 10 * 10) / 1e6)
    clock.advance(3)
    assert await cache.get(REQUEST) is None
    await cache.get_or_compute(REQUEST, compute, stale_while_revalidate=0)
    await cache.invalidate(tags=["late"])
    assert await cache.get(REQUEST) is None


@pytest.mark.parametrize("options", [{"store": False}, {"ttl": 0}])
async def test_a_computation_may_forbid_its_storing(cache: LLMCache, options: dict[str, Any]) -> None:
    async def compute() -> Computed[str]:
        return Computed("value", **options)

    assert await cache.get_or_compute(REQUEST, compute) == "value"
    assert await cache.get(REQUEST) is None
    assert cache.stats().not_stored == {"option": 1}


async def test_a_tag_known_only_at_the_end_is_held_against_what_came_meanwhile(cache: LLMCache) -> None:
    async def compute() -> Computed[str]:
        await cache.invalidate(tags=["doc"])
        return Computed("of an old document", tags=["doc"])

    result = await cache.resolve(REQUEST, compute)
    assert result.superseded
    assert await cache.get(REQUEST) is None


async def test_a_cost_of_its_own_wins(cache: LLMCache) -> None:
    async def compute() -> Computed[str]:
        return Computed("value", cost=7, usage=Usage(1000), model="m")

    await cache.get_or_compute(REQUEST, compute)
    assert (await cache.resolve(REQUEST, compute)).saved == 7e-6


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


async def test_a_value_of_another_type_than_asked_for_is_returned_and_not_stored() -> None:
    async def compute() -> str:
        return "no list"

    async with LLMCache() as cache:
        with pytest.warns(RuntimeWarning, match="not stored"):
            assert await cache.get_or_compute({"q": "type"}, compute, type=list[int]) == "no list"
        assert cache.stats().stored == 0
