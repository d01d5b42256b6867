"""The task that follows what other processes invalidate: it hears messages of a feed, and asks now and then.

The asking is the heartbeat: it bounds how late one hears of anything, whatever becomes of messages. What does
not belong here: what a message means (`_knowledge`), what is asked (`_markers`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Message

_log = logging.getLogger("llmcache_fast.coherence")

AGAIN, AGAIN_MAX = 0.1, 5.0
"""Seconds after which a feed that was lost is followed again; doubling, less up to a half of jitter."""


class FollowerStatistics(NamedTuple):
    """Counts since the start."""

    connected: bool
    """Messages come."""
    messages: int
    polls: int


class Follower:
    """Hears of invalidations by others, as soon as it can and every `every` seconds at the latest."""

    def __init__(
        self,
        feed: Any,
        hear: Callable[[Message | None], None],
        ask: Callable[[], Awaitable[None]],
        *,
        every: float,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`feed`: a `Feed`, or None. `hear` gets its messages, and None when some may have been missed; `ask`
        asks the authority."""
        self._feed = feed
        self._hear = hear
        self._ask = ask
        self._every = every
        self._rng = rng
        self._wake = anyio.Event()
        self._connected = False
        self._messages = 0
        self._polls = 0

    def wake(self) -> None:
        """Ask now."""
        self._wake.set()

    def statistics(self) -> FollowerStatistics:
        return FollowerStatistics(self._connected, self._messages, self._polls)

    async def run(self) -> None:
        """Follow, until cancelled."""
        async with anyio.create_task_group() as tasks:
            if self._feed is not None:
                tasks.start_soon(self._listen)
            while True:
                with anyio.move_on_after(self._every * (1 - self._rng() / 4)):
                    await self._wake.wait()
                self._wake = anyio.Event()
                self._polls += 1
                await self._ask()

    async def _listen(self) -> None:
        pause = AGAIN
        while True:
            try:
                await self._feed.follow(self._heard)
            except TierError as error:
                # Its own cache closed it: nothing is wrong.
                expected = not self._connected or error.reason == "closed"
                level = logging.DEBUG if expected else logging.WARNING
                _log.log(level, "messages of %s do not come (%s)", error.tier, error.reason)
                unsupported = error.reason == "unsupported"
            else:
                unsupported = False
            pause = AGAIN if self._connected else min(2 * pause, AGAIN_MAX)
            self._connected = False
            if unsupported:
                _log.warning("invalidations by others are asked for, and not told")
                return
            await anyio.sleep(pause * (1 - self._rng() / 2))

    def _heard(self, message: Message | None) -> None:
        if message is None:
            self._connected = True
        else:
            self._messages += 1
        self._hear(message)
