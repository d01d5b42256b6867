"""Waiting for the release of a lease: one subscription for all who wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

SILENCE_SECONDS = 5.0
"""After so long without a message the connection is tried; after as long without an answer, given up."""
_RETRY_SECONDS = 0.2


class Releases:
    """Who waits for which fingerprint, and the connection on which releases are heard.

    While it is down releases pass unheard. Once it is back all who wait are woken: those for whom nothing
    changed find that out by asking again.
    """

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]], channel: bytes) -> None:
        self._connect = connect
        self._channel = channel
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self.listening = False
        """Whether releases are heard now."""

    @property
    def waiters(self) -> int:
        return sum(len(futures) for futures in self._waiting.values())

    def listen(self) -> None:
        """Be subscribed soon, if not yet."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="releases")

    async def wait(self, key: bytes) -> None:
        """Return when a release of `key` was heard of, or may have been missed."""
        self.listen()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        futures = self._waiting.setdefault(key, set())
        futures.add(future)
        try:
            await future
        finally:
            futures.discard(future)
            if not futures and self._waiting.get(key) is futures:
                del self._waiting[key]

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for key in list(self._waiting):
            self._wake(key)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._connect()
            except (exceptions.RedisError, OSError, TimeoutError):
                # Not all processes at once.
                await asyncio.sleep(_RETRY_SECONDS * (1 + random.random()))  # noqa: S311 - jitter
                continue
            try:
                await self._hear(connection)
            except (exceptions.RedisError, OSError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS * random.random())  # noqa: S311 - jitter
            finally:
                self.listening = False
                await connection.disconnect(nowait=True)

    async def _hear(self, connection: AbstractConnection) -> None:
        await connection.send_command("SUBSCRIBE", self._channel, check_health=False)
        silent = False
        while True:
            message: Any = await connection.read_response(timeout=SILENCE_SECONDS)
            if message is None:
                if silent:
                    raise TimeoutError
                silent = True
                await connection.send_command("PING", check_health=False)
                continue
            silent = False
            match message:
                case [b"message", self._channel, bytes(key)]:
                    self._wake(key)
                case [b"subscribe", *_]:
                    self.listening = True
                    for key in list(self._waiting):
                        self._wake(key)

    def _wake(self, key: bytes) -> None:
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)
