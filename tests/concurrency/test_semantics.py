"""A whole cache that matches meaning: what is answered with the answer to other words, and what never is.

Vectors are given, so that only guards, verifier and budget decide; `tests/integrations/test_semantic_hits.py`
has the real ones.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    Comparison,
    ConfigurationError,
    LLMCache,
    NotCachedError,
    Recorder,
    Secrecy,
    SemanticOptions,
)
from llmcache_fast._questions import Asked, Stored
from llmcache_fast.testing import ManualClock

STORED = "How do I reset my account password?"
SAME = "How can I reset my account password?"
OTHER_NUMBER = "How do I reset my 3 account passwords?"
UNLIKE = "What is the tallest mountain of Africa?"

ANGLES = {STORED: 0.0, SAME: 0.1, OTHER_NUMBER: 0.05, UNLIKE: 1.5}
"""By angle, in radians: the cosine of 0.1 is 0.995."""


class Angles:
    """An embedder of two dimensions: each text has an angle of its own."""

    name = "angles"
    version = "1"
    dimension = 8

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.error: Exception | None = None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.texts += texts
        angles = [ANGLES.get(text, 0.02) for text in texts]
        return [[math.cos(angle), math.sin(angle), *[0.0] * 6] for angle in angles]


def ask(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"model": "m", "messages": messages, **fields}


async def never() -> str:
    raise AssertionError("there is an answer")


class Provider:
    """Answers, and counts."""

    def __init__(self, answer: str = "In the settings.") -> None:
        self.answer = answer
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        await anyio.lowlevel.checkpoint()
        return self.answer


@pytest.fixture
def embedder() -> Angles:
    return Angles()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether hits are checked: not, unless a test says so, for chance decides."""
    checked: list[bool] = []
    monkeypatch.setattr("llmcache_fast._semantics.Budget.should_check", lambda *_: bool(checked))
    return checked


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def options(embedder: Angles, **given: Any) -> SemanticOptions:
    return SemanticOptions(embedder=embedder, **{"judge": yes, **given})


async def yes(_: Comparison) -> bool:
    return True


async def settled(cache: LLMCache) -> None:
    """Return when nothing is computed any more, and what was compared is counted."""
    await anyio.wait_all_tasks_blocked()
    assert cache.stats().flights["running"] == 0


async def test_other_words_are_answered_without_a_call(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        first = await cache.resolve(ask(STORED), provider)
        again = await cache.resolve(ask(SAME), provider)
        assert (first.status, again.status, again.value) == ("miss", "semantic", "In the settings.")
        assert provider.count == 1
        assert again.tier == "memory"
        match = again.semantic
        assert match is not None
        assert match.served
        assert match.stage == "accepted"
        assert match.fingerprint == cache.fingerprint(ask(STORED))
        assert match.cosine == pytest.approx(math.cos(0.1), abs=2e-3)
        assert await cache.get_or_compute(ask(SAME), provider) == "In the settings."
        stats = cache.stats()
        assert stats.semantic is not None
        assert stats.semantic.served == 2
        assert stats.semantic.vectors == 1
        assert stats.hit_rate == pytest.approx(2 / 3)


async def test_the_exact_answer_comes_first(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "of the other")
        await cache.set(ask(SAME), "of its own")
        assert await cache.get_or_compute(ask(SAME), provider) == "of its own"
        assert cache.stats().semantic.served == 0  # type: ignore[union-attr]


async def test_a_guard_refuses_what_asks_something_else(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        result = await cache.resolve(ask(OTHER_NUMBER), provider)
        assert result.status == "miss"
        assert result.semantic is not None
        assert (result.semantic.served, result.semantic.stage) == (False, "guards")
        assert "numbers" in result.semantic.guards
        assert cache.stats().semantic.stages == {"guards": 1}  # type: ignore[union-attr]


async def test_what_is_far_is_not_looked_at(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        result = await cache.resolve(ask(UNLIKE), provider)
        assert (result.status, result.semantic) == ("miss", None)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"temperature": 0.2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": SAME}]},
        {"messages": [{"role": "user", "content": SAME}]},
    ],
)
async def test_requests_that_differ_elsewhere_never_meet(
    embedder: Angles, provider: Provider, other: dict[str, Any]
) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        result = await cache.resolve({**ask(SAME), **other}, provider)
        assert (result.status, result.semantic) == ("miss", None)


async def test_namespaces_and_variants_never_meet(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        for apart in ({"namespace": "tenant"}, {"variant": 2}, {"profile": "openai.chat"}):
            result = await cache.resolve(ask(SAME), provider, **apart)
            assert (result.status, result.semantic) == ("miss", None), apart
            await cache.get_or_compute(ask(UNLIKE), provider, **apart)
        assert await cache.get_or_compute(ask(SAME + "!"), provider, namespace="tenant") == "In the settings."


async def test_what_is_no_more_is_not_served(embedder: Angles, provider: Provider) -> None:
    clock = ManualClock()
    async with LLMCache(semantic=options(embedder), clock=clock, jitter=0) as cache:
        for undo in ("invalidate", "erase", "delete", "expire"):
            await cache.set(ask(STORED), "stored", tags=["t"], ttl=10)
            if undo == "invalidate":
                await cache.invalidate(tags=["t"])
            elif undo == "erase":
                await cache.erase(tags=["t"])
                assert cache.stats().semantic.vectors == 0  # type: ignore[union-attr]
            elif undo == "delete":
                await cache.delete(ask(STORED))
            else:
                clock.advance(11)
            assert (await cache.resolve(ask(SAME), provider, store=False)).status == "miss", undo


async def test_a_call_may_only_tighten(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(SAME), provider, semantic=False, store=False)).status == "miss"
        assert (await cache.resolve(ask(SAME), provider, semantic=1.0, store=False)).status == "miss"
        assert (await cache.resolve(ask(SAME), provider, semantic=0.0)).status == "semantic"
        with pytest.raises(ConfigurationError, match="semantic"):
            await cache.resolve(ask(SAME), provider, semantic="yes")


async def test_the_start_is_strict(embedder: Angles, provider: Provider) -> None:
    """Without a judge and without evidence only what has the same content words is served, and that no more
    from the first wrong answer on."""
    reworded = "I forgot the password of my account, how do I reset it?"
    async with LLMCache(semantic=options(embedder, judge=None)) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(SAME), provider)).status == "semantic"
        unsure = await cache.resolve(ask(reworded), provider, store=False)
        assert unsure.semantic is not None
        assert (unsure.status, unsure.semantic.stage) == ("miss", "budget")
        await cache.report_wrong(await cache.resolve(ask(SAME), provider))
        await cache.set(ask(STORED), "stored again")
        later = "How should I reset my account password?"
        assert (await cache.resolve(ask(later), provider)).status == "miss"


