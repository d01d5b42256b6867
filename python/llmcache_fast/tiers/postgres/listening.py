"""The one connection of a tier on which it hears what others notify."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llmcache_fast.tiers.postgres.connections import Connection

Heard = Callable[[Connection, int, str, str], None]
"""As asyncpg calls it: connection, process, channel, payload."""


class Ear:
    """A connection outside the pool, made when first needed, and again when it was lost and is needed again.

    It serves all who listen, so nobody closes it before the tier is; its own statements take turns.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def listen(self, channel: str, heard: Heard) -> Connection:
        """The connection, on which from now on `heard` is called; asking for the same twice is once.

        Raises what the driver raises.
        """
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = self._connection = await self._connect()
            try:
                await connection.add_listener(channel, heard)
            except BaseException:
                connection.terminate()  # an answer may still come
                raise
            return connection

    async def check(self, seconds: float) -> None:
        """Ask the server for a sign of life, and cut the connection if none comes within so many seconds.

        Raises what the driver raises.
        """
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                return
            cut = asyncio.get_running_loop().call_later(seconds, connection.terminate)
            try:
                await connection.fetchval("SELECT 1")
            except BaseException:
                connection.terminate()
                raise
            finally:
                cut.cancel()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
