"""Waiting for leases to be released: nobody is forgotten when the connection is lost, nobody stays behind."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.links import Server
from llmcache_fast.tiers.redis.releases import Releases
from tests.servers.redis import RedisServer, StartRedis


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def subscribed(releases: Releases) -> None:
    with anyio.fail_after(30):
        while not releases.listening:
            await checkpoint()


async def test_waiters_are_woken_by_their_key_and_by_a_lost_connection(start_redis: StartRedis) -> None:
    real = start_redis()
    server = Server(Address.parse(real.url), 1)
    releases = Releases(server.connect, b"channel")
    releases.listen()
    await subscribed(releases)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(releases.wait, b"a")
            group.start_soon(releases.wait, b"b")
            await anyio.wait_all_tasks_blocked()
            assert releases.waiters == 2
            real.command("PUBLISH", "channel", "a")
            while releases.waiters > 1:
                await checkpoint()
            # A release may pass while nobody listens: once back, whoever waits looks again.
            real.command("CLIENT", "KILL", "TYPE", "pubsub")
    assert releases.waiters == 0
    await subscribed(releases)
    await releases.aclose()
    await server.aclose()


async def test_cancelled_waiters_leave_nothing_behind(redis_server: RedisServer) -> None:
    server = Server(Address.parse(redis_server.url), 1)
    releases = Releases(server.connect, b"nobody")
    for delay in (0, 0, 0.001):
        with anyio.move_on_after(delay):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(releases.wait, b"%d" % (number % 7))
    assert releases.waiters == 0
    assert releases._waiting == {}
    await releases.aclose()
    await server.aclose()


async def test_closing_wakes_whoever_waits(redis_server: RedisServer) -> None:
    server = Server(Address.parse(redis_server.url), 1)
    releases = Releases(server.connect, b"nobody")
    async with anyio.create_task_group() as group:
        group.start_soon(releases.wait, b"a")
        await anyio.wait_all_tasks_blocked()
        await releases.aclose()
    await server.aclose()


async def test_a_silent_server_is_left(start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast.tiers.redis.releases.SILENCE_SECONDS", 0.05)
    real = start_redis()
    server = Server(Address.parse(real.url), 1)
    releases = Releases(server.connect, b"channel")
    releases.listen()
    await subscribed(releases)
    first = real.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0]
    real.freeze()
    with anyio.fail_after(30):
        while releases.listening:  # noqa: ASYNC110 - the time is the subject here
            await anyio.sleep(0.01)
    real.thaw()
    await subscribed(releases)
    assert real.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0] != first
    await releases.aclose()
    await server.aclose()
