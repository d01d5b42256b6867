"""The tier's connections: few, bounded in time, and never given back with a reply still to come.

Why not asyncpg's own pool: each release costs it a round trip (it resets the session, which the tier never
changes), a release can wait for ever inside a shield for a server that does not answer, and a caller that
waits cannot tell a busy pool from a server that is gone. What is left of a pool after that is this file.

Every statement runs in a task of its own, which no caller's cancellation reaches once it has a connection; a
caller only waits for it.
So a connection is always either idle, or in the hands of one task that ends by the reply, by an error, or at
its deadline, when the connection is cut. A reply can reach nobody but the task that asked.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import asyncpg

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.tiers.postgres import errors
from llmcache_fast.tiers.postgres.address import Settings

T = TypeVar("T")

Connection: TypeAlias = Any
"""An `asyncpg.Connection`; asyncpg is not typed."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The connections at this moment, and counts since the start."""

    idle: int
    lent: int
    connecting: int
    waiting: int
    """Calls that wait for a connection."""
    connects: int
    cut: int
    """Connections given up because their statement did not end in time."""


class Connections:
    """Up to `size` connections that `connect` makes, lent to one statement each."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[Connection] = []  # the one used last is used next, the others may age
        self._lent: dict[Connection, int] = {}
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._queued: dict[asyncio.Task[Any] | None, asyncio.Future[Connection]] = {}
        self._opening = 0
        self._openers: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._generation = 0
        self._process = os.getpid()
        self._closed = False
        self._connects = self._cut = 0

    async def call(self, operation: str, work: Callable[[Connection], Awaitable[T]], budget: float) -> T:
        """What `work` returns for a connection; it must leave no transaction open.

        A connection found dead, a deadlock or a server that has become read-only is tried once more, on a new
        connection where that helps, within the same `budget` seconds. So `work` must bear repeating.

        Raises:
            TierError: `busy` when all connections were in use for the whole budget; see `errors`.
        """
        if self._closed:
            raise closed(operation)
        if self._process != os.getpid():
            raise TierUnavailableError(
                "this process was forked from the one that opened the tier: open one here",
                tier=errors.NAME,
                operation=operation,
                reason="forked",
            )
        deadline = asyncio.get_running_loop().time() + budget
        task = asyncio.ensure_future(self._run(operation, work, deadline))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # What has not begun need not; otherwise those who left would keep those who came from their turn.
            if (waiter := self._queued.get(task)) is not None:
                waiter.cancel()
            raise

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            idle=len(self._idle),
            lent=len(self._lent),
            connecting=self._opening,
            waiting=len(self._waiting),
            connects=self._connects,
            cut=self._cut,
        )

    def forget(self) -> None:
        """Use no connection of now for another call; those in use are cut when theirs ends."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def aclose(self, timeout: float) -> None:
        """Let what runs end, for `timeout` seconds, then close all connections, cutting those that do not."""
        self._closed = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout)
        for task in self._openers:
            task.cancel()
        while self._waiting:
            self._fail(self._waiting.popleft(), closed("open"))
        for connection in [*self._lent]:
            connection.terminate()
        idle, self._idle = self._idle, []
        # asyncpg cuts a connection whose goodbye does not get through in time.
        await asyncio.gather(*(c.close(timeout=timeout) for c in idle), return_exceptions=True)
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout)
        if self._openers:
            await asyncio.wait(self._openers, timeout=timeout)

    # -- one call -------------------------------------------------------------------------------------

    async def _run(self, operation: str, work: Callable[[Connection], Awaitable[T]], deadline: float) -> T:
        loop = asyncio.get_running_loop()
        for attempt in (1, 2):
            connection = await self._lend(operation, deadline)
            cut = loop.call_at(deadline, self._cut_off, connection)
            try:
                return await work(connection)
            except Exception as error:  # noqa: BLE001 - each is told as the tier's
                failure = errors.of(error, operation)
                if failure.reason in errors.LOST:
                    connection.terminate()  # whatever state the driver left it in
            except BaseException:
                connection.terminate()  # the loop is ending, a reply may be on its way
                raise
            finally:
                cut.cancel()
                self._give_back(connection)
            if loop.time() >= deadline:
                raise _late(operation)
            if failure.reason in (*errors.LOST, "read_only"):
                # The others lead to the same server; the next one is to be new.
                self.forget()
            if attempt == 2 or failure.reason not in (*errors.LOST, "read_only", "busy", "schema"):
                raise failure
        raise AssertionError("unreachable")

    def _cut_off(self, connection: Connection) -> None:
        self._cut += 1
        connection.terminate()

    async def _lend(self, operation: str, deadline: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._lent[connection] = self._generation
                return connection
        if self._closed:
            # A call that closing has cut would otherwise try again, until its deadline.
            raise closed(operation)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection] = loop.create_future()
        self._waiting.append(waiter)
        self._grow()
        timer = loop.call_at(deadline, self._expire, waiter)
        task = asyncio.current_task()
        self._queued[task] = waiter
        try:
            return await waiter
        except TierError as error:
            raise type(error)(
                error.message, tier=errors.NAME, operation=operation, reason=error.reason
            ) from None
        finally:
            timer.cancel()
            del self._queued[task]

    def _expire(self, waiter: asyncio.Future[Connection]) -> None:
        if self._lent:
            message = f"all {self._size} connections were in use for the whole budget"
            self._fail(waiter, TierError(message, reason="busy"))
        else:
            self._fail(waiter, _late("connect"))

    def _give_back(self, connection: Connection) -> None:
        generation = self._lent.pop(connection)
        if connection.is_closed():
            self._grow()
        elif self._closed or generation != self._generation or connection.is_in_transaction():
            connection.terminate()
            self._grow()
        else:
            self._offer(connection)

    # -- opening --------------------------------------------------------------------------------------

    def _offer(self, connection: Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._lent[connection] = self._generation
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _grow(self) -> None:
        """Connect for those who wait, as far as the size allows."""
        wanted = sum(not waiter.done() for waiter in self._waiting) - self._opening
        room = self._size - len(self._idle) - len(self._lent) - self._opening
        for _ in range(min(wanted, room)):
            task = asyncio.ensure_future(self._open_one())
            self._opening += 1
            self._openers.add(task)
            task.add_done_callback(self._openers.discard)

    async def _open_one(self) -> None:
        # Not bounded by the call that asked for it: one that takes longer still serves the next.
        generation = self._generation
        try:
            connection = await self._connect()
        except Exception as error:  # noqa: BLE001 - told to those who wait
            self._opening -= 1  # before they are told: they may want another one
            self._could_not_open(errors.of(error, "connect"))
            return
        except BaseException:
            self._opening -= 1
            raise
        self._opening -= 1
        self._connects += 1
        if self._closed or generation != self._generation:
            connection.terminate()
            self._grow()
        else:
            self._offer(connection)

    def _could_not_open(self, failure: TierError) -> None:
        if failure.reason == "busy" and self._lent:
            return  # the server gives us no more than those we have; they come back
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            self._fail(waiter, failure.again())

    @staticmethod
    def _fail(waiter: asyncio.Future[Connection], error: TierError) -> None:
        if not waiter.done():
            waiter.set_exception(error)


async def connect(dsn: str, settings: Settings, longest: float) -> Connection:
    """A new connection; the server ends a statement or a transaction of it after `longest` seconds."""
    server: dict[str, str] = {"application_name": "llmcache_fast"}
    if not settings.pooler:
        # A pooler would have to be told to let these pass. What the client gave up must not go on.
        milliseconds = str(max(1, round(longest * 1000)))
        server |= {
            "lock_timeout": str(max(1, round(settings.budget * 1000))),
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "default_transaction_isolation": "read committed",
            "jit": "off",
        }
    return await asyncpg.connect(
        dsn,
        timeout=settings.connect_timeout,
        # Behind a pooler a named statement may be on another server connection than its next use.
        statement_cache_size=0 if settings.pooler else 100,
        max_cached_statement_lifetime=0,
        server_settings=server,
    )


def closed(operation: str) -> TierError:
    """What a tier that is not open answers."""
    return TierError("the tier is not open", tier=errors.NAME, operation=operation, reason="closed")


def desynchronised(connection: Connection, operation: str) -> TierError:
    """What rows that were not asked for mean: the connection is a reply behind or before, and is cut (I9)."""
    connection.terminate()
    return TierError(
        "a row came that was not asked for; the connection was cut",
        tier=errors.NAME,
        operation=operation,
        reason="desync",
    )


def _late(operation: str) -> TierUnavailableError:
    return TierUnavailableError(
        "the server did not answer in time", tier=errors.NAME, operation=operation, reason="timeout"
    )
