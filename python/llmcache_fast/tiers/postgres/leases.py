"""Leases: rows that say who computes what, and hearing when one ends.

Rows with a time, not Postgres' advisory locks. Those belong to a session, so a pooler in transaction mode
breaks them; they have no end in time, so a process that stands still would hold its own for as long as it
does; and they are 64-bit numbers, of which two fingerprints may share one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.postgres.connections import Connection, Connections, desynchronised
from llmcache_fast.tiers.postgres.listening import Ear
from llmcache_fast.tiers.postgres.statements import Statements

_JITTER = random.SystemRandom()
_POLL = 0.1
"""Seconds between two looks at the table where nothing tells of releases (half more or less, at random)."""
_POLL_LISTENING = 1.0
"""The same where a connection listens: for leases that end by time, and releases nobody heard of."""


class Leases:
    """The leases of one tier. `ear` is where releases are heard; None where a pooler is in between."""

    def __init__(
        self,
        pool: Connections,
        statements: Statements,
        schema: str,
        *,
        ear: Ear | None,
        clock: Callable[[], int] | None,
        budget: float,
    ) -> None:
        self._pool = pool
        self._sql = statements
        self._channel = f"{schema}_leases"
        self._ear = ear
        self._clock = clock
        self._budget = budget
        self._listener: Connection | None = None
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}
        self._unchecked: set[bytes] = set()
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def get_or_take(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        given, micros = list(dict.fromkeys(keys)), round(seconds * 1_000_000)

        async def work(connection: Connection) -> dict[bytes, tuple[bytes | None, bool]]:
            rows = await connection.fetch(self._sql.get_or_lease, given, token, micros, self._now())
            found = {row[0]: (row[1], row[2]) for row in rows}
            if found.keys() != set(given):
                raise desynchronised(connection, "get_or_lease_many")
            return found

        found = await self._pool.call("get_or_lease_many", work, self._budget)
        return [found[key] for key in keys]

    async def take(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        return await self._held("lease_many", self._sql.lease, keys, token, seconds)

    async def renew(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        return await self._held("renew_leases", self._sql.renew, keys, token, seconds)

    async def _held(
        self, operation: str, statement: str, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[bool]:
        """Whether each key is among those that `statement` returns."""
        given, micros = list(dict.fromkeys(keys)), round(seconds * 1_000_000)

        async def work(connection: Connection) -> set[bytes]:
            return {row[0] for row in await connection.fetch(statement, given, token, micros, self._now())}

        held = await self._pool.call(operation, work, self._budget)
        return [key in held for key in keys]

    async def release(self, keys: Sequence[bytes], token: bytes) -> None:
        given = list(keys)

        async def work(connection: Connection) -> None:
            await connection.execute(self._sql.release, given, token, self._channel)

        await self._pool.call("release_leases", work, self._budget)

    async def released(self, key: bytes) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(waiter)
        self._unchecked.add(key)
        self._news.set()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.ensure_future(self._watch())
        try:
            await waiter
        finally:
            waiting = self._waiters.get(key)
            if waiting is not None:
                waiting.discard(waiter)
                if not waiting:
                    del self._waiters[key]

    async def aclose(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        self._listener = None

    # -- hearing of releases --------------------------------------------------------------------------

    async def _watch(self) -> None:
        """While somebody waits: listen, and look at what may have been missed."""
        while self._waiters:
            self._news.clear()
            if await self._ensure_listener():
                self._unchecked.update(self._waiters)  # released while nobody listened
            await self._look()
            pause = _POLL * (0.5 + _JITTER.random()) if self._listener is None else _POLL_LISTENING
            try:
                await asyncio.wait_for(self._news.wait(), pause)
            except TimeoutError:
                self._unchecked.update(self._waiters)

    async def _ensure_listener(self) -> bool:
        """Whether a new connection began to listen."""
        if self._ear is None or (self._listener is not None and not self._listener.is_closed()):
            return False
        self._listener = None
        try:
            connection = await self._ear.listen(self._channel, self._heard)
            connection.add_termination_listener(self._lost)
        except Exception:  # noqa: BLE001 - polling goes on without it, and the next round tries again
            return False
        self._listener = connection
        return True

    def _lost(self, connection: Connection) -> None:
        self._news.set()

    def _heard(self, connection: Connection, process: int, channel: str, payload: str) -> None:
        try:
            self._wake(bytes.fromhex(payload))
        except ValueError:
            return  # anybody may notify

    async def _look(self) -> None:
        keys = [key for key in self._unchecked if key in self._waiters]
        self._unchecked.clear()
        if not keys:
            return

        async def work(connection: Connection) -> set[bytes]:
            return {row[0] for row in await connection.fetch(self._sql.leased, keys, self._now())}

        try:
            leased = await self._pool.call("lease_released", work, self._budget)
        except TierError:
            return
        for key in keys:
            if key not in leased:
                self._wake(key)

    def _wake(self, key: bytes) -> None:
        for waiter in self._waiters.get(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()
