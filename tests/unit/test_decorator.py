"""`cache.cached`: the key is the function's identity and its arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from llmcache_fast import ConfigurationError, LLMCache
from llmcache_fast.testing import ManualClock


class Report(msgspec.Struct):
    text: str


@pytest.fixture
async def cache(anyio_backend: str) -> AsyncIterator[LLMCache]:
    async with LLMCache(clock=ManualClock(), jitter=0.0) as cache:
        yield cache


async def test_arguments_are_the_key_however_they_are_given(cache: LLMCache) -> None:
    calls: list[tuple[Any, ...]] = []

    @cache.cached
    async def double(number: int, *, times: int = 2) -> list[int]:
        """Doubles."""
        calls.append((number, times))
        return [number * times]

    assert await double(3) == await double(number=3) == await double(3, times=2) == [6]
    assert await double(3, times=3) == [9]
    assert calls == [(3, 2), (3, 3)]
    assert (vars(double)["__name__"], double.__doc__) == ("double", "Doubles.")
    with pytest.raises(TypeError):
        double(1, 2, 3)


async def test_functions_do_not_share(cache: LLMCache) -> None:
    @cache.cached
    async def one(x: int) -> str:
        return "one"

    @cache.cached
    async def other(x: int) -> str:
        return "other"

    assert (await one(1), await other(1), await one(1)) == ("one", "other", "one")


async def test_the_annotated_type_comes_back(cache: LLMCache) -> None:
    @cache.cached()
    async def analyse(code: str) -> Report:
        return Report(code.upper())

    assert [await analyse("x") for _ in range(2)] == [Report("X")] * 2


async def test_versions_and_ignored_arguments(cache: LLMCache) -> None:
    count = 0

    def make(version: int) -> Any:
        @cache.cached(version=version, ignore=["client"])
        async def ask(client: object, question: str) -> int:
            nonlocal count
            count += 1
            return count

        return ask

    first, second = make(1), make(2)
    assert await first(object(), "q") == 1, "what is ignored need not have a canonical form"
    assert await first(object(), "q") == 1
    assert await second(object(), "q") == 2


async def test_labels_name_arguments(cache: LLMCache) -> None:
    @cache.cached(label="code/{kind}", tags=["all"], ttl=None)
    async def analyse(code: str, kind: str = "style") -> str:
        return code

    await analyse("a")
    await analyse("a", "security")
    await cache.invalidate(label="code/style")
    requests = [analyse.request("a"), analyse.request("a", kind="security")]
    assert await cache.get_many(requests) == [None, "a"]
    await analyse.invalidate("a", "security")
    assert await cache.get_many(requests) == [None, None]


async def test_methods(cache: LLMCache) -> None:
    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        @cache.cached(ignore=["self"])
        async def ask(self, question: str) -> str:
            return f"{self.name} says {question}"

    assert await Agent("a").ask("x") == "a says x"
    assert await Agent("b").ask("x") == "a says x", "`self` was said not to count"


@pytest.mark.parametrize("ignore", [["nobody"], "client"])
async def test_wrong_uses_are_refused_at_once(cache: LLMCache, ignore: Any) -> None:
    async def ask(client: object) -> str:
        return ""

    with pytest.raises(ConfigurationError, match="ignore: "):
        cache.cached(ignore=ignore)(ask)
    with pytest.raises(ConfigurationError, match="not an async function"):
        cache.cached(lambda: None)  # type: ignore[arg-type,return-value]
