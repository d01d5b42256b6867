"""The one connection of a tier on which it hears what others publish."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis.replies import NAME, accepted, tier_error

SILENCE_SECONDS = 2.0
"""After so long without a message the connection is tried; after as long without an answer, given up."""
_RETRY_SECONDS = 0.2


class Subscription:
    """A connection that is subscribed to all `channels`, made when first needed and whenever it was lost.

    `up` is called when from now on messages are heard, `lost` with why they are not: after a connection was
    lost, and after one could not be made.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AbstractConnection]],
        channels: Mapping[bytes, Callable[[bytes], None]],
        up: Callable[[], None],
        lost: Callable[[TierError], None] = lambda error: None,
    ) -> None:
        self._connect = connect
        self._channels = channels
        self._up = up
        self._lost = lost
        self._task: asyncio.Task[None] | None = None
        self.listening = False
        """Whether messages are heard now."""

    def listen(self) -> None:
        """Be subscribed soon, if not yet."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="subscription")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            connection: AbstractConnection | None = None
            try:
                connection = await self._connect()
                await self._hear(connection)
            except (exceptions.RedisError, TierError, OSError, TimeoutError) as error:
                self.listening = False
                self._lost(tier_error(error, "follow"))
            finally:
                self.listening = False
                if connection is not None:
                    await connection.disconnect(nowait=True)
            # Not all processes at once.
            await asyncio.sleep(_RETRY_SECONDS * (0.5 + random.random()))  # noqa: S311 - jitter

    async def _hear(self, connection: AbstractConnection) -> NoReturn:
        await connection.send_command("SUBSCRIBE", *self._channels, check_health=False)
        wanted = set(self._channels)
        silent = False
        while True:
            message: Any = await connection.read_response(timeout=SILENCE_SECONDS)
            if message is None:
                if silent:
                    raise TierError("the server is silent", tier=NAME, operation="follow", reason="timeout")
                silent = True
                await connection.send_command("PING", check_health=False)
                continue
            silent = False
            match accepted(message, "follow"):
                case [b"message", bytes(channel), bytes(payload)] if channel in self._channels:
                    self._channels[channel](payload)
                case [b"subscribe", bytes(channel), _] if channel in wanted:
                    wanted.remove(channel)
                    if not wanted:
                        self.listening = True
                        self._up()
