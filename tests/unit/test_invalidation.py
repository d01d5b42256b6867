"""Invalidation: what a call covers, walls between namespaces, what is being computed meanwhile (I1)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import CacheClosedError, ConfigurationError, LLMCache, TierError
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Raised
from tests.unit.conftest import REQUEST, Calls


async def test_namespaces_are_walls(cache: LLMCache) -> None:
    await cache.set(REQUEST, "mine", tags=["t"])
    await cache.set(REQUEST, "theirs", namespace="other", tags=["t"])
    assert cache.fingerprint(REQUEST) != cache.fingerprint(REQUEST, namespace="other")
    assert await cache.get(REQUEST) == "mine"
    assert await cache.get(REQUEST, namespace="other") == "theirs"
    await cache.invalidate(tags=["t"])
    assert await cache.get(REQUEST) is None
    assert await cache.get(REQUEST, namespace="other") == "theirs"
    await cache.invalidate(namespace="other")
    assert await cache.get(REQUEST, namespace="other") is None


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ({"tags": ["a"]}, [1, 3]),
        ({"tags": ["a", "b"]}, [3]),
        ({"label": "content/blog/ai"}, [1, 2, 3]),
        ({"label": "content/blog/"}, [2, 3]),
        ({"label": "content/*"}, [3]),
        ({"label": "content"}, [0, 1, 2, 3]),
    ],
    ids=str,
)
async def test_what_an_invalidation_covers(cache: LLMCache, named: dict[str, Any], left: list[int]) -> None:
    await cache.set({"n": 0}, 0, tags=["a", "b"], label="content/blog/ai")
    await cache.set({"n": 1}, 1, tags=["b"], label="content/blog/aix")
    await cache.set({"n": 2}, 2, tags=["a"], label="content/news")
    await cache.set({"n": 3}, 3, label="contents")
    done = await cache.invalidate(**named)
    assert done.seq > 0
    assert not done.deferred
    found = await cache.get_many([{"n": n} for n in range(4)])
    assert [value for value in found if value is not None] == left


async def test_bump_version_covers_what_depends_on_it(cache: LLMCache) -> None:
    await cache.set({"n": 0}, 0, depends_on=["pricing"])
    await cache.set({"n": 1}, 1, tags=["pricing"])
    await cache.bump_version("pricing")
    assert await cache.get_many([{"n": 0}, {"n": 1}]) == [None, 1]


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"tags": []},
        {"tags": "a"},
        {"key": b"short"},
        {"label": "a*b"},
        {"namespace": ""},
        {"request": REQUEST, "key": bytes(32)},
    ],
    ids=str,
)
async def test_an_invalidation_of_nothing_is_refused(cache: LLMCache, named: dict[str, Any]) -> None:
    await cache.set(REQUEST, 1, depends_on=["pricing"])
    for invalidating in (cache.invalidate, cache.erase):
        with pytest.raises(ConfigurationError):
            await invalidating(**named)
    with pytest.raises(ConfigurationError, match="namespace"):
        await cache.bump_version("pricing", namespace="")
    assert await cache.get(REQUEST) == 1


async def test_what_was_being_computed_is_not_stored(cache: LLMCache) -> None:
    started, go = anyio.Event(), anyio.Event()
    results: list[Any] = []

    async def slow() -> str:
        started.set()
        await go.wait()
        return "computed from old documents"

    async def call() -> None:
        results.append(await cache.resolve(REQUEST, slow, tags=["doc"]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await started.wait()
        assert (await cache.invalidate(tags=["doc"])).superseded == 1
        calls = Calls()
        assert await cache.get_or_compute(REQUEST, calls, tags=["doc"]) == "answer 1", "newcomers do not join"
        go.set()
    assert results[0].value == "computed from old documents"
    assert results[0].superseded
    assert await cache.get(REQUEST) == "answer 1"


async def test_a_late_store_does_not_replace_what_was_set(cache: LLMCache) -> None:
    started, go = anyio.Event(), anyio.Event()

    async def slow() -> str:
        started.set()
        await go.wait()
        return "computed"

    async def first() -> None:
        await cache.get_or_compute(REQUEST, slow)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await started.wait()
        await cache.set(REQUEST, "set by hand")
        go.set()
    assert await cache.get(REQUEST) == "set by hand"


class Deaf(MemoryTier):
    """An authority that cannot be told."""

    async def raise_markers(self, *given: Any, **options: Any) -> Raised:
        raise TierError("planned", tier=self.name, operation="raise_markers", reason="planned")


async def test_what_the_authority_was_not_told_is_deferred_and_holds_here(clock: ManualClock) -> None:
    async with LLMCache(tiers=[Deaf(clock=clock)], clock=clock) as cache:
        await cache.set(REQUEST, "old")
        assert (await cache.invalidate(REQUEST)).deferred
        assert await cache.get(REQUEST) is None


async def test_strict_raises_what_the_authority_was_not_told(clock: ManualClock) -> None:
    async with LLMCache(tiers=[Deaf(clock=clock)], clock=clock, strict=True) as cache:
        await cache.set(REQUEST, "old")
        with pytest.raises(CacheClosedError, match="holds in this process"):
            await cache.invalidate(REQUEST)
        assert cache.get_nowait(REQUEST) is None


@pytest.mark.parametrize("usable", [True, False], ids=["deleted", "in the way"])
async def test_an_invalidation_after_the_folder_was_deleted_holds_or_says_deferred(
    tmp_path: Path, usable: bool
) -> None:
    folder = tmp_path / "cache"
    tiers = [f"disk://{folder}"]
    async with LLMCache(tiers=tiers) as cache:
        await cache.set(REQUEST, "old", tags=["doc"])
        await cache.flush()
        shutil.rmtree(folder)
        if not usable:
            folder.write_text("a file where the folder was")
        done = await cache.invalidate(tags=["doc"])
        assert done.deferred is not usable
        assert await cache.get(REQUEST) is None
        if usable:
            async with LLMCache(tiers=tiers) as other:
                # The store looks which file is at its place at each call: it made a new one and told that.
                told = await other.invalidate(tags=["another"])
                assert told.seq > done.seq
                assert await other.get(REQUEST) is None
