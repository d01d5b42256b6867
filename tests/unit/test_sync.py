"""`SyncLLMCache`: the same cache without an event loop of one's own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmcache_fast import CacheClosedError, SyncLLMCache

REQUEST = {"q": 1}


def test_the_verbs() -> None:
    with SyncLLMCache() as cache:
        assert cache.get(REQUEST, "absent") == "absent"
        assert cache.get_or_compute(REQUEST, lambda: "computed", tags=["t"]) == "computed"
        assert cache.get_nowait(REQUEST) == "computed"
        assert cache.resolve(REQUEST, lambda: "never").status == "hit"
        assert cache.set({"q": 2}, [1, 2])
        assert cache.get_many([REQUEST, {"q": 2}, {"q": 3}], 0) == ["computed", [1, 2], 0]
        assert cache.expire({"q": 2})
        assert cache.get({"q": 2}) is None
        cache.invalidate(tags=["t"])
        assert cache.get(REQUEST) is None
        assert cache.set(REQUEST, "x", depends_on=["v"])
        cache.bump_version("v")
        assert not cache.delete({"q": 9})
        assert cache.explain(REQUEST).fingerprint == cache.fingerprint(REQUEST).hex()
        assert cache.flush() == {}
        assert cache.stats().computations == 1


def test_computations_run_in_a_worker_thread_or_in_the_loop() -> None:
    threads: list[int] = []

    def plain() -> str:
        threads.append(threading.get_ident())
        return "plain"

    async def coroutine() -> str:
        threads.append(threading.get_ident())
        return "async"

    with SyncLLMCache() as cache:
        assert cache.get_or_compute({"q": "plain"}, plain) == "plain"
        assert cache.get_or_compute({"q": "async"}, coroutine) == "async"
    assert threading.get_ident() not in threads
    assert threads[0] != threads[1]


def test_threads_share_one_computation() -> None:
    barrier = threading.Barrier(8)
    running = threading.Event()
    release = threading.Event()
    calls: list[int] = []

    def slow() -> str:
        calls.append(1)
        running.set()
        release.wait()
        return "value"

    with SyncLLMCache() as cache, ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> Any:
            barrier.wait()
            return cache.get_or_compute(REQUEST, slow)

        answers = pool.map(ask, range(8))
        running.wait()
        while cache.stats().flights["waiting"] < 8:
            threading.Event().wait(0.001)
        release.set()
        assert list(answers) == ["value"] * 8
    assert len(calls) == 1


def test_errors_are_the_computations_own() -> None:
    def fails() -> str:
        raise ConnectionError("down")

    with SyncLLMCache() as cache, pytest.raises(ConnectionError, match="down"):
        cache.get_or_compute(REQUEST, fails)


def test_outside_its_block() -> None:
    cache = SyncLLMCache()
    with cache:
        cache.set(REQUEST, "x")
    for call in (lambda: cache.get(REQUEST), lambda: cache.set(REQUEST, "x"), lambda: cache.flush()):
        with pytest.raises(CacheClosedError):
            call()


def test_entries_outlive_it_on_disk(tmp_path: Path) -> None:
    for expected in (None, "kept"):
        with SyncLLMCache(tiers=[f"disk://{tmp_path}"]) as cache:
            assert cache.get(REQUEST) == expected
            cache.set(REQUEST, "kept")
