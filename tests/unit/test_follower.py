"""The task that follows: it hears, asks in time and when told to, and follows a lost feed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from llmcache_fast._errors import TierError
from llmcache_fast.actors import follower
from llmcache_fast.actors.follower import Follower
from llmcache_fast.tiers.base import Message

MESSAGE = Message(1, 2, 3, 4, (5,))
FOREVER = 10.0**6


class Feed:
    """A feed that gives what it is told to, then ends in an error."""

    def __init__(self, reason: str = "io") -> None:
        self.reason = reason
        self.followed = 0
        self.lost = anyio.Event()

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        self.followed += 1
        heard(None)
        heard(MESSAGE)
        await self.lost.wait()
        self.lost = anyio.Event()
        raise TierError("planned", tier="feed", operation="follow", reason=self.reason)


async def nothing() -> None:
    return None


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - on a state, not for a time
            await anyio.sleep(0.001)


async def test_it_hears_and_follows_again_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "AGAIN", 0.001)
    feed, heard = Feed(), list[Message | None]()
    following = Follower(feed, heard.append, nothing, every=FOREVER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(following.run)
        await until(lambda: feed.followed == 1)
        assert following.statistics().connected
        feed.lost.set()
        await until(lambda: feed.followed == 2)
        tasks.cancel_scope.cancel()
    assert heard == [None, MESSAGE, None, MESSAGE]
    assert following.statistics().messages == 2


@pytest.mark.parametrize(("reason", "levels"), [("closed", ["DEBUG"]), ("lost", ["WARNING"])])
async def test_a_feed_that_its_cache_closes_warns_nobody(
    reason: str, levels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    feed = Feed(reason)
    following = Follower(feed, lambda _: None, nothing, every=FOREVER)
    with caplog.at_level("DEBUG", logger="llmcache_fast.coherence"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(following.run)
            await until(lambda: feed.followed == 1)
            feed.lost.set()
            await until(lambda: not following.statistics().connected)
            tasks.cancel_scope.cancel()
    assert [record.levelname for record in caplog.records] == levels


async def test_a_feed_that_cannot_be_is_not_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "AGAIN", 0.0)
    feed = Feed("unsupported")
    following = Follower(feed, lambda _: None, nothing, every=FOREVER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(following.run)
        await until(lambda: feed.followed == 1)
        feed.lost.set()
        await until(lambda: not following.statistics().connected)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert feed.followed == 1


@pytest.mark.parametrize("every", [FOREVER, 0.001])
async def test_it_asks_when_told_to_and_in_time(every: float) -> None:
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1

    following = Follower(None, lambda _: None, ask, every=every)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(following.run)
        if every == FOREVER:
            await anyio.wait_all_tasks_blocked()
            assert asked == 0
            following.wake()
        await until(lambda: asked >= 1)
        tasks.cancel_scope.cancel()
    assert following.statistics().polls == asked


async def test_told_while_it_asks_it_asks_once_more() -> None:
    """What was asked before may have been answered before."""
    asked, go = list[int](), anyio.Event()
    following: Any = None

    async def ask() -> None:
        asked.append(1)
        if len(asked) == 1:
            following.wake()
            following.wake()
            await go.wait()

    following = Follower(None, lambda _: None, ask, every=FOREVER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(following.run)
        await anyio.wait_all_tasks_blocked()
        following.wake()
        await anyio.wait_all_tasks_blocked()
        go.set()
        await until(lambda: len(asked) == 2)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(asked) == 2
