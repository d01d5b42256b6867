"""Invalidation, and values set by hand, while a request is computed (I1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    Computed,
    LLMCache,
)
from tests.concurrency.callers import A, Callers, Provider, options

CALL: dict[str, Any] = {"tags": ["t", "u"], "label": "content/blog/post", "depends_on": ["pricing"]}


def by_request(cache: LLMCache) -> Any:
    return cache.invalidate(A)


INVALIDATIONS: dict[str, Callable[[LLMCache], Any]] = {
    "request": by_request,
    "key": lambda cache: cache.invalidate(key=cache.fingerprint(A)),
    "tag": lambda cache: cache.invalidate(tags=["t"]),
    "one of several tags": lambda cache: cache.invalidate(tags=["x", "u"]),
    "label": lambda cache: cache.invalidate(label="content/blog/post"),
    "label prefix": lambda cache: cache.invalidate(label="content/blog/*"),
    "label prefix above": lambda cache: cache.invalidate(label="content/"),
    "version": lambda cache: cache.bump_version("pricing"),
    "namespace": lambda cache: cache.invalidate(namespace="default"),
    "delete": lambda cache: cache.delete(A),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_superseded_while_it_runs(how: str) -> None:
    old, new = Provider("old"), Provider("new")
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = [await start(cache.resolve, A, old, **CALL) for _ in range(2)]
        await INVALIDATIONS[how](cache)
        after = await start(cache.resolve, A, new, **CALL)
        assert (old.calls, new.calls) == (1, 1), "a newcomer starts a flight of its own"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        for caller in before:
            assert caller.value.value == "old"
            assert caller.value.superseded
        assert cache.get_nowait(A) is None, "what was superseded is not stored"
        assert not after.done
        assert cache.stats().not_stored == {"superseded": 1}
        new.go.set()
        await anyio.wait_all_tasks_blocked()
        assert after.value.value == "new"
        assert not after.value.superseded
        assert cache.get_nowait(A) == "new"
        assert old.cancelled == 0
        flights = cache.stats().flights
        assert (flights["running"], flights["orphans"], flights["waiting"]) == (0, 0, 0)


@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_the_old_answer_comes_after_the_new_one(how: str) -> None:
    old, new = Provider("old"), Provider("new").done()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = await start(cache.resolve, A, old, **CALL)
        await INVALIDATIONS[how](cache)
        assert await cache.get_or_compute(A, new, **CALL) == "new"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        assert before.value.value == "old"
        assert cache.get_nowait(A) == "new"


@pytest.mark.parametrize(
    "targets",
    [{"tags": ["other"]}, {"label": "content/blogs/*"}, {"label": "content/blog/posts"}, {"namespace": "n"}],
)
async def test_other_invalidations_touch_nothing(targets: dict[str, Any]) -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider, **CALL)
        await cache.invalidate(**targets)
        joined = await start(cache.resolve, A, provider, **CALL)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert not caller.value.superseded
        assert joined.value.status == "joined"
        assert cache.get_nowait(A) == "answer"


async def test_a_tag_that_only_a_joining_caller_brought() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider)
        await start(cache.resolve, A, provider, tags=["brought"])
        await cache.invalidate(tags=["brought"])
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) is None


async def test_a_tag_of_a_joining_caller_stays_with_the_entry() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider, tags=["one"])
        await start(cache.resolve, A, provider, tags=["two"])
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == "answer"
        await cache.invalidate(tags=["two"])
        assert cache.get_nowait(A) is None


@pytest.mark.parametrize("while_running", [True, False])
async def test_a_version_that_only_a_joining_caller_brought(while_running: bool) -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider, depends_on=["prices"])
        await start(cache.resolve, A, provider, depends_on=["taxes"])
        if while_running:
            await cache.bump_version("taxes")
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == (None if while_running else "answer")
        await cache.bump_version("taxes")
        assert cache.get_nowait(A) is None


async def test_a_tag_that_the_computation_names_only_at_its_end() -> None:
    provider = Provider(Computed("answer", tags=["found"]))
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider)
        await cache.invalidate(tags=["found"])
        joined = await start(cache.resolve, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value.superseded
        assert (joined.value.value, joined.value.superseded) == ("answer", False)
        assert provider.calls == 2, "who came after the invalidation got a value of its own time"
        assert cache.get_nowait(A) == "answer"


async def test_a_value_that_is_set_meanwhile_wins() -> None:
    provider = Provider("computed")
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider)
        await cache.set(A, "set")
        assert await cache.get_or_compute(A, provider) == "set"
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value.value == "computed"
        assert cache.get_nowait(A) == "set"


async def test_refresh_computes_anew_beside_what_runs() -> None:
    old, new = Provider("old"), Provider("new").done()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.get_or_compute, A, old)
        assert await cache.get_or_compute(A, new, refresh=True) == "new"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value == "old"
        assert cache.get_nowait(A) == "new"


async def test_who_joins_after_an_invalidation_of_a_tag_named_at_the_end_gets_a_newer_value() -> None:
    provider = Provider(Computed("old", tags=("doc",)), Computed("new", tags=("doc",)))
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = await start(cache.get_or_compute, A, provider)
        await cache.invalidate(tags=["doc"])
        after = [await start(cache.get_or_compute, A, provider) for _ in range(3)]
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert before.value == "old"
        assert [caller.value for caller in after] == ["new"] * 3
        assert provider.calls == 2
        assert await cache.get(A) == "new"


@pytest.mark.parametrize("unstored", [{"store": False}, {"ttl": 0}])
async def test_so_it_is_with_a_value_that_is_not_stored(unstored: dict[str, Any]) -> None:
    provider = Provider(*(Computed(text, tags=("doc",), **unstored) for text in ("old", "new")))
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = await start(cache.get_or_compute, A, provider)
        await cache.invalidate(tags=["doc"])
        after = await start(cache.get_or_compute, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert (before.value, after.value, provider.calls) == ("old", "new", 2)
