"""Fixtures of the drop-in clients: the demo upstream on loopback, and both HTTP libraries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import msgspec
import pytest

from llmcache_fast.cli.upstream import DemoUpstream
from tests.integrations.caches import WatchedCache, open_cache


class Upstream:
    """The demo upstream, with its counters read over HTTP."""

    def __init__(self, server: DemoUpstream) -> None:
        self.url = server.url
        self.v1 = server.url + "/v1"

    def stats(self) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.json.decode(httpx.get(self.url + "/stats", verify=False).content)
        return value

    @property
    def requests(self) -> int:
        count: int = self.stats()["requests"]
        return count


@pytest.fixture(scope="session")
def _server() -> Iterator[DemoUpstream]:
    with DemoUpstream() as server:
        yield server


@pytest.fixture
def upstream(_server: DemoUpstream) -> Upstream:
    httpx.post(_server.url + "/reset", verify=False)
    return Upstream(_server)


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def anyio_backend() -> str:
    """The tests that are about waiting ask for trio too, by `on_both`."""
    return "asyncio"


on_both = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
async def cache() -> AsyncIterator[WatchedCache]:
    """An open cache; clients left in its `exits` are closed with it."""
    async with open_cache() as made:
        yield made
