"""The connection on which others are heard: made again when it was lost, and left when it is silent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.links import Server
from llmcache_fast.tiers.redis.subscription import Subscription
from tests.servers.redis import RedisServer, StartRedis


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Listener:
    """Two channels of a server, and what came."""

    def __init__(self, url: str) -> None:
        self.server = Server(Address.parse(url), 1)
        self.heard: list[tuple[str, bytes]] = []
        self.lost: list[str] = []
        self.ups = 0
        channels: dict[bytes, Callable[[bytes], None]] = {
            b"one": lambda payload: self.heard.append(("one", payload)),
            b"two": lambda payload: self.heard.append(("two", payload)),
        }
        self.subscription = Subscription(self.server.connect, channels, self._up, self._lost)

    def _up(self) -> None:
        self.ups += 1

    def _lost(self, error: TierError) -> None:
        self.lost.append(error.reason)

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not condition():
                await checkpoint()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    listener = Listener(url)
    listener.subscription.listen()
    yield listener
    await listener.subscription.aclose()
    await listener.server.aclose()


async def test_it_hears_all_its_channels_and_comes_back(start_redis: StartRedis) -> None:
    real = start_redis()
    async with listening(real.url) as listener:
        await listener.until(lambda: listener.subscription.listening)
        real.command("PUBLISH", "one", "a")
        real.command("PUBLISH", "two", "b")
        real.command("PUBLISH", "three", "c")
        await listener.until(lambda: len(listener.heard) == 2)
        assert listener.heard == [("one", b"a"), ("two", b"b")]
        real.command("CLIENT", "KILL", "TYPE", "pubsub")
        await listener.until(lambda: listener.ups == 2)
        assert listener.lost == ["lost"]
        real.command("PUBLISH", "two", "d")
        await listener.until(lambda: len(listener.heard) == 3)


async def test_a_silent_server_is_left(start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast.tiers.redis.subscription.SILENCE_SECONDS", 0.05)
    real = start_redis()
    async with listening(real.url) as listener:
        await listener.until(lambda: listener.subscription.listening)
        first = real.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0]
        real.freeze()
        await listener.until(lambda: not listener.subscription.listening)
        assert listener.lost[0] == "timeout"
        real.thaw()
        await listener.until(lambda: listener.subscription.listening)
        assert real.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0] != first


async def test_a_quiet_connection_is_kept(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast.tiers.redis.subscription.SILENCE_SECONDS", 0.05)
    async with listening(redis_server.url) as listener:
        await listener.until(lambda: listener.subscription.listening)
        await anyio.sleep(0.5)  # ten tries and their answers
        assert (listener.ups, listener.lost) == (1, [])


async def test_who_may_not_subscribe_is_told(start_redis: StartRedis) -> None:
    real = start_redis()
    real.command("ACL", "SETUSER", "deaf", "on", ">x", "resetchannels", "&one", "+@all", "~*")
    async with listening(real.url.replace("://", "://deaf:x@")) as listener:
        await listener.until(lambda: bool(listener.lost))
        assert listener.lost[0] == "denied"
        assert listener.ups == 0
