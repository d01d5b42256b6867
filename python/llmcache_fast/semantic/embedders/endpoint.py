"""Endpoints that speak OpenAI's protocol of embeddings: OpenAI's own, vLLM, Ollama, a gateway."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any, Literal

from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast.semantic.embedder import check

_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


class OpenAIEmbedder:
    """Asks `client.embeddings.create`, as an `AsyncOpenAI` client has it.

        embedder = OpenAIEmbedder(AsyncOpenAI(timeout=2, max_retries=0), "text-embedding-3-small")

    Give the client a short time-out and no retries: a vector that comes late is worth nothing.
    """

    def __init__(
        self,
        client: Any,
        model: str,
        *,
        dimension: int | None = None,
        shortened: bool = False,
        version: str = "1",
        encoding: Literal["base64", "float"] = "base64",
        max_characters: int = 8_000,
    ) -> None:
        """`dimension` may be left out for models of OpenAI's own. `shortened` asks the endpoint for vectors
        of that dimension, of a model that can. `encoding` is how numbers travel; `base64` takes a quarter of
        the bytes, and an endpoint that does not know it may answer with plain numbers.

        A text beyond `max_characters` gets no vector: an endpoint refuses a whole batch because of one text
        that is too long for the model (8191 tokens at OpenAI).

        Raises:
            ConfigurationError: the dimension is not known or cannot be, or this is no client.
        """
        if not callable(getattr(getattr(client, "embeddings", None), "create", None)):
            raise ConfigurationError(
                "client: has no embeddings.create; pass an AsyncOpenAI client, or an object with that method"
            )
        own = _DIMENSIONS.get(model)
        if dimension is None and own is None:
            raise ConfigurationError(f"dimension: say how many numbers a vector of {model!r} has")
        if own is not None and dimension not in (None, own) and not shortened:
            raise ConfigurationError(
                f"dimension: vectors of {model!r} have {own} numbers; pass shortened=True to ask for fewer"
            )
        if encoding not in ("base64", "float"):
            raise ConfigurationError(f"encoding: must be 'base64' or 'float', not {encoding!r}")
        self.name = f"openai:{model}"
        self.version = version
        self.dimension: int = dimension if dimension is not None else own or 0
        self._create = client.embeddings.create
        self._max_characters = max_characters
        self._options: dict[str, Any] = {"model": model, "encoding_format": encoding}
        if shortened:
            self._options["dimensions"] = self.dimension
        check(self)

    async def embed(self, texts: Sequence[str]) -> list[Any]:
        rows: list[Any] = [[0.0] * self.dimension] * len(texts)
        # An empty text is refused too, with all of its batch.
        asked = [at for at, text in enumerate(texts) if text and len(text) <= self._max_characters]
        if not asked:
            return rows
        reply = await self._create(input=[texts[at] for at in asked], **self._options)
        found = {item.index: item.embedding for item in reply.data}
        if found.keys() != set(range(len(asked))) or len(reply.data) != len(asked):
            raise EmbeddingError(
                f"the endpoint returned {len(reply.data)} vectors for {len(asked)} texts, or misnumbered",
                embedder=self.name,
                reason="invalid",
            )
        for number, at in enumerate(asked):
            rows[at] = self._row(found[number])
        return rows

    def _row(self, embedding: Any) -> Any:
        if not isinstance(embedding, str):
            return embedding
        try:
            raw = base64.b64decode(embedding, validate=True)
            return struct.unpack(f"<{len(raw) // 4}f", raw)
        except (binascii.Error, struct.error):
            raise EmbeddingError(
                "the endpoint returned what is no base64 of float32", embedder=self.name, reason="invalid"
            ) from None

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.name!r}, version={self.version!r}, dimension={self.dimension})"
