"""What an embedder promises (`semantic/embedder.py`): a vector for each text, in order, whoever else asks."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from openai import AsyncOpenAI

from llmcache_fast.cli.upstream import DemoUpstream
from llmcache_fast.semantic import (
    CallableEmbedder,
    Embedder,
    MiniLMEmbedder,
    NGramEmbedder,
    OnnxEmbedder,
    OpenAIEmbedder,
    SentenceTransformerEmbedder,
)
from llmcache_fast.semantic.embedder import space_of, vectors_of
from llmcache_fast.testing import FakeEmbedder, FaultyEmbedder
from tests.unit.semantic import models
from tests.unit.semantic.test_sentence import Model

TEXTS = ["a b c", "d e", "f", "why is the sky blue", "a b c d e f g h i", "g"]
KINDS = ["fake", "faulty", "callable", "openai", "onnx", "minilm", "sentence", "ngram"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with DemoUpstream() as server:
        yield server.url + "/v1"


@pytest.fixture(scope="module")
def minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder()


@pytest.fixture
async def client(upstream: str, anyio_backend: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=upstream, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(params=KINDS)
def embedder(request: pytest.FixtureRequest, client: AsyncOpenAI, tmp_path: Path) -> Any:
    match request.param:
        case "fake":
            return FakeEmbedder()
        case "faulty":
            return FaultyEmbedder(FakeEmbedder())
        case "callable":
            return CallableEmbedder(FakeEmbedder().embed, name="mine", version="1", dimension=384)
        case "openai":
            return OpenAIEmbedder(client, "demo", dimension=8)
        case "onnx":
            return OnnxEmbedder(models.make(tmp_path))
        case "minilm":
            return request.getfixturevalue("minilm")
        case "sentence":
            return SentenceTransformerEmbedder(Model(), version="1")
        case _:
            return NGramEmbedder()


async def vectors(embedder: Any, texts: list[str]) -> list[tuple[float, ...]]:
    found = vectors_of(await embedder.embed(texts), len(texts), embedder)
    return [struct.unpack(f"<{embedder.dimension}f", vector) for vector in found if vector is not None]


def near(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> bool:
    assert len(one) == len(other)
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(one, other, strict=True))


async def test_it_is_an_embedder_with_a_space_of_its_own(embedder: Any) -> None:
    assert isinstance(embedder, Embedder)
    assert len(space_of(embedder)) == 16


async def test_together_is_as_one_by_one_in_any_order(embedder: Any) -> None:
    alone = [(await vectors(embedder, [text]))[0] for text in TEXTS]
    assert near(await vectors(embedder, TEXTS), alone)
    assert near(await vectors(embedder, TEXTS[::-1]), alone[::-1])


async def test_a_text_has_one_vector_however_often_it_is_asked_for(embedder: Any) -> None:
    found = await vectors(embedder, [TEXTS[0], TEXTS[1], TEXTS[0]])
    assert near(found[:1], found[2:])


async def test_nothing_asked_is_nothing_got(embedder: Any) -> None:
    assert await vectors(embedder, []) == []


async def test_any_number_may_ask_at_once(embedder: Any) -> None:
    expected = await vectors(embedder, TEXTS)
    found: dict[int, list[tuple[float, ...]]] = {}

    async def ask(number: int) -> None:
        found[number] = await vectors(embedder, [TEXTS[number % len(TEXTS)]])

    async with anyio.create_task_group() as group:
        for number in range(18):
            group.start_soon(ask, number)
    for number, rows in found.items():
        assert near(rows, [expected[number % len(TEXTS)]])


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
async def test_a_cancelled_call_harms_no_other(embedder: Any, rounds: int) -> None:
    expected = await vectors(embedder, TEXTS)
    found: list[tuple[float, ...]] = []

    async def stay() -> None:
        found.extend(await vectors(embedder, TEXTS))

    async with anyio.create_task_group() as stayers:
        stayers.start_soon(stay)
        async with anyio.create_task_group() as leavers:
            leavers.start_soon(embedder.embed, TEXTS)
            for _ in range(rounds):
                await checkpoint()
            leavers.cancel_scope.cancel()
    assert near(found, expected)
