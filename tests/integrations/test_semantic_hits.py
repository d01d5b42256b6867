"""Real questions, real vectors, real SDK: what other words are answered with, and what never is."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from openai import AsyncOpenAI

from llmcache_fast import LLMCache, SemanticOptions
from llmcache_fast.integrations import wrap
from llmcache_fast.semantic import MiniLMEmbedder, NGramEmbedder
from tests.integrations.conftest import Upstream

pytestmark = pytest.mark.anyio

EMBEDDER = MiniLMEmbedder()

REWORDED = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("How long should I boil an egg?", "how long do I boil an egg"),
    ("What are the opening hours of the museum?", "What are the museum's opening hours?"),
]
OTHER = [
    ("Is it safe to take 2 tablets a day?", "Is it safe to take 4 tablets a day?"),
    ("What was the revenue in March 2023?", "What was the revenue in March 2024?"),
    ("Who is the mayor of Hamburg?", "Who is the mayor of Munich?"),
    ("Can I eat cheese during pregnancy?", "Can I not eat cheese during pregnancy?"),
    ("How do I get from Oslo to Bergen?", "How do I get from Bergen to Oslo?"),
    ("How far is 10 km?", "How far is 10 miles?"),
    ("Why did the war start?", "When did the war start?"),
    ("Is the shop open on Sundays?", "Is the shop closed on Sundays?"),
    ("What does `git push` do?", "What does `git pull` do?"),
]


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


async def answer() -> str:
    await anyio.lowlevel.checkpoint()
    return "An answer."


@pytest.mark.parametrize(("stored", "asked"), REWORDED)
async def test_rewordings_beyond_doubt_are_answered_from_the_start(stored: str, asked: str) -> None:
    async with LLMCache(semantic=SemanticOptions(embedder=EMBEDDER)) as cache:
        await cache.get_or_compute(ask(stored), answer)
        result = await cache.resolve(ask(asked), answer)
        assert result.status == "semantic", result.semantic


@pytest.mark.parametrize(("stored", "asked"), OTHER)
async def test_other_questions_never_are(stored: str, asked: str) -> None:
    async with LLMCache(semantic=SemanticOptions(embedder=EMBEDDER, false_hit_budget=0.2)) as cache:
        await cache.get_or_compute(ask(stored), answer)
        result = await cache.resolve(ask(asked), answer)
        assert result.status == "miss"
        assert result.semantic is None or result.semantic.stage == "guards"


async def test_without_a_model_spelling_alone_is_matched() -> None:
    async with LLMCache(semantic=SemanticOptions(embedder=NGramEmbedder())) as cache:
        await cache.get_or_compute(ask("How do I reset my password?"), answer)
        assert (await cache.resolve(ask("how do I  reset my password"), answer)).status == "semantic"
        assert (await cache.resolve(ask("How can I reset my password?"), answer)).status == "miss"
        assert (await cache.resolve(ask("How do I reset my passwords?"), answer)).status == "miss"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_sdk_gets_the_answer_to_other_words(upstream: Upstream, stream: bool) -> None:
    stored, asked = REWORDED[0]
    async with LLMCache(semantic=SemanticOptions(embedder=EMBEDDER)) as cache:
        client = wrap(AsyncOpenAI(base_url=upstream.v1, api_key="sk-test", max_retries=0), cache)
        async with client:
            seen = []
            for text in (stored, asked):
                reply = await client.chat.completions.with_raw_response.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": text}], stream=stream
                )
                parsed: Any = reply.parse()
                said = [chunk.model_dump() async for chunk in parsed] if stream else parsed.model_dump()
                seen.append((reply.headers["x-llmcache"], said))
            assert [status for status, _ in seen] == ["miss", "semantic"]
            assert seen[0][1] == seen[1][1]
            other = await client.chat.completions.with_raw_response.create(
                model="gpt-4o", messages=[{"role": "user", "content": asked}], stream=stream
            )
            assert other.headers["x-llmcache"] == "miss"


async def test_an_embedding_is_of_its_own_text_alone(upstream: Upstream) -> None:
    async with LLMCache(semantic=SemanticOptions(embedder=EMBEDDER)) as cache:
        client = wrap(AsyncOpenAI(base_url=upstream.v1, api_key="sk-test", max_retries=0), cache)
        async with client:
            for text in REWORDED[0]:
                reply = await client.embeddings.with_raw_response.create(model="embedder", input=text)
                assert reply.headers["x-llmcache"] == "miss"
