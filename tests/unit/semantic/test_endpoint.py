"""Endpoints that speak OpenAI's protocol: with a client that does as told, and with the real SDK."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from openai import AsyncOpenAI, InternalServerError

from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast.cli.upstream import DemoUpstream
from llmcache_fast.semantic import OpenAIEmbedder
from llmcache_fast.semantic.embedder import vectors_of


class Client:
    """Answers with the length of each text, in an order of its own."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.embeddings = self

    async def create(self, *, input: Sequence[str], **options: Any) -> Any:  # noqa: A002 - the SDK's word
        self.asked.append({"input": input, **options})
        return self.answer(input, options["encoding_format"])

    def answer(self, texts: Sequence[str], encoding: str) -> Any:
        rows = [(float(len(text)), 1.0) for text in texts]
        data = [
            SimpleNamespace(
                index=index,
                embedding=base64.b64encode(struct.pack("<2f", *row)).decode()
                if encoding == "base64"
                else list(row),
            )
            for index, row in enumerate(rows)
        ]
        return SimpleNamespace(data=data[::-1])


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vectors_come_in_the_order_of_their_texts(encoding: Any) -> None:
    client = Client()
    embedder = OpenAIEmbedder(client, "local", dimension=2, encoding=encoding)
    assert [list(row) for row in await embedder.embed(["a", "bcd"])] == [[1.0, 1.0], [3.0, 1.0]]
    assert client.asked == [{"input": ["a", "bcd"], "model": "local", "encoding_format": encoding}]


async def test_an_endpoint_may_answer_with_plain_numbers_though_asked_for_base64() -> None:
    client = Client()
    client.answer = lambda texts, encoding: Client.answer(client, texts, "float")  # type: ignore[method-assign]
    embedder = OpenAIEmbedder(client, "local", dimension=2)
    assert await embedder.embed(["a"]) == [[1.0, 1.0]]


async def test_a_text_the_endpoint_would_refuse_has_no_vector_and_the_others_have() -> None:
    client = Client()
    embedder = OpenAIEmbedder(client, "local", dimension=2, max_characters=3)
    assert [list(row) for row in await embedder.embed(["abcd", "abc", ""])] == [[0, 0], [3, 1], [0, 0]]
    assert [list(row) for row in await embedder.embed(["abcd"])] == [[0, 0]]
    assert [asked["input"] for asked in client.asked] == [["abc"]]


def data(*items: tuple[int, Any]) -> Any:
    return SimpleNamespace(data=[SimpleNamespace(index=index, embedding=row) for index, row in items])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (data(), "0 vectors for 2 texts"),
        (data((0, [1.0, 0.0])), "1 vectors for 2 texts"),
        (data((0, [1.0, 0.0]), (0, [1.0, 0.0])), "misnumbered"),
        (data((1, [1.0, 0.0]), (2, [1.0, 0.0])), "misnumbered"),
        (data((0, "not base64!"), (1, [1.0, 0.0])), "no base64 of float32"),
        (data((0, base64.b64encode(b"12345").decode()), (1, [1.0, 0.0])), "no base64 of float32"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(reply: Any, said: str) -> None:
    client = Client()
    client.answer = lambda texts, encoding: reply  # type: ignore[method-assign]
    with pytest.raises(EmbeddingError, match=said) as caught:
        await OpenAIEmbedder(client, "local", dimension=2).embed(["a", "b"])
    assert caught.value.reason == "invalid"


def test_the_dimension_of_known_models_is_known() -> None:
    client = Client()
    assert OpenAIEmbedder(client, "text-embedding-3-large").dimension == 3072
    assert OpenAIEmbedder(client, "text-embedding-3-small", dimension=1536).dimension == 1536
    short = OpenAIEmbedder(client, "text-embedding-3-small", dimension=256, shortened=True)
    assert short.dimension == 256
    assert repr(short) == "OpenAIEmbedder('openai:text-embedding-3-small', version='1', dimension=256)"


@pytest.mark.parametrize(
    ("client", "options", "said"),
    [
        (object(), {"dimension": 2}, "client: has no embeddings.create"),
        (Client(), {}, "dimension: say how many"),
        (Client(), {"model": "text-embedding-3-small", "dimension": 256}, "pass shortened=True"),
        (Client(), {"dimension": 2, "encoding": "hex"}, "encoding: must be"),
        (Client(), {"dimension": 0}, "dimension: must be an integer"),
    ],
)
def test_what_cannot_work_is_refused(client: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        OpenAIEmbedder(client, **{"model": "local", **options})


# -- the real SDK, against the local upstream -------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with DemoUpstream() as server:
        yield server.url + "/v1"


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_the_sdk_brings_the_same_vectors_one_by_one_and_together(upstream: str, encoding: Any) -> None:
    async with AsyncOpenAI(base_url=upstream, api_key="k", max_retries=0) as client:
        embedder = OpenAIEmbedder(client, "demo", dimension=8, encoding=encoding)
        together = vectors_of(await embedder.embed(["a", "b", "c"]), 3, embedder)
        alone = [vectors_of(await embedder.embed([text]), 1, embedder)[0] for text in ("a", "b", "c")]
    assert None not in together
    assert together == alone
    assert len(set(together)) == 3


async def test_the_sdk_is_asked_for_shorter_vectors(upstream: str) -> None:
    async with AsyncOpenAI(base_url=upstream, api_key="k", max_retries=0) as client:
        embedder = OpenAIEmbedder(client, "text-embedding-3-small", dimension=16, shortened=True)
        (vector,) = vectors_of(await embedder.embed(["a"]), 1, embedder)
    assert vector is not None
    assert len(vector) == 4 * 16


async def test_the_sdks_errors_pass(upstream: str) -> None:
    headers = {"x-demo": "error-500"}
    async with AsyncOpenAI(base_url=upstream, api_key="k", max_retries=0, default_headers=headers) as client:
        with pytest.raises(InternalServerError):
            await OpenAIEmbedder(client, "demo", dimension=8).embed(["a"])
