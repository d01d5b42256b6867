"""What a call may insist on, whoever else asks the same at the same time; and what is left behind."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, Recorder, SemanticOptions
from llmcache_fast.semantic import NGramEmbedder
from tests.concurrency.test_semantics import (
    SAME,
    STORED,
    Angles,
    Provider,
    ask,
    is_kept,
    never,
    options,
    settled,
)


class Held(Angles):
    """An embedder that waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = anyio.Event()

    async def embed(self, texts: Any) -> list[list[float]]:
        await self.free.wait()
        return await super().embed(texts)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._semantics.Budget.should_check", lambda *_: True)


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._semantics.Budget.should_check", lambda *_: False)


@pytest.mark.usefixtures("no_checks")
@pytest.mark.parametrize("least", [False, 0.9999])
async def test_who_joins_a_flight_is_given_no_answer_it_does_not_want(least: Any) -> None:
    embedder = Held()
    provider = Provider("of its own")
    found: dict[str, Any] = {}
    async with LLMCache(semantic=options(embedder)) as cache:
        embedder.free.set()
        await cache.set(ask(STORED), "of the other")
        embedder.free = anyio.Event()

        async def call(name: str, **fields: Any) -> None:
            found[name] = await cache.resolve(ask(SAME), provider, **fields)

        async with anyio.create_task_group() as group:
            group.start_soon(call, "any")
            await anyio.wait_all_tasks_blocked()
            assert cache.stats().flights["running"] == 1
            group.start_soon(lambda: call("strict", semantic=least))
            await anyio.wait_all_tasks_blocked()
            embedder.free.set()
    assert (found["any"].status, found["any"].value) == ("semantic", "of the other")
    assert found["strict"].status != "semantic"
    assert found["strict"].value == "of its own"
    assert provider.count == 1


@pytest.mark.usefixtures("checks")
async def test_who_comes_behind_a_checked_answer_is_not_given_it_either() -> None:
    free = anyio.Event()

    async def slow() -> str:
        await free.wait()
        return "of its own"

    async with LLMCache(semantic=options(Angles())) as cache:
        await cache.set(ask(STORED), "of the other")
        first = await cache.resolve(ask(SAME), slow)
        assert (first.status, cache.stats().flights["running"]) == ("semantic", 1)
        strict = await cache.resolve(ask(SAME), Provider("of its own"), semantic=False)
        assert strict.value == "of its own"
        free.set()
        await settled(cache)


async def test_a_near_exact_match_has_a_least_score_too() -> None:
    spaced = STORED.replace(" my", "  my")
    async with LLMCache(semantic=SemanticOptions(embedder=NGramEmbedder())) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(spaced), never)).status == "semantic"
        strict = await cache.resolve(ask(spaced), Provider("anew"), semantic=0.9999)
        assert (strict.status, strict.value) == ("miss", "anew")


def pending(cache: LLMCache) -> int:
    """Checks of the default namespace that have no outcome yet."""
    assert cache._semantics is not None
    (budget,) = cache._semantics._evidence._budgets.values()
    return len(budget._pending)


@pytest.mark.parametrize("gives_up", [True, False])
async def test_a_check_that_cannot_be_made_is_given_up(
    monkeypatch: pytest.MonkeyPatch, gives_up: bool
) -> None:
    """The first hits are all checked. Were none given up, they would wait for ever."""
    if not gives_up:
        monkeypatch.setattr("llmcache_fast._inquiry.Inquiry.abandon", lambda _: None)

    async def failing() -> str:
        raise ValueError

    async with LLMCache(semantic=options(Angles())) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(SAME), never, only_if_cached=True)).status == "semantic"
        await settled(cache)
        assert pending(cache) == (0 if gives_up else 1)
        assert (await cache.resolve(ask(SAME), failing)).status == "semantic"
        await settled(cache)
        assert pending(cache) == (0 if gives_up else 2)


@pytest.mark.usefixtures("no_checks")
async def test_a_cancelled_erasure_leaves_no_text_that_was_kept_for_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with LLMCache(semantic=options(Angles())) as cache:
        await cache.set(ask(STORED), "stored", tags=["t"])
        await cache.resolve(ask(SAME), never)
        monkeypatch.setattr(cache._erasures, "erase", lambda *_: anyio.sleep_forever())
        with anyio.CancelScope() as scope:
            scope.cancel()
            await cache.erase(tags=["t"])
        assert scope.cancelled_caught
        assert not any(map(is_kept, [SAME, STORED]))


async def test_the_check_of_a_stream_that_fails_is_given_up() -> None:
    async def recorded(recorder: Recorder) -> None:
        recorder.begin(b"head")
        recorder.write(b"In the settings.")
        recorder.commit()

    async def failing(_: Recorder) -> None:
        raise ValueError

    async with LLMCache(semantic=options(Angles())) as cache:
        for text, source, status in ((STORED, recorded, "miss"), (SAME, failing, "semantic")):
            async with await cache.stream(ask(text), source) as reader:
                assert reader.status == status
                assert [chunk async for chunk in reader] == [b"In the settings."]
        await settled(cache)
        assert pending(cache) == 0
