"""Messages over connections that are cut, delayed, frozen and silent: what is lost is always noticed.

A follower knows all markers when each message's `prev` is the seq before, or else it asked for the changes. A
follower with a planted bug, that does not look at `prev`, is shown to be found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Asked, Message
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier
from tests.faults.frames import postgres_reply, resp_reply
from tests.faults.proxy import Proxy

SPACE = 9


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Pair:
    """A tier that raises, and one that follows behind a proxy."""

    def __init__(self, near: Any, far: Any, proxy: Proxy) -> None:
        self.near = near
        self.far = far
        self.proxy = proxy


@pytest.fixture(params=["redis", "postgres"])
async def pair(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Pair]:
    of = request.getfixturevalue
    if request.param == "redis":
        port = of("redis_server").port
        url = f"{of('redis_server').url}?budget=5&prefix={of('redis_prefix')}"
        make, framer = RedisTier.from_url, resp_reply
    else:
        port = of("postgres_server").port
        url = of("postgres_url") + "?budget=5"
        make, framer = PostgresTier.from_url, postgres_reply  # type: ignore[assignment]
    async with Proxy(port, framer, seed=3) as proxy:
        near, far = make(url), make(url.replace(f":{port}/", f":{proxy.port}/"))
        await near.open()
        await far.open()
        yield Pair(near, far, proxy)
        proxy.well()
        await far.aclose()
        await near.aclose()


class Follower:
    """Keeps the markers of `SPACE` by messages, and by asking where one is missing."""

    def __init__(self, pair: Pair, *, careful: bool = True) -> None:
        self.pair = pair
        self.careful = careful
        self.markers: dict[int, int] = {}
        self.epoch = self.heard = self.asked = self.begun = self.ended = 0
        self.behind = asyncio.Event()

    def __call__(self, message: Message | None) -> None:
        if message is None:
            self.begun += 1
            self.behind.set()
            return
        if message.seq <= self.heard:
            return
        if self.careful and (message.epoch, message.prev) != (self.epoch, self.heard):
            self.behind.set()
            return
        self.markers |= dict.fromkeys(message.targets or (), message.seq)
        self.heard = message.seq

    async def follow(self) -> None:
        while True:
            try:
                await self.pair.far.follow(self)
            except TierError:
                self.ended += 1
                await asyncio.sleep(0.01)

    async def mend(self) -> None:
        while True:
            await self.behind.wait()
            self.behind.clear()
            if self.begun > 1 and not self.careful:
                continue
            self.asked += 1
            (found,) = await self.pair.near.changes([Asked(SPACE, self.epoch, self.heard)])
            self.markers |= {target: max(seq, self.markers.get(target, 0)) for target, seq in found.markers}
            self.epoch, self.heard = found.epoch, max(found.seq, self.heard)

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(60):
            while not condition():
                await checkpoint()


async def missed(pair: Pair, follower: Follower) -> list[int]:
    """Targets whose markers the follower does not know, after raises while its messages were late and cut."""
    raised: dict[int, int] = {}
    pair.proxy.delay = lambda chance: 0.005 * chance.random()
    async with anyio.create_task_group() as group:
        group.start_soon(follower.follow)
        group.start_soon(follower.mend)
        await follower.until(lambda: follower.begun > 0 and follower.epoch > 0)
        for turn in range(6):
            begun = follower.begun
            for number in range(20 * turn, 20 * turn + 20):
                if number % 20 == 7:
                    pair.proxy.cut(reset=turn % 2 == 0)
                raised[number] = (await pair.near.raise_markers(SPACE, [number])).seq
            await follower.until(lambda: follower.begun > begun)  # noqa: B023 - awaited here
        # One that arrives shows whether one before it is missing.
        pair.proxy.well()
        last = (await pair.near.raise_markers(SPACE, [1000])).seq
        await follower.until(lambda: follower.heard >= last)
        group.cancel_scope.cancel()
    return [target for target, seq in raised.items() if follower.markers.get(target) != seq]


async def test_what_is_lost_or_late_is_noticed(pair: Pair) -> None:
    follower = Follower(pair)
    assert await missed(pair, follower) == []
    assert follower.ended >= 6
    assert follower.asked >= 6


async def test_a_follower_that_trusts_every_message_is_found_out(pair: Pair) -> None:
    assert await missed(pair, Follower(pair, careful=False)) != []


async def test_a_lost_connection_ends_following_and_following_again_begins(pair: Pair) -> None:
    for turn in range(5):
        begun: list[Message | None] = []
        ends: list[TierError] = []

        async def follow(begun: list[Message | None] = begun, ends: list[TierError] = ends) -> None:
            with pytest.raises(TierError) as caught:
                await pair.far.follow(begun.append)
            ends.append(caught.value)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                while not begun:
                    await checkpoint()
                pair.proxy.cut(reset=turn % 2 == 0)
        assert begun == [None]
        assert [error.tier for error in ends] == [pair.near.name]


async def test_a_server_that_refuses_is_told_to_each_who_follows(pair: Pair) -> None:
    pair.proxy.refuse()
    for _ in range(2):
        with anyio.fail_after(60), pytest.raises(TierError):
            await pair.far.follow(lambda message: None)
    await pair.proxy.accept()
    follower = Follower(pair)
    async with anyio.create_task_group() as group:
        group.start_soon(follower.follow)
        await follower.until(lambda: follower.begun == 1)
        group.cancel_scope.cancel()


async def test_a_connection_that_stands_still_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half open: the other end is gone and nobody says so."""
    monkeypatch.setattr("llmcache_fast.tiers.redis.subscription.SILENCE_SECONDS", 0.1)
    monkeypatch.setattr("llmcache_fast.tiers.postgres.feed.SILENCE_SECONDS", 0.1)
    follower = Follower(pair)
    async with anyio.create_task_group() as group:
        group.start_soon(follower.follow)
        await follower.until(lambda: follower.begun == 1)
        pair.proxy.freeze()
        await follower.until(lambda: follower.ended >= 1)
        pair.proxy.thaw()
        pair.proxy.cut()
        await follower.until(lambda: follower.begun == 2)
        group.cancel_scope.cancel()
