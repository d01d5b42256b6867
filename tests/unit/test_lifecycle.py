"""When a cache may be used: in its block, in its process, in its event loop."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import CacheClosedError, LLMCache
from llmcache_fast.testing import ManualClock, MemoryTier
from tests.unit.conftest import REQUEST, Calls


async def test_outside_its_block_every_verb_says_so() -> None:
    cache = LLMCache()
    async with cache:
        pass
    for attempt in (
        lambda: cache.get(REQUEST),
        lambda: cache.get_nowait(REQUEST),
        lambda: cache.get_or_compute(REQUEST, Calls()),
        lambda: cache.stats(),
    ):
        with pytest.raises(CacheClosedError, match="async with"):
            attempt()
    for call in (
        cache.resolve(REQUEST, Calls()),
        cache.set(REQUEST, "x"),
        cache.delete(REQUEST),
        cache.expire(REQUEST),
        cache.invalidate(REQUEST),
        cache.get_many([REQUEST]),
        cache.bump_version("v"),
        cache.flush(),
    ):
        with pytest.raises(CacheClosedError, match="async with"):
            await call
    assert len(cache.fingerprint(REQUEST)) == 32, "a fingerprint needs nothing open"


async def test_one_object_is_opened_once_at_a_time() -> None:
    cache = LLMCache()
    async with cache:
        with pytest.raises(CacheClosedError, match="open already"):
            async with cache:
                pytest.fail("it opened")
        assert await cache.get_or_compute(REQUEST, Calls()) == "answer 1", "and stays open"


async def test_closing_drains_what_is_buffered(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        for number in range(20):
            await cache.set({"n": number}, "value")
    assert len(tier.records) == 20
    assert cache.close_report["memory-double"].remaining == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_starts_clean_and_the_parent_goes_on(tmp_path: Path) -> None:
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as cache:
        await cache.set(REQUEST, "value")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                cache.get_nowait(REQUEST)
            except CacheClosedError:
                code = 0
            finally:
                os._exit(code)
        _, status = await anyio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await cache.get(REQUEST) == "value"
        await cache.flush()
        cache._clear()
        assert await cache.get(REQUEST) == "value", "from the disk"


async def test_another_event_loop_shares_hits_and_computes_alone(cache: LLMCache, anyio_backend: str) -> None:
    calls = Calls()
    await cache.set(REQUEST, "shared")
    found: list[Any] = []

    async def elsewhere() -> None:
        found.append(await cache.get_or_compute(REQUEST, calls))
        found.append(await cache.get_or_compute({"n": 2}, calls))
        found.append(await cache.get_or_compute({"n": 2}, calls))

    thread = threading.Thread(target=anyio.run, args=(elsewhere,), kwargs={"backend": anyio_backend})
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    assert found == ["shared", "answer 1", "answer 1"]
    assert await cache.get({"n": 2}) == "answer 1", "and what it computed is shared too"


async def test_what_another_event_loop_computes_does_not_replace_what_was_set(
    cache: LLMCache, anyio_backend: str
) -> None:
    started, go = threading.Event(), threading.Event()

    async def slow() -> str:
        started.set()
        await anyio.to_thread.run_sync(go.wait)
        return "computed elsewhere"

    async def elsewhere() -> None:
        assert await cache.get_or_compute(REQUEST, slow) == "computed elsewhere"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, partial(anyio.run, elsewhere, backend=anyio_backend))
        await anyio.to_thread.run_sync(started.wait)
        await cache.set(REQUEST, "set by hand")
        go.set()
    assert await cache.get(REQUEST) == "set by hand"
    assert cache.stats().not_stored == {"superseded": 1}