async def test_shadow_mode_serves_nothing_and_says_so(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder, mode="shadow")) as cache:
        await cache.set(ask(STORED), "In the settings.")
        result = await cache.resolve(ask(SAME), provider)
        assert (result.status, provider.count) == ("miss", 1)
        assert result.semantic is not None
        assert (result.semantic.served, result.semantic.stage) == (False, "accepted")
        await settled(cache)
        stats = cache.stats().semantic
        assert stats is not None
        assert (stats.served, stats.checks, stats.wrong) == (0, 1, 0)


async def test_off_is_off(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder, mode="off")) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(SAME), provider)).status == "miss"
        assert embedder.texts == []
        assert cache.stats().semantic is None


async def test_a_checked_hit_asks_the_provider_behind_its_answer(
    embedder: Angles, checked: list[bool]
) -> None:
    checked.append(True)
    provider = Provider("Something else entirely.")
    judged: list[Comparison] = []

    async def judge(comparison: Comparison) -> bool:
        judged.append(comparison)
        return comparison.fresh is None or comparison.fresh == comparison.answer

    async with LLMCache(semantic=options(embedder, judge=judge)) as cache:
        await cache.set(ask(STORED), "In the settings.")
        assert (await cache.resolve(ask(SAME), provider)).value == "In the settings."
        await settled(cache)
        assert provider.count == 1
        stats = cache.stats().semantic
        assert stats is not None
        assert (stats.checks, stats.wrong) == (1, 1)
        last = judged[-1]
        assert (last.asked, last.stored, last.answer, last.fresh) == (
            SAME,
            STORED,
            "In the settings.",
            "Something else entirely.",
        )
        assert SAME not in repr(last)
        # What was paid for is kept: the next time there is an exact answer.
        assert (await cache.resolve(ask(SAME), provider)).status == "hit"


async def test_a_judge_that_refuses_or_fails_costs_a_call_and_nothing_else(
    embedder: Angles, provider: Provider
) -> None:
    async def no(_: Comparison) -> bool:
        return False

    async def broken(_: Comparison) -> bool:
        raise RuntimeError(STORED)

    near = "I forgot the password of my account, how do I reset it?"
    for judge in (no, broken):
        async with LLMCache(semantic=options(embedder, judge=judge)) as cache:
            await cache.set(ask(STORED), "stored")
            result = await cache.resolve(ask(near), provider)
            assert result.value == "In the settings."
            assert result.semantic is not None
            assert result.semantic.stage == ("judge" if judge is no else "budget")


async def test_a_hit_that_was_wrong_is_taken_back_for_ever(
    embedder: Angles, provider: Provider, tmp_path: Path
) -> None:
    tiers = [f"disk://{tmp_path}"]
    async with LLMCache(semantic=options(embedder), tiers=tiers) as cache:
        await cache.set(ask(STORED), "wrong for the other")
        result = await cache.resolve(ask(SAME), provider)
        assert result.status == "semantic"
        assert await cache.report_wrong(result)
        assert await cache.get(ask(STORED)) is None
        await cache.set(ask(STORED), "stored again")
        again = await cache.resolve(ask(SAME), provider, store=False)
        assert again.status == "miss"
        assert again.semantic is not None
        assert again.semantic.stage in ("blocked", "budget", "verifier")
        with pytest.raises(ConfigurationError, match="miss"):
            await cache.report_wrong(again)
        await cache.flush()
    async with LLMCache(semantic=options(embedder), tiers=tiers) as other:
        await other.set(ask(STORED), "and again")
        assert (await other.resolve(ask(SAME), provider, store=False)).status == "miss"


