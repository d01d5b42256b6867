"""Vectors of questions: MiniLM through the actor, beside the same libraries called by hand; and n-grams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

import anyio
import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from benches.figure import OURS, Figure, from_times
from benches.rounds import AsyncContender, Contender, interleave, interleave_async, pedantic_async
from llmcache_fast.semantic import MiniLMEmbedder, NGramEmbedder
from llmcache_fast.semantic.embedders.bert import sentence_encoder
from llmcache_fast.semantic.embedders.minilm import weights
from llmcache_fast.semantic.embedding import EmbeddingActor

BASE = "ONNX Runtime by hand, one by one"
TOGETHER = "ONNX Runtime by hand, all in one batch"
WORDS = "how do i reset my password for the billing portal when does water boil why is sky blue".split()
SIZES = (8, 16, 64)
"""Batches to compare with the one that is shipped, 32."""


def questions(size: int) -> list[str]:
    """Of about ten words, none asked before."""
    return [" ".join(random.choices(WORDS, k=8)) + f" {random.random()}?" for _ in range(size)]


@cache
def _by_hand() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = sentence_encoder(weights())
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(weights() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()

    def embed(texts: list[str]) -> Any:
        encoded = [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(texts)
        ids = np.array([row.ids for row in encoded], np.int64)
        mask = np.array([row.attention_mask for row in encoded], np.int64)
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return embed


@asynccontextmanager
async def entrants() -> AsyncIterator[dict[str, AsyncContender]]:
    embed, embedder = _by_hand(), MiniLMEmbedder()

    async def one_by_one(batch: list[str]) -> None:
        for text in batch:
            embed([text])

    async def together(batch: list[str]) -> None:
        embed(batch)

    def through(actor: EmbeddingActor) -> AsyncContender:
        async def run(batch: list[str]) -> None:
            await asyncio.gather(*map(actor.vector, batch))

        return AsyncContender(questions, run)

    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(anyio.create_task_group())
        actors = {OURS: EmbeddingActor(embedder, budget=600)}
        actors |= {
            f"{OURS} (batches of {size})": EmbeddingActor(embedder, budget=600, max_batch=size)
            for size in SIZES
        }
        for actor in actors.values():
            await group.start(actor.run)
        known = AsyncContender(lambda size: ["asked before"] * size, through(actors[OURS]).run)
        yield {
            BASE: AsyncContender(questions, one_by_one),
            TOGETHER: AsyncContender(questions, together),
            **{name: through(actor) for name, actor in actors.items()},
            f"{OURS} (asked before)": known,
        }
        group.cancel_scope.cancel()


def figures(rounds: int) -> Iterator[Figure]:
    for size, told in ((1, "one question at a time"), (64, "64 questions at once")):

        async def measure(size: int = size, told: str = told) -> Figure:
            async with entrants() as contenders:
                times = await interleave_async(contenders, size=size, rounds=rounds)
            return from_times(f"MiniLM on one thread, {told}: a vector", times, BASE)

        yield asyncio.run(measure())

    ngrams = NGramEmbedder()
    texts = ["".join(random.choices("abcdefghij    klmnopqrstuvwxyz", k=200)) for _ in range(50)]

    def trigrams(text: str) -> set[str]:
        return {text[at : at + 3] for at in range(len(text) - 2)}

    contenders = {
        "set of its trigrams": Contender(lambda size: texts, lambda batch: [*map(trigrams, batch)]),
        OURS: Contender(lambda size: texts, lambda batch: [*map(ngrams.vector, batch)]),
    }
    times = interleave(contenders, size=len(texts), rounds=rounds)
    yield from_times("near-exact vector of 200 characters", times, "set of its trigrams")


@pytest.mark.parametrize("name", [BASE, TOGETHER, OURS])
def test_64_questions(benchmark: Any, name: str) -> None:
    pedantic_async(benchmark, entrants, name, size=64)
