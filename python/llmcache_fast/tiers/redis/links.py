"""The connections to one server, and the round trip over one of them.

Isolation of replies rests on three rules:

- every round trip ends with a `PING` that carries a number of its own, and its replies count only when that
  number came back in its place: a connection that is a reply behind or ahead is noticed at once;
- a connection whose round trip did not end so (failed, out of time) is closed, never used again; one whose
  caller went away is kept if its round trip ends so all the same;
- a connection on which something waits to be read that nobody asked for is closed as well.

What is left (a server, or something between, that answers with another's record) the reader of the envelope
notices, and says so by `Server.distrust`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis import scripts
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.patience import Patience
from llmcache_fast.tiers.redis.replies import NAME, tier_error, unexpected
from llmcache_fast.tiers.signal import Running
from llmcache_fast.tiers.watch import Watch

_log = logging.getLogger("llmcache_fast.redis")

CONNECT_SECONDS = 1.0
"""A connection may take longer than a read's budget: it is made in the background, for the next read."""
MAX_UNHEARD = 8
"""Round trips that may go on without a caller: beyond it a cancellation closes the connection."""
_TICKS = 5
"""In a read's budget; a long round of the event loop uses up one."""
PAUSE_SECONDS = 0.1
"""After a connection could not be made, nobody tries again for so long."""
DISTRUST_SECONDS = 1.0
"""Least time between two closings of all connections: a wrong record that is stored asks for one a read."""

Command = tuple[bytes | str | int, ...]

# Its stub takes a tuple for one of a single item.
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]

_numbers = count(1)


