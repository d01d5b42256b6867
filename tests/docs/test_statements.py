"""Statements of the documentation that no example on a page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from llmcache_fast import LLMCache, NotCachedError, PriceTable
from llmcache_fast._options import _ENVIRONMENT, from_environment

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


async def answer() -> str:
    return "answer"


async def test_an_error_in_the_body_leaves_the_cache_as_it_was() -> None:
    async def body() -> None:
        async with LLMCache() as cache:
            await cache.get_or_compute({"q": 1}, answer)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # not a group of one
        await body()


async def test_an_expired_entry_is_not_fresh_from_that_moment_on() -> None:
    # By the machine's clock: a tick of it must not keep the entry fresh.
    async with LLMCache(stale_if_error=60) as cache:
        for number in range(50):
            await cache.set({"q": number}, "answer")
            assert await cache.expire({"q": number})
            assert await cache.get({"q": number}) is None
            assert cache.get_nowait({"q": number}) is None


async def test_only_if_cached_never_computes_in_another_event_loop_either() -> None:
    async with LLMCache() as cache:

        async def elsewhere() -> None:
            with pytest.raises(NotCachedError):
                await cache.get_or_compute({"q": 1}, answer, only_if_cached=True)

        await anyio.to_thread.run_sync(anyio.run, elsewhere)
        assert cache.stats().computations == 0


async def test_a_hit_is_counted_once_whatever_verb_it_came_by() -> None:
    async def source(recorder: Any) -> None:
        recorder.write(b"chunk")
        recorder.commit()

    async with LLMCache() as cache:
        for _ in range(4):
            async with await cache.stream({"q": 1}, source) as reader:
                assert [chunk async for chunk in reader] == [b"chunk"]
        for _ in range(4):
            await cache.get_or_compute({"q": 2}, answer)
            await cache.resolve({"q": 2}, answer)
        await cache.get_or_compute({"q": 2}, answer, only_if_cached=True)
        stats = cache.stats()
    assert (stats.hits, stats.misses) == (11, 2)


def test_the_price_table_may_be_named_beside_the_other_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"dated": "2026-01-31", "models": {"house-model": {"input": 2.5}}}))
    assert from_environment({"LLMCACHE_PRICES": str(table), "LLMCACHE_TTL": "60"}) == {"ttl": 60.0}
    monkeypatch.setenv("LLMCACHE_PRICES", str(table))
    assert PriceTable.shipped().price("house-model") is not None


def test_the_configuration_page_names_every_variable_and_option() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text()
    options = LLMCache.__init__.__kwdefaults__ or {}
    for name in [*_ENVIRONMENT, "LLMCACHE_PRICES", *options]:
        assert f"`{name}`" in page, f"configuration.md does not name {name}"


def test_the_error_page_names_every_public_error() -> None:
    import llmcache_fast

    page = (DOCS / "reference" / "errors.md").read_text()
    for name in llmcache_fast.__all__:
        kind: Any = getattr(llmcache_fast, name)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            assert f"`{name}`" in page, f"errors.md does not name {name}"


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"/(work|tmp|root|home)/", text), "names a place of some machine"
    assert not re.search(r"\{\{|TODO|FIXME", text), "is unfinished"
