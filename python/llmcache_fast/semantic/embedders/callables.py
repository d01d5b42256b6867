"""Any async callable as an embedder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llmcache_fast.semantic.embedder import check


class CallableEmbedder:
    """Asks `call(texts)`, an async callable that returns a vector for each text.

        embedder = CallableEmbedder(embed, name="my-model", version="2", dimension=768)

    What it may return is said at `Embedder.embed`.
    """

    def __init__(
        self, call: Callable[[Sequence[str]], Awaitable[Any]], *, name: str, version: str, dimension: int
    ) -> None:
        """Change `version` whenever the same text may get another vector: stored vectors of the version
        before are then compared with none any more.

        Raises:
            ConfigurationError: a field that cannot be.
        """
        self.name = name
        self.version = version
        self.dimension = dimension
        self._call = call
        check(self)

    async def embed(self, texts: Sequence[str]) -> Any:
        return await self._call(texts)

    def __repr__(self) -> str:
        return f"CallableEmbedder({self.name!r}, version={self.version!r}, dimension={self.dimension})"
