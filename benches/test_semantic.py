"""`await cache.resolve(request, compute)` of a question in other words, among 10,000 entries of one
partition.

Embedding is excluded: vectors are ready. They are drawn as MiniLM's lie: around 100 topics, a reworded
question at a cosine of 0.98 to its own. What was asked before is remembered taken apart, as its vector is; a
variant is asked as if for the first time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benches.figure import OURS, Figure, from_times
from benches.rounds import AsyncContender, interleave_async, pedantic_async
from llmcache_fast import LLMCache, SemanticOptions
from llmcache_fast._questions import Questions
from llmcache_fast.semantic.budget import Budget

SCAN = "numpy scan, cosine > 0.85"
FIRST = f"{OURS} (question taken apart anew)"
EXACT = "the same cache, the exact question"
DIMENSION = 384
ENTRIES = 10_000
TARGET = 200e-6
NEAR = 0.98
"""Cosine of a question to its other wording."""
THINGS = (
    "password account invoice printer router license subscription calendar mailbox keyboard monitor "
    "charger bicycle garden kitchen oven fridge window door carpet sofa lamp heater boiler piano "
    "guitar violin camera lens tripod battery engine gearbox brake tyre mirror wiper bumper trailer "
    "tent backpack compass boots"
).split()


def questions() -> list[tuple[str, str]]:
    """A question and its other wording, each about another pair of things and another step."""
    steps = ("reset", "clean", "replace", "order", "return", "repair")
    triples = itertools.product(steps, THINGS, THINGS)
    return [
        (f"How do I {step} the {one} of my {two}?", f"How can I {step} the {one} of my {two}?")
        for step, one, two in itertools.islice(triples, ENTRIES)
    ]


class Ready:
    """An embedder that has every vector already."""

    name = "ready"
    version = "1"
    dimension = DIMENSION

    def __init__(self) -> None:
        numbers = np.random.default_rng(7)
        topics = numbers.standard_normal((100, DIMENSION))
        self.vectors: dict[str, Any] = {}
        for at, (stored, asked) in enumerate(questions()):
            own = topics[at % 100] + 0.9 * numbers.standard_normal(DIMENSION)
            own /= np.linalg.norm(own)
            away = numbers.standard_normal(DIMENSION)
            away -= away @ own * own
            away /= np.linalg.norm(away)
            self.vectors[stored] = own.astype(np.float32)
            self.vectors[asked] = (NEAR * own + math.sqrt(1 - NEAR**2) * away).astype(np.float32)

    async def embed(self, texts: Sequence[str]) -> Any:
        return np.stack([self.vectors[text] for text in texts])


async def never() -> str:
    raise AssertionError("the entry is there")


def unchecked(*_: Any) -> bool:
    return False


def ask(text: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"model": "m", "messages": messages}


@asynccontextmanager
async def entrants() -> AsyncIterator[dict[str, AsyncContender]]:
    """A cache with all entries, and the recipe beside it."""
    embedder = Ready()
    pairs = questions()
    matrix = np.stack([embedder.vectors[stored] for stored, _ in pairs])
    answers = [f"answer {at}" for at in range(len(pairs))]

    async def scan(text: str) -> str:
        scores = matrix @ embedder.vectors[text]
        at = int(scores.argmax())
        assert scores[at] > 0.85
        return answers[at]

    chosen = random.Random(7).sample(pairs, 512)

    def each(call: Callable[[str], Awaitable[Any]]) -> Callable[[list[str]], Awaitable[None]]:
        async def run(batch: list[str]) -> None:
            for text in batch:
                await call(text)

        return run

    def asked(size: int) -> list[str]:
        return [random.choice(chosen)[1] for _ in range(size)]

    def stored(size: int) -> list[str]:
        return [random.choice(chosen)[0] for _ in range(size)]

    semantic = SemanticOptions(embedder=embedder)
    # A check is a call of the provider, in the background; it is no part of the hit.
    with mock.patch.object(Budget, "should_check", unchecked):
        async with LLMCache(memory="512MiB", ttl=None, semantic=semantic) as cache:
            for (text, _), answer in zip(pairs, answers, strict=True):
                await cache.set(ask(text), answer)
            for text, (_, other) in zip(answers[:50], pairs[:50], strict=True):
                result = await cache.resolve(ask(other), never)
                assert (result.status, result.value) == ("semantic", text)
            for _, other in chosen:
                assert (await cache.resolve(ask(other), never)).status == "semantic"
            semantics = cache._semantics
            assert semantics is not None

            async def first(batch: list[str]) -> None:
                with mock.patch.object(semantics, "_questions", Questions(cache, semantic, semantics.space)):
                    for text in batch:
                        semantics._questions.forget()
                        await cache.resolve(ask(text), never)

            yield {
                SCAN: AsyncContender(asked, each(scan)),
                OURS: AsyncContender(asked, each(lambda text: cache.resolve(ask(text), never))),
                FIRST: AsyncContender(asked, first),
                EXACT: AsyncContender(stored, each(lambda text: cache.resolve(ask(text), never))),
            }


def figures(rounds: int) -> Iterator[Figure]:
    async def measure() -> Figure:
        async with entrants() as contenders:
            times = await interleave_async(contenders, size=64, rounds=2 * rounds)
        took = times.ns(OURS)
        return from_times(
            f"a semantic hit end to end, embedding excluded, {ENTRIES:,} entries",
            times,
            SCAN,
            notes=[f"{took.median / 1e3:.0f} us, to reach: <= {TARGET * 1e6:.0f} us"],
        )

    yield asyncio.run(measure())


@pytest.mark.parametrize("name", [SCAN, OURS, FIRST, EXACT])
def test_semantic(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=64)
