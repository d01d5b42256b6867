"""Following what is raised: the notifications of the tier for whoever asked for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmcache_fast._errors import TierError
from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import Message
from llmcache_fast.tiers.postgres import errors
from llmcache_fast.tiers.postgres.connections import Connection
from llmcache_fast.tiers.postgres.listening import Ear

_log = logging.getLogger("llmcache_fast.postgres")

SILENCE_SECONDS = 2.0
"""So often the connection is tried; after as long without an answer it is given up."""

Heard = Callable[[Message | None], None]


class Feed:
    """Who follows, and what each is told. `saw` is told every message too."""

    def __init__(self, ear: Ear, channel: str, saw: Callable[[Message], None]) -> None:
        self._ear = ear
        self._channel = channel
        self._saw = saw
        self._followers: dict[asyncio.Future[None], Heard] = {}
        self.dropped = 0
        """Payloads on the channel that were no messages."""

    async def follow(self, heard: Heard) -> None:
        """As `base.Feed`."""
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            connection = await self._ear.listen(self._channel, self._hear)
            self._followers[lost] = heard
            connection.add_termination_listener(self._lost)
            self._tell(lost, None)
            while not lost.done():
                if connection.is_closed():
                    raise ConnectionError
                await asyncio.wait([lost], timeout=SILENCE_SECONDS)
                if not lost.done():
                    await self._ear.check(SILENCE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever the driver says, it is told as the tier's
            raise errors.of(error, "follow") from None
        finally:
            self._followers.pop(lost, None)
        await lost

    def close(self) -> None:
        """The tier closes."""
        self._end(TierError("the tier is closed", tier=errors.NAME, operation="follow", reason="closed"))

    def _hear(self, connection: Connection, process: int, channel: str, payload: str) -> None:
        message = messages.decode(payload.encode())
        if message is None:
            self.dropped += 1
            _log.debug("%s: a payload on the channel of messages is none; dropped", errors.NAME)
            return
        self._saw(message)
        for lost in list(self._followers):
            self._tell(lost, message)

    def _lost(self, connection: Connection) -> None:
        self._end(errors.of(ConnectionError(), "follow"))

    def _end(self, error: TierError) -> None:
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
