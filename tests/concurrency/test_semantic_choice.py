"""Which of several near questions is answered: the nearest that may ask the same."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast import LLMCache
from tests.concurrency.test_semantics import (
    ANGLES,
    OTHER_NUMBER,
    STORED,
    Angles,
    Provider,
    ask,
    never,
    options,
)

ASKED = "How can I reset my account password?"
NEARER = "How should I reset my account password?"


@pytest.fixture(autouse=True)
def placed(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, angle in {ASKED: 0.0, OTHER_NUMBER: 0.01, NEARER: 0.05, STORED: 0.1}.items():
        monkeypatch.setitem(ANGLES, text, angle)
    monkeypatch.setattr("llmcache_fast._semantics.Budget.should_check", lambda *_: False)


async def stored(cache: LLMCache, *texts: str) -> None:
    for text in texts:
        await cache.set(ask(text), f"to {text}")


async def test_the_nearest_without_an_objection_answers() -> None:
    async with LLMCache(semantic=options(Angles())) as cache:
        await stored(cache, STORED, OTHER_NUMBER, NEARER)
        assert await cache.get_or_compute(ask(ASKED), never) == f"to {NEARER}"
        assert cache.stats().semantic.stages == {"guards": 1, "accepted": 1}  # type: ignore[union-attr]


async def test_where_guards_object_to_all_the_nearest_is_told() -> None:
    async with LLMCache(semantic=options(Angles())) as cache:
        await stored(cache, OTHER_NUMBER)
        result = await cache.resolve(ask(ASKED), Provider())
        assert result.status == "miss"
        assert result.semantic is not None
        assert (result.semantic.stage, result.semantic.guards) == ("guards", ("numbers",))


async def test_what_decides_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the verifier refuses hides those behind it: a better score farther off is wrong more often."""
    async with LLMCache(semantic=options(Angles())) as cache:
        await stored(cache, STORED, NEARER)
        scores: list[Any] = []

        def decide(_: Any, score: float, entry: bytes) -> str:
            scores.append(score)
            return "accept" if entry == cache.fingerprint(ask(STORED)) else "reject"

        monkeypatch.setattr("llmcache_fast._semantics.Budget.decide", decide)
        result = await cache.resolve(ask(ASKED), Provider())
        assert (result.status, len(scores)) == ("miss", 1)
        assert result.semantic is not None
        assert result.semantic.fingerprint == cache.fingerprint(ask(NEARER))


async def test_after_a_report_the_next_nearest_answers() -> None:
    async with LLMCache(semantic=options(Angles())) as cache:
        await stored(cache, STORED, NEARER)
        first = await cache.resolve(ask(ASKED), never)
        assert first.value == f"to {NEARER}"
        await cache.report_wrong(first)
        await stored(cache, NEARER)
        again = await cache.resolve(ask(ASKED), never)
        assert again.value == f"to {STORED}"


async def test_at_the_start_the_same_words_asked_otherwise_are_not_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    should, can = "Should I reset my account password?", "Can I reset my account password?"
    for text in (should, can, STORED):
        monkeypatch.setitem(ANGLES, text, 0.0)
    async with LLMCache(semantic=options(Angles(), judge=None)) as cache:
        await stored(cache, should)
        assert (await cache.resolve(ask(can), Provider())).status == "miss"
        await cache.delete(ask(can))
        await cache.delete(ask(should))
        await stored(cache, STORED)
        assert (await cache.resolve(ask(ASKED), never)).status == "semantic"
