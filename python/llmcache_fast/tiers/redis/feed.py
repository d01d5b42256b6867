"""Following what is raised: the tier's messages for whoever asked for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmcache_fast._errors import TierError
from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import Message
from llmcache_fast.tiers.redis.replies import NAME

_log = logging.getLogger("llmcache_fast.redis")

Heard = Callable[[Message | None], None]


class Feed:
    """Who follows, and what each is told. `saw` is told every message too."""

    def __init__(self, saw: Callable[[Message], None]) -> None:
        self._saw = saw
        self._followers: dict[asyncio.Future[None], Heard] = {}
        self.dropped = 0
        """Payloads on the channel that were no messages."""

    async def follow(self, heard: Heard, *, listening: bool) -> None:
        """As `base.Feed`. `listening`: whether messages come already."""
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers[lost] = heard
        try:
            if listening:
                self._tell(lost, None)
            await lost
        finally:
            del self._followers[lost]

    def hear(self, payload: bytes) -> None:
        """A payload came on the channel."""
        message = messages.decode(payload)
        if message is None:
            self.dropped += 1
            _log.debug("%s: a payload on the channel of messages is none; dropped", NAME)
            return
        self._saw(message)
        for lost in list(self._followers):
            self._tell(lost, message)

    def up(self) -> None:
        """From now on messages come."""
        for lost in list(self._followers):
            self._tell(lost, None)

    def down(self, error: TierError) -> None:
        """Messages come no more."""
        for lost in self._followers:
            if not lost.done():
                lost.set_exception(error.again())

    def _tell(self, lost: asyncio.Future[None], message: Message | None) -> None:
        if lost.done():
            return
        try:
            self._followers[lost](message)
        except Exception as error:  # noqa: BLE001 - of the follower: its own, not the connection's
            lost.set_exception(error)
