"""The real cache, watched: what it was asked, what was committed, and a way to break it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from llmcache_fast import LLMCache, Recorder, StreamReader


class WatchedCache(LLMCache):
    """`LLMCache` with notes for the tests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.exits = AsyncExitStack()
        self.asked: list[Any] = []
        self.options_given: list[dict[str, Any]] = []
        self.commits: list[dict[str, Any]] = []
        self.broken: Exception | None = None

    @property
    def entries(self) -> int:
        """Entries stored so far."""
        return self.stats().stored

    @property
    def running(self) -> int:
        """Flights under way."""
        count: int = self.stats().flights["running"]
        return count

    async def stream(self, request: Any, source: Any, **options: Any) -> StreamReader:
        if self.broken is not None:
            raise self.broken
        self.asked.append(request)
        self.options_given.append(options)

        async def watched(recorder: Recorder) -> None:
            commit = recorder.commit

            def note(**given: Any) -> None:
                self.commits.append(given)
                commit(**given)

            recorder.commit = note  # type: ignore[method-assign]
            await source(recorder)

        return await super().stream(request, watched, **options)


@asynccontextmanager
async def open_cache(**options: Any) -> AsyncIterator[WatchedCache]:
    """An open cache; clients left in its `exits` are closed before it."""
    async with WatchedCache(**options) as cache, cache.exits:
        yield cache
