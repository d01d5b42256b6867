"""Any async callable as an embedder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic import CallableEmbedder


async def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


async def test_it_asks_the_callable() -> None:
    embedder = CallableEmbedder(embed, name="lengths", version="1", dimension=2)
    assert await embedder.embed(["a", "bc"]) == [[1.0, 1.0], [2.0, 1.0]]
    assert (embedder.name, embedder.version, embedder.dimension) == ("lengths", "1", 2)
    assert repr(embedder) == "CallableEmbedder('lengths', version='1', dimension=2)"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dimension"):
        CallableEmbedder(embed, name="lengths", version="1", dimension=-1)
    with pytest.raises(ConfigurationError, match="version"):
        CallableEmbedder(embed, name="lengths", version="", dimension=2)