async def test_an_embedder_that_fails_costs_no_call(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        embedder.error = RuntimeError(STORED)
        assert (await cache.resolve(ask(STORED), provider)).status == "miss"
        assert (await cache.resolve(ask(STORED), provider)).status == "hit"
        assert (await cache.resolve(ask(SAME), provider)).status == "miss"
        assert cache.stats().semantic.embedding_failures == 2  # type: ignore[union-attr]


async def test_streams_are_matched_too(embedder: Angles) -> None:
    ran = 0

    async def source(recorder: Recorder) -> None:
        nonlocal ran
        ran += 1
        recorder.begin(b"head")
        recorder.write(b"In the ")
        recorder.write(b"settings.")
        recorder.commit()

    async with LLMCache(semantic=options(embedder)) as cache:
        seen = []
        for text in (STORED, SAME):
            async with await cache.stream(ask(text), source) as reader:
                seen.append((reader.status, reader.head, [chunk async for chunk in reader]))
        chunks = [b"In the ", b"settings."]
        assert seen == [("miss", b"head", chunks), ("semantic", b"head", chunks)]
        assert ran == 1
        # A recording is no value.
        assert (await cache.resolve(ask(SAME), Provider(), store=False)).status == "miss"


async def test_many_callers_need_one_vector(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        embedder.texts.clear()

        async def call() -> None:
            await cache.get_or_compute(ask(SAME), provider)

        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(call)
        assert (provider.count, embedder.texts) == (0, [SAME])


async def test_only_if_cached_takes_other_words_too(embedder: Angles, provider: Provider) -> None:
    async with LLMCache(semantic=options(embedder)) as cache:
        await cache.set(ask(STORED), "stored")
        assert (await cache.resolve(ask(SAME), provider, only_if_cached=True)).status == "semantic"
        with pytest.raises(NotCachedError):
            await cache.resolve(ask(UNLIKE), provider, only_if_cached=True)


async def test_the_decorator_says_which_argument_is_the_question(embedder: Angles) -> None:
    ran: list[str] = []
    async with LLMCache(semantic=options(embedder)) as cache:

        @cache.cached(question="question")
        async def answer(question: str, language: str) -> str:
            ran.append(question)
            return f"{language} answer"

        assert await answer(STORED, "en") == await answer(SAME, "en")
        assert await answer(SAME, "de") == "de answer"
        assert ran == [STORED, SAME]
        with pytest.raises(ConfigurationError, match="question"):
            cache.cached(question="none")(never)


@pytest.mark.parametrize("sealed", [False, True])
async def test_another_process_finds_it_in_the_tier(
    embedder: Angles, provider: Provider, tmp_path: Path, sealed: bool
) -> None:
    secrecy = Secrecy(bytes(range(32)), blinding=bytes(range(1, 33))) if sealed else None
    shared: dict[str, Any] = {"tiers": [f"disk://{tmp_path}"], "secrecy": secrecy}
    async with LLMCache(semantic=options(embedder), **shared) as cache:
        await cache.get_or_compute(ask(STORED), provider)
        await cache.flush()
        async with LLMCache(semantic=options(embedder), **shared) as other:
            result = await other.resolve(ask(SAME), provider)
            assert (result.status, result.tier, provider.count) == ("semantic", "disk", 1)
            assert (await other.resolve(ask(SAME), provider)).tier == "memory"
            await other.invalidate(ask(STORED))
            assert (await other.resolve(ask(SAME), provider, store=False)).status == "miss"
    if sealed:
        assert STORED.encode() not in all_bytes(tmp_path)


async def test_vectors_of_another_embedder_never_meet(provider: Provider, tmp_path: Path) -> None:
    class Newer(Angles):
        version = "2"

    tiers = [f"disk://{tmp_path}"]
    async with LLMCache(semantic=options(Angles()), tiers=tiers) as cache:
        await cache.get_or_compute(ask(STORED), provider)
        await cache.flush()
    async with LLMCache(semantic=options(Newer()), tiers=tiers) as cache:
        assert (await cache.resolve(ask(SAME), provider)).semantic is None


async def test_an_erasure_leaves_no_text_that_was_kept_for_speed(
    embedder: Angles, provider: Provider
) -> None:
    async with LLMCache(semantic=options(embedder, judge=None)) as cache:
        await cache.set(ask(STORED), "stored", tags=["t"])
        assert (await cache.resolve(ask(SAME), provider)).status == "semantic"
        held = [SAME, STORED]
        assert {text for text in held if is_kept(text)} == set(held)
        await cache.erase(tags=["t"])
        assert not any(map(is_kept, held))


def is_kept(text: str) -> bool:
    """Whether a question of that text is kept taken apart anywhere."""
    gc.collect()
    return any(isinstance(each, Asked | Stored) and each.text == text for each in gc.get_objects())