class Server:
    """One server: at most `limit` connections, made when needed, kept when idle."""

    def __init__(self, address: Address, limit: int) -> None:
        self.address = address
        self._limit = limit
        self._idle: list[AbstractConnection] = []
        self._busy: set[AbstractConnection] = set()
        self._distrusted: set[AbstractConnection] = set()
        self._unheard = 0
        self._watch: Watch | None = None
        self._dials = 0
        self._waiting: deque[asyncio.Future[AbstractConnection]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._not_before = -math.inf
        self._distrusted_at = -math.inf
        self._refusal: TierError | None = None

    @property
    def connections(self) -> int:
        """Open now, busy ones included."""
        return len(self._idle) + len(self._busy)

    async def exchange(self, commands: Sequence[Command], budget: float, operation: str) -> list[Any]:
        """The reply to each command, in one round trip; an error is in its place, as exception.

        `budget` is the longest silence in seconds: several replies that keep arriving may take longer, one
        and the connection it needs may not. A cancellation is heeded at once.

        Raises:
            TierError: no connection (`busy` when all are in use), or none of the replies can be trusted.
        """
        connection: AbstractConnection | None = None
        trip: _Trip | None = None
        replies: list[Any] = []
        try:
            with Patience(self._watch or self._start_watch(), budget) as patience:
                connection = await self._take(operation)
                trip = await _sent(connection, commands, operation)
                await trip.receive(patience)
                replies, trip = trip.replies, None
                if exceptions.NoScriptError in map(type, replies):
                    await _teach(connection, commands, replies, patience, operation)
        except BaseException as error:
            if connection is not None:
                if isinstance(error, asyncio.CancelledError) and trip is not None and not self._closed:
                    self._let_end(trip, budget)
                else:
                    self._drop(connection)
            if self._closed and isinstance(error, Exception):
                raise _closed_error(operation) from None
            if isinstance(error, TimeoutError):
                raise self._out_of_time(operation, waited=connection is None) from None
            if isinstance(error, exceptions.RedisError | OSError):
                raise tier_error(error, operation) from None
            raise
        self._give_back(connection)
        return replies

    def distrust(self) -> None:
        """Close all connections, the busy ones after their round trip."""
        now = asyncio.get_running_loop().time()
        if now - self._distrusted_at < DISTRUST_SECONDS:
            return
        self._distrusted_at = now
        self._distrusted |= self._busy
        while self._idle:
            self._close(self._idle.pop())

    async def connect(self) -> AbstractConnection:
        """A connection outside the count, for one who listens; to be closed by who asked for it.

        Raises:
            RedisError | OSError | TimeoutError: there is none to be had.
        """
        connection = self.address.connection(CONNECT_SECONDS)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self._close(connection)
            raise
        return connection

    async def aclose(self) -> None:
        """Close all. Round trips under way fail with `closed`."""
        self._closed = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(_closed_error(""))
        for connection in [*self._idle, *self._busy]:
            self._close(connection)
        self._idle.clear()
        for task in self._tasks:
            if task.get_name() != "close":
                task.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.close()

    # -- connections ----------------------------------------------------------------------------------

    async def _take(self, operation: str) -> AbstractConnection:
        if self._closed:
            raise _closed_error(operation)
        while self._idle:
            connection = self._idle.pop()
            try:
                # Costs no system call. True as well when the server closed the connection.
                dirty = await connection.can_read()
            except (exceptions.RedisError, OSError):
                dirty = True
            if not dirty:
                self._busy.add(connection)
                return connection
            self._close(connection)
        loop = asyncio.get_running_loop()
        if len(self._busy) + self._dials < self._limit:
            if loop.time() >= self._not_before or self._refusal is None:
                self._dials += 1
                self._start(self._dial(operation), "dial")
            elif not self._busy and not self._dials:
                raise self._refusal.again()
        future: asyncio.Future[AbstractConnection] = loop.create_future()
        self._waiting.append(future)
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(future.result())
            raise

    async def _dial(self, operation: str) -> None:
        try:
            connection = await self.connect()
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            self._dials -= 1
            self._not_before = asyncio.get_running_loop().time() + PAUSE_SECONDS
            self._refusal = tier_error(error, operation)
            if not self._busy and not self._dials:
                # Nobody will give one back.
                while self._waiting:
                    future = self._waiting.popleft()
                    if not future.done():
                        future.set_exception(self._refusal.again())
            return
        except BaseException:
            self._dials -= 1
            raise
        self._dials -= 1
        self._refusal = None
        self._busy.add(connection)
        self._give_back(connection)

    def _give_back(self, connection: AbstractConnection) -> None:
        if self._closed or connection in self._distrusted:
            self._drop(connection)
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        self._busy.discard(connection)
        self._idle.append(connection)

    def _drop(self, connection: AbstractConnection) -> None:
        self._busy.discard(connection)
        self._distrusted.discard(connection)
        self._close(connection)
        # Its place is free for one who waits.
        if not self._closed and any(not future.done() for future in self._waiting):
            self._dials += 1
            self._start(self._dial("connect"), "dial")

    def _let_end(self, trip: _Trip, budget: float) -> None:
        """Receive what nobody waits for any more: a connection costs more than a reply."""
        if self._unheard >= min(MAX_UNHEARD, self._limit // 2):
            self._drop(trip.connection)
        else:
            self._unheard += 1
            self._start(self._end(trip, budget), "end")

    async def _end(self, trip: _Trip, budget: float) -> None:
        try:
            with Patience(self._watch or self._start_watch(), budget) as patience:
                await trip.receive(patience)
        except (exceptions.RedisError, OSError, TimeoutError, TierError):
            self._drop(trip.connection)
        except BaseException:
            self._drop(trip.connection)
            raise
        else:
            self._give_back(trip.connection)
        finally:
            self._unheard -= 1

    def _close(self, connection: AbstractConnection) -> None:
        self._start(_disconnect(connection), "close")

    def _start_watch(self) -> Watch:
        self._watch = watch = Watch(Running(), self.address.budget / _TICKS)
        return watch

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _out_of_time(self, operation: str, *, waited: bool) -> TierError:
        if not waited:
            message, reason = "the server did not answer in time", "timeout"
        elif self._busy:
            message, reason = f"all {len(self._busy)} connections are in use", "busy"
        else:
            message, reason = "no connection in time", "timeout"
        return TierError(message, tier=NAME, operation=operation, reason=reason)


class _Trip:
    """Commands that are on their way over a connection, and the replies so far."""

    __slots__ = ("_count", "_number", "_operation", "connection", "replies")

    def __init__(self, connection: AbstractConnection, count: int, number: bytes, operation: str) -> None:
        self.connection = connection
        self.replies: list[Any] = []
        self._count = count
        self._number = number
        self._operation = operation

    async def receive(self, patience: Patience) -> None:
        """Receive the replies that are not there yet. What is cancelled here can be called again.

        Raises:
            TierError: they are those to other commands.
        """
        replies, count = self.replies, self._count
        read = self.connection.read_response
        while len(replies) < count:
            try:
                # A half-read reply stays where it is when this is cancelled.
                replies.append(await read(disconnect_on_error=False))
            except exceptions.ResponseError as error:
                replies.append(error)
            if len(replies) < count:
                patience.progress()
        try:
            last = await read(disconnect_on_error=False)
        except exceptions.ResponseError as error:
            last = error
        if last != self._number:
            if isinstance(last, exceptions.NoPermissionError):
                raise last
            _log.warning("%s: a connection gave replies to other commands and was closed", self._operation)
            raise TierError(
                "the replies are not those to these commands",
                tier=NAME,
                operation=self._operation,
                reason="desynchronised",
            )


async def _sent(connection: AbstractConnection, commands: Sequence[Command], operation: str) -> _Trip:
    """Send commands in one go. Cancelled, it leaves a connection that is to be closed."""
    number = b"%d" % next(_numbers)
    packed = [_pack(command) for command in (*commands, (b"PING", number))]
    await connection.send_packed_command(packed, check_health=False)
    return _Trip(connection, len(commands), number, operation)


async def _teach(
    connection: AbstractConnection,
    commands: Sequence[Command],
    replies: list[Any],
    patience: Patience,
    operation: str,
) -> None:
    """Run again what failed because the server does not know the script, with its text."""
    places = [n for n, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
    again: list[Command] = []
    taught: set[bytes | str | int] = set()
    for place in places:
        command = commands[place]
        if command[0] != b"EVALSHA":
            unexpected(operation)  # another's reply
        digest = command[1]
        if digest not in taught and isinstance(digest, bytes):
            taught.add(digest)
            command = (b"EVAL", scripts.TEXTS[digest], *command[2:])
        again.append(command)
    patience.progress()
    fresh = await _sent(connection, again, operation)
    await fresh.receive(patience)
    for place, reply in zip(places, fresh.replies, strict=True):
        replies[place] = reply


async def _disconnect(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (exceptions.RedisError, OSError) as error:
        _log.debug("closing a connection: %s", type(error).__name__)


def _closed_error(operation: str) -> TierError:
    return TierError("the tier is not open", tier=NAME, operation=operation, reason="closed")
