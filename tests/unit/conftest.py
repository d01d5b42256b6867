"""An open cache under a clock of its own, and computations that count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio.lowlevel
import pytest

from llmcache_fast import LLMCache
from llmcache_fast.testing import ManualClock

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Calls:
    """A computation that counts and numbers its answers, or fails as told."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.contexts: list[Any] = []

    async def __call__(self, context: Any) -> str:
        self.count += 1
        self.contexts.append(context)
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return f"answer {self.count}"


class StatusError(Exception):
    """As an SDK's: it tells an HTTP status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


async def settled(cache: LLMCache) -> None:
    """Return when no computation is running."""
    while cache.stats().flights["running"]:
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def cache_options() -> dict[str, Any]:
    """Options of `cache`; a module with other ones overrides this."""
    return {}


@pytest.fixture
async def cache(
    clock: ManualClock, cache_options: dict[str, Any], anyio_backend: str
) -> AsyncIterator[LLMCache]:
    async with LLMCache(clock=clock, jitter=0.0, **cache_options) as cache:
        yield cache
