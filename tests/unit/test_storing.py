"""What becomes of a computed value: admission, cost, lifetime, and what is returned but not stored."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from llmcache_fast import Computed, ConfigurationError, LLMCache, PriceTable, UnstorableValueError, Usage
from llmcache_fast._usage import Price
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

REQUEST = {"q": 1}


@pytest.fixture
def cache_options() -> dict[str, Any]:
    return {"prices": PriceTable("2026-01-01", {"m": Price(2.0, 10.0)})}


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


async def test_a_cost_of_its_own_wins(cache: LLMCache) -> None:
    async def compute() -> Computed[str]:
        return Computed("value", cost=7, usage=Usage(1000), model="m")

    await cache.get_or_compute(REQUEST, compute)
    assert (await cache.resolve(REQUEST, compute)).saved == 7e-6


async def test_a_value_of_another_type_than_asked_for_is_returned_and_not_stored() -> None:
    async def compute() -> str:
        return "no list"

    async with LLMCache() as cache:
        with pytest.warns(RuntimeWarning, match="not stored"):
            assert await cache.get_or_compute({"q": "type"}, compute, type=list[int]) == "no list"
        assert cache.stats().stored == 0


async def test_set_raises_what_cannot_be_stored_and_keeps_what_was_there(cache: LLMCache) -> None:
    await cache.set(REQUEST, "before")
    with pytest.raises(UnstorableValueError, match="is no list"):
        await cache.set(REQUEST, "no list", type=list[int])
    with pytest.raises(ConfigurationError, match="ttl"):
        await cache.set(REQUEST, Computed("after", ttl=-1))
    assert await cache.get(REQUEST) == "before"


@pytest.mark.parametrize("patient", [True, False])
async def test_what_is_set_waits_for_room_before_anything_is_shed(clock: ManualClock, patient: bool) -> None:
    gate = anyio.Event()
    slow = FaultyTier(
        MemoryTier(clock=clock), lambda name, _: Fault(hold=gate) if name == "put_many" else None
    )
    async with LLMCache(tiers=[GuardedTier(slow, GuardOptions(batch_budget=60.0))], clock=clock) as cache:
        writers = cache._lookup.writers
        writers._room_deadline = 60.0 if patient else 0.0
        writers.buffer("faulty")._max_items = 2
        await cache.set({"n": 1}, "one")
        await cache.set({"n": 2}, "two")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.set, {"n": 3}, "three")
            await anyio.wait_all_tasks_blocked()
            assert (writers.statistics().shed == 0) == patient
            gate.set()
        await cache.flush()
        assert writers.statistics().shed == (0 if patient else 1)
        assert cache.stats().tiers[0].writes["written"] == (3 if patient else 2)
