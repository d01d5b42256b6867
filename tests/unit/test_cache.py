"""`LLMCache`: its verbs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llmcache_fast import LLMCache, NotCachedError, Usage
from llmcache_fast.testing import ManualClock, MemoryTier
from tests.unit.conftest import REQUEST, Calls


def test_from_env(tmp_path: Path) -> None:
    cache = LLMCache.from_env(
        {"LLMCACHE_TIERS": f"disk://{tmp_path}", "LLMCACHE_NAMESPACE": "n", "LLMCACHE_TTL": "none",
         "LLMCACHE_MEMORY": "1MiB", "LLMCACHE_PROFILE": "openai.chat"}, namespace="wins",
    )  # fmt: skip
    assert cache.options.namespace == "wins"
    assert cache.options.ttl is None
    assert cache.options.memory == 1 << 20
    assert cache.options.profile == "openai.chat"


async def test_set_get_delete(cache: LLMCache) -> None:
    assert await cache.get(REQUEST) is None
    assert await cache.get(REQUEST, "default") == "default"
    assert await cache.set(REQUEST, {"a": [1]})
    first, second = await cache.get(REQUEST), cache.get_nowait(REQUEST)
    assert first == second == {"a": [1]}
    assert first is not second, "each caller gets its own copy"
    assert await cache.delete(REQUEST)
    assert not await cache.delete(REQUEST)
    assert cache.get_nowait(REQUEST, "gone") == "gone"


async def test_a_fingerprint_stands_for_its_request(cache: LLMCache) -> None:
    await cache.set(REQUEST, "value")
    assert await cache.get(cache.fingerprint(REQUEST)) == "value"


async def test_the_order_of_keys_and_transport_fields_do_not_matter(cache: LLMCache) -> None:
    await cache.set(REQUEST, "value")
    assert await cache.get({"stream": True, **dict(reversed(REQUEST.items()))}) == "value"


async def test_get_many_keeps_the_order(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        for number in range(0, 10, 2):
            await cache.set({"n": number}, number)
        await cache.flush()
        cache._clear()
        await cache.set({"n": 1}, 1)
        found = await cache.get_many([{"n": number} for number in range(6)], "absent")
    assert found == [0, 1, 2, "absent", 4, "absent"]


async def test_a_cached_none_is_told_from_nothing(cache: LLMCache) -> None:
    await cache.set(REQUEST, None)
    assert await cache.get(REQUEST, "default") is None
    assert (await cache.resolve(REQUEST, Calls())).status == "hit"


async def test_resolve_tells_where_from(cache: LLMCache, clock: ManualClock) -> None:
    calls = Calls()
    first = await cache.resolve(REQUEST, calls, tags=["t"])
    assert (first.value, first.status, first.tier, first.age, first.saved) == (
        "answer 1",
        "miss",
        None,
        0.0,
        0.0,
    )
    clock.advance(5)
    second = await cache.resolve(REQUEST, calls)
    assert (second.value, second.status, second.tier, second.age) == ("answer 1", "hit", "memory", 5.0)
    assert second.tags == ("t",)
    assert second.fingerprint == cache.fingerprint(REQUEST)
    await cache.set(REQUEST, "priced", cost=2_000_000, usage=Usage(1, 2), model="m")
    third = await cache.resolve(REQUEST, calls)
    assert (third.saved, third.usage, third.model) == (2.0, Usage(1, 2), "m")
    assert calls.count == 1


async def test_a_type_is_asked_for_and_given(cache: LLMCache) -> None:
    class Reply(msgspec.Struct):
        text: str

    async def compute() -> Reply:
        return Reply("x")

    for _ in range(2):
        reply = await cache.get_or_compute(REQUEST, compute, type=Reply)
        assert reply == Reply("x")
    assert await cache.get(REQUEST) == {"text": "x"}
    assert await cache.get(REQUEST, type=Reply) == Reply("x")
    assert await cache.get(REQUEST, "no", type=int) == "no", "what is no int is no hit for it"


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("passed", [0, 20])
async def test_what_was_stored_as_another_type_is_computed_anew(
    clock: ManualClock, disk: bool, passed: int
) -> None:
    class Before(msgspec.Struct):
        text: str

    class After(msgspec.Struct):
        text: str
        language: str

    calls = 0

    async def compute() -> After:
        nonlocal calls
        calls += 1
        return After("x", "en")

    tiers = [MemoryTier(clock=clock)] if disk else []
    async with LLMCache(tiers=tiers, clock=clock, jitter=0.0, ttl=10, stale_while_revalidate=90) as cache:
        await cache.set(REQUEST, Before("x"), type=Before)
        await cache.flush()
        if disk:
            cache._clear()
        clock.advance(passed)
        with pytest.raises(NotCachedError):
            await cache.get_or_compute(REQUEST, compute, type=After, only_if_cached=True)
        for _ in range(2):
            assert await cache.get_or_compute(REQUEST, compute, type=After) == After("x", "en")
        assert (await cache.resolve(REQUEST, compute, type=After)).status == "hit"
        assert calls == 1


async def test_ttl_and_expiry(cache: LLMCache, clock: ManualClock) -> None:
    await cache.set(REQUEST, "short", ttl=10)
    await cache.set({"n": 2}, "for ever", ttl=None)
    clock.advance(9.9)
    assert await cache.get(REQUEST) == "short"
    clock.advance(0.1)
    assert await cache.get(REQUEST) is None
    clock.advance(10**9)
    assert await cache.get({"n": 2}) == "for ever"


async def test_expire_keeps_the_stale_fallback_and_invalidate_does_not(cache: LLMCache) -> None:
    async def fails() -> str:
        raise ConnectionError

    await cache.set(REQUEST, "old", stale_if_error=60)
    assert await cache.expire(REQUEST)
    assert await cache.get(REQUEST) is None
    assert await cache.get_or_compute(REQUEST, fails, stale_if_error=60) == "old"
    assert not await cache.expire({"n": "absent"})
    await cache.invalidate(REQUEST)
    with pytest.raises(ConnectionError):
        await cache.get_or_compute(REQUEST, fails, stale_if_error=60)


async def test_refresh_computes_though_there_is_a_hit(cache: LLMCache) -> None:
    calls = Calls()
    await cache.get_or_compute(REQUEST, calls)
    assert await cache.get_or_compute(REQUEST, calls, refresh=True) == "answer 2"
    assert await cache.get(REQUEST) == "answer 2"


async def test_only_if_cached_never_computes(cache: LLMCache) -> None:
    calls = Calls()
    with pytest.raises(NotCachedError):
        await cache.get_or_compute(REQUEST, calls, only_if_cached=True)
    await cache.set(REQUEST, "there")
    assert await cache.get_or_compute(REQUEST, calls, only_if_cached=True) == "there"
    assert calls.count == 0


async def test_a_variant_is_an_independent_sample(cache: LLMCache) -> None:
    calls = Calls()
    answers = [await cache.get_or_compute(REQUEST, calls, variant=v) for v in (None, 1, 2, "1", 1, None)]
    assert answers == ["answer 1", "answer 2", "answer 3", "answer 4", "answer 2", "answer 1"]
    assert await cache.delete(REQUEST, variant=1)
    assert await cache.get(REQUEST, variant=1) is None
    assert await cache.get(REQUEST, variant=2) == "answer 3"
