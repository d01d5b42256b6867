"""The real model, loaded once, and embedders that do as told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio.lowlevel
import pytest

from llmcache_fast.semantic import MiniLMEmbedder


class PlannedEmbedder:
    """Counts, and answers each text by its length; a plan may hold, fail or replace an answer."""

    name = "planned"
    version = "1"
    dimension = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.plan: Callable[[int], Any] = lambda call: None
        """Given the number of a call: an event to wait for, an exception to raise, or what to return."""
        self.running = self.most_running = 0

    async def embed(self, texts: Sequence[str]) -> Any:
        planned = self.plan(len(self.calls))
        self.calls.append(list(texts))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if isinstance(planned, anyio.Event):
                await planned.wait()
            else:
                await anyio.lowlevel.checkpoint()
        finally:
            self.running -= 1
        if isinstance(planned, BaseException):
            raise planned
        if planned is None or isinstance(planned, anyio.Event):
            return [vector_for(text) for text in texts]
        return planned


def vector_for(text: str) -> list[float]:
    """Of unit length, and exact in float32."""
    return [1.0, 0.0] if len(text) % 2 else [0.0, 1.0]


@pytest.fixture
def planned() -> PlannedEmbedder:
    return PlannedEmbedder()


@pytest.fixture(scope="session")
def minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder()
