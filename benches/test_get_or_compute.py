"""`await cache.get_or_compute(request, compute)` of an entry, given the 4.3 KB request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from blake3 import blake3
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps as langchain_dumps
from langchain_core.outputs import Generation

from benches.figure import OURS, Figure, from_times
from benches.peers import litellm_cache
from benches.rounds import AsyncContender, interleave_async, pedantic_async
from benches.test_fingerprint import langchain_messages
from benches.workloads import Request, chat_request, parsed_chat_request
from llmcache_fast import LLMCache, fingerprint

FINGERPRINT = "fingerprint alone"
RECIPE = "orjson+blake3+dict"
VALUE = "an answer of some length, as text. " * 57


async def compute() -> str:
    return VALUE


async def never() -> str:
    raise AssertionError("the entry is there")


def _each(call: Callable[[Any], Awaitable[Any]]) -> Callable[[list[Any]], Awaitable[None]]:
    async def run(batch: list[Any]) -> None:
        for item in batch:
            await call(item)

    return run


async def _fingerprint_each(batch: list[Request]) -> None:
    for request in batch:
        fingerprint(request)


@asynccontextmanager
async def entrants(make: Callable[[], Request] = chat_request) -> AsyncIterator[dict[str, AsyncContender]]:
    """All caches open and holding the answer to the request that `make` makes."""

    def prepare(size: int) -> list[Request]:
        return [make() for _ in range(size)]

    by_orjson: dict[bytes, str] = {}
    by_json: dict[str, str] = {}

    async def orjson_recipe(request: Request) -> str:
        key = blake3(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest()
        if (found := by_orjson.get(key)) is not None:
            return found
        by_orjson[key] = answer = await compute()
        return answer

    async def json_recipe(request: Request) -> str:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if (found := by_json.get(key)) is not None:
            return found
        by_json[key] = answer = await compute()
        return answer

    litellm, langchain = litellm_cache(), InMemoryCache()

    async def with_langchain(key: tuple[list[Any], str]) -> Any:
        return await langchain.alookup(langchain_dumps(key[0]), key[1])

    request = make()
    await orjson_recipe(request)
    await json_recipe(request)
    await litellm.async_add_cache({"content": VALUE}, **request)
    messages, parameters = langchain_messages(request)
    await langchain.aupdate(langchain_dumps(messages), parameters, [Generation(text=VALUE)])
    assert await litellm.async_get_cache(**make()) == {"content": VALUE}

    async with LLMCache(memory="64MiB", ttl=3600) as cache:
        await cache.get_or_compute(request, compute)
        assert await cache.get_or_compute(make(), never) == VALUE
        yield {
            FINGERPRINT: AsyncContender(prepare, _fingerprint_each),
            RECIPE: AsyncContender(prepare, _each(orjson_recipe)),
            OURS: AsyncContender(prepare, _each(lambda request: cache.get_or_compute(request, never))),
            "json+sha256+dict": AsyncContender(prepare, _each(json_recipe)),
            "litellm": AsyncContender(prepare, _each(lambda request: litellm.async_get_cache(**request))),
            "langchain-core": AsyncContender(
                lambda size: [langchain_messages(request) for request in prepare(size)], _each(with_langchain)
            ),
        }


SIZES = {"litellm": 5, "json+sha256+dict": 10, "langchain-core": 2}


def figures(rounds: int) -> Iterator[Figure]:
    # What is a hit was there before, so its texts were: as the same strings, or parsed anew into others.
    for make, strings, ahead in ((parsed_chat_request, "new", 1.5), (chat_request, "known", 2.5)):

        async def measure(
            make: Callable[[], Request] = make, strings: str = strings, ahead: float = ahead
        ) -> Figure:
            async with entrants(make) as contenders:
                times = await interleave_async(contenders, size=20, rounds=6 * rounds, sizes=SIZES)
            beyond = times.ns(OURS).median - times.ns(FINGERPRINT).median
            return from_times(
                f"await cache.get_or_compute(request, f), a hit, 4.3 KB request in {strings} strings",
                times,
                RECIPE,
                target=1 / ahead,
                notes=[
                    f"{1 / times.ratio(OURS, RECIPE).median:.2f}x ahead of {RECIPE} (to reach: {ahead}x)",
                    f"beyond the fingerprint: {beyond:.0f} ns (to reach: <= 300 ns)",
                ],
            )

        yield asyncio.run(measure())


@pytest.mark.parametrize("name", [FINGERPRINT, RECIPE, OURS, "json+sha256+dict", "litellm", "langchain-core"])
def test_get_or_compute(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=20)
