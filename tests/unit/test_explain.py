"""`explain`: what counts, by which rule, and what came near. Never a value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmcache_fast import LLMCache, UnkeyableRequestError
from llmcache_fast import _explain as explain_module
from llmcache_fast.testing import ManualClock

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "a secret"}, {"role": "user", "content": "hi"}],
    "temperature": 1.0,
    "stream": True,
    "seed": None,
}


@pytest.fixture
async def cache(anyio_backend: str) -> AsyncIterator[LLMCache]:
    async with LLMCache(clock=ManualClock(), profile="openai.chat") as cache:
        yield cache


async def test_each_field_has_its_rule(cache: LLMCache) -> None:
    told = cache.explain(CHAT)
    verdicts = {field.name: field.verdict for field in told.fields}
    assert verdicts == {
        "model": "in", "messages": "in", "temperature": "defaulted", "stream": "dropped", "seed": "defaulted"
    }  # fmt: skip
    assert all(field.rule for field in told.fields if field.verdict != "in")
    assert told.fingerprint == cache.fingerprint(CHAT).hex()
    assert (told.namespace, told.profile, told.stored) == ("default", "openai.chat", False)
    plain = cache.explain(CHAT, profile="generic", namespace="n")
    assert {field.name for field in plain.fields if field.verdict == "in"} == set(CHAT) - {"stream"}
    assert (plain.namespace, plain.profile) == ("n", "generic")


async def test_what_is_dropped_changes_nothing(cache: LLMCache) -> None:
    """The verdicts agree with the fingerprint, field by field."""
    for field in cache.explain(CHAT).fields:
        without = {name: value for name, value in CHAT.items() if name != field.name}
        same = cache.fingerprint(without) == cache.fingerprint(CHAT)
        assert same == (field.verdict != "in"), field.name


async def test_a_miss_names_the_nearest_and_what_differs(cache: LLMCache) -> None:
    await cache.set(CHAT, "x")
    await cache.set({"model": "other", "messages": []}, "x")
    messages = [CHAT["messages"][0], {"role": "user", "content": "hello"}]
    told = cache.explain({**CHAT, "messages": messages, "stream": False, "top_k": 5})
    assert told.nearest[0].fingerprint == cache.fingerprint(CHAT).hex()
    assert told.nearest[0].differs == ["messages[1].content", "top_k"]
    assert len(told.nearest) == 2
    assert "secret" not in repr(told)
    assert "hello" not in repr(told)


async def test_a_hit_needs_no_neighbours(cache: LLMCache) -> None:
    await cache.set(CHAT, "x")
    told = cache.explain(CHAT)
    assert told.stored
    assert told.nearest == []


async def test_requests_remembered_are_bounded(cache: LLMCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "RECENT", 3)
    for number in range(6):
        await cache.set({"n": number}, "x")
    assert len(cache._recent._fields) == 3
    kept = {near.fingerprint for near in cache.explain({"n": 9}).nearest}
    assert kept == {cache.fingerprint({"n": number}).hex() for number in (3, 4, 5)}


async def test_a_request_that_cannot_be_keyed_says_where(cache: LLMCache) -> None:
    with pytest.raises(UnkeyableRequestError) as caught:
        cache.explain({"messages": [{"content": float("nan")}]})
    assert caught.value.path == "messages[0].content"
