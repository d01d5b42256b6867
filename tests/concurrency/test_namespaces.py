"""More namespaces than are followed: what is forgotten of one brings nothing back (I1)."""

from __future__ import annotations

import anyio
import pytest

from llmcache_fast import LLMCache
from llmcache_fast.testing import MemoryTier
from tests.concurrency.test_coherence import REQUEST, process


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._knowledge.MAX_FOLLOWED", 4)
    monkeypatch.setattr("llmcache_fast._knowledge.FORGOTTEN_AT_ONCE", 2)


async def follow_others(cache: LLMCache) -> None:
    for number in range(5):
        await cache.get(REQUEST, namespace=f"other {number}")
    assert cache._lookup.markers._knowledge.get("n") is None


@pytest.mark.usefixtures("few")
async def test_an_invalidation_in_a_forgotten_namespace_shows_nothing_that_was_invalid() -> None:
    async with LLMCache(tiers=[MemoryTier()]) as cache:
        await cache.set(REQUEST, "old", tags=["t"], namespace="n")
        await cache.invalidate(tags=["t"], namespace="n")
        await follow_others(cache)
        await cache.invalidate(tags=["else"], namespace="n")
        assert cache.get_nowait(cache.fingerprint(REQUEST, namespace="n")) is None
        assert await cache.get(REQUEST, namespace="n") is None
        await cache.set(REQUEST, "new", tags=["t"], namespace="n")
        assert await cache.get(REQUEST, namespace="n") == "new"


@pytest.mark.usefixtures("few")
async def test_one_that_is_forgotten_while_the_authority_is_told_stays_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = MemoryTier()
    await shared.open()
    cache, _ = process(shared, shared._clock)  # type: ignore[arg-type]
    raise_markers, raised, go = shared.raise_markers, anyio.Event(), anyio.Event()

    async def slow(*given: object, **named: object) -> object:
        answer = await raise_markers(*given, **named)  # type: ignore[arg-type]
        raised.set()
        await go.wait()
        return answer

    async with cache, anyio.create_task_group() as tasks:
        await cache.set(REQUEST, "old", tags=["t"], namespace="n")
        space = cache._namespace_id("n")
        epoch = cache._stamp(space)[0]
        monkeypatch.setattr(shared, "raise_markers", slow)
        tasks.start_soon(lambda: cache.invalidate(tags=["else"], namespace="n"))
        await raised.wait()
        await follow_others(cache)
        go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache._stamp(space)[0] != epoch, "nobody hears of what others invalidate in it"
