"""The servers that simulated processes share, and the network between: slow, lossy, cut, answering twice.

A server is the public double `MemoryTier` with what a real one has beside: a clock that steps, outages, and
for one that acknowledges before it is durable, failovers to an older copy. What does not belong here: when
any of it happens (`schedule`).
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import Message, PutReport, StoredRecord
from tests.simulation.loop import VirtualLoop

START = 1_700_000_000_000_000
"""Microseconds since 1970 at which worlds begin."""

PATIENCE = 0.9
"""Seconds after which an answer may come too late to be used: the budget of a cache for it, and less."""

PLAIN = ("get_many", "put_many", "delete_many", "purge", "clear", "scan", "discard_many")
AUTHORITY = ("raise_markers", "changes")
LEASES = ("get_or_lease_many", "lease_many", "renew_leases", "release_leases")


class Server(MemoryTier):
    """State that outlives processes. `apply` is one atomic step, as a script or a transaction is."""

    def __init__(self, name: str, loop: VirtualLoop, chance: random.Random) -> None:
        super().__init__(clock=lambda: START + round(loop.now * 1e6) + self.skew)
        self.name = name
        self.loop, self.chance = loop, chance
        self.skew = 0
        self.is_up = True
        self.following: dict[Link, Callable[[Message | None], None]] = {}
        self.waiting: dict[bytes, list[tuple[Link, asyncio.Future[None]]]] = {}
        self._tombstones: dict[bytes, tuple[int, int]] = {}
        self._copy: Any = None
        self.copied_at = 0.0

    async def _enter(self, operation: str) -> None:
        pass

    def apply(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        """The answer of an operation; none of them waits for anything."""
        if operation == "raise_markers":
            work = self.raise_markers(*arguments[:3], forget=arguments[3])
        else:
            work = getattr(self, operation)(*arguments)
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("an operation of a server waited")

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        stored = [record for record in records if not self._is_buried(record)]
        report = await super().put_many(stored)
        return report._replace(superseded=report.superseded + len(records) - len(stored))

    def _is_buried(self, record: StoredRecord) -> bool:
        epoch, seq = self._tombstones.get(record.key, (0, 0))
        return epoch == record.epoch and seq > record.snap

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        if stamp is not None:
            self._tombstones.update(dict.fromkeys(keys, stamp))
        return await super().delete_many(keys, stamp)

    def look_back(self, space: int, known: tuple[int, int]) -> None:
        """A clock that is behind what one who asks has seen of it begins a new life (as `lua/clock.lua`)."""
        epoch, seq = self._clock_of(space)
        if epoch == known[0] and seq < known[1]:
            self._clocks[space] = random.getrandbits(64), self._clock()
            self._markers.pop(space, None)
            self._rules.pop(space, None)

    # -- leases, by the loop's time: there is no task here to ask anyio in --------------------------

    def _lease(self, key: bytes, token: bytes, seconds: float) -> bool:
        if self._owner(key) not in (None, token):
            return False
        self._leases[key] = token, self.loop.now + seconds
        return True

    def _owner(self, key: bytes) -> bytes | None:
        token, until = self._leases.get(key, (None, 0.0))
        return token if self.loop.now < until else None

    async def release_leases(self, keys: Sequence[bytes], token: bytes) -> None:
        for key in keys:
            if self._owner(key) == token:
                del self._leases[key]
                for link, released in self.waiting.pop(key, ()):
                    link.hear_release(released)

    # -- messages -----------------------------------------------------------------------------------

    def _tell_all(self, message: Message) -> None:
        for link, heard in list(self.following.items()):
            link.carry(heard, message)

    # -- faults -------------------------------------------------------------------------------------

    def remember(self) -> None:
        """What a replica has by now."""
        state = self.records, self._clocks, self._markers, self._rules, self._tombstones
        self._copy = copy.deepcopy(state)
        self.copied_at = self.loop.now

    def fail_over(self) -> None:
        """Go on with what a replica had: what was acknowledged since is lost, and all connections are."""
        if self._copy is None:
            self.remember()
        state = copy.deepcopy(self._copy)
        self.records, self._clocks, self._markers, self._rules, self._tombstones = state
        self._leases.clear()
        self.disconnect()

    def disconnect(self) -> None:
        for link in list(self.following):
            link.disconnect()


class Path:
    """The network between one process and one server, whatever incarnation of the process uses it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.delay = 0.002
        """Seconds, at the most."""
        self.slow = 0.0
        """Share of calls and messages that take up to a hundred times as long."""
        self.lost = 0.0
        """Share of calls of which the request or the reply is lost."""
        self.doubled = 0.0
        """Share of requests and of messages that arrive twice."""
        self.unheard = 0.0
        """Share of messages that are lost."""
        self.is_cut = False
        self.swapped = 0
        """Replies to come that hold another record than was asked for."""

    def latency(self) -> float:
        seconds = self.delay * self.chance.random()
        return seconds * 100 if self.slow and self.chance.random() < self.slow else seconds

    def happens(self, share: float) -> bool:
        return share > 0 and self.chance.random() < share


class Link:
    """A server as one incarnation of a process sees it: the tier its cache is given."""

    def __init__(
        self, server: Server, path: Path, operations: Sequence[str], *, follows: bool, tells: bool
    ) -> None:
        self.server, self.path = server, path
        self.name = server.name
        self.is_dead = False
        self.synced: Callable[[frozenset[int], float], None] = lambda spaces, sent: None
        """Told of each answer to `changes`: about which namespaces, and when it was asked for."""
        self.committed: Callable[[int, frozenset[int | bytes]], None] = lambda space, targets: None
        """Told of each invalidation that the server executes."""
        self._known: dict[int, tuple[int, int]] = {}
        self._pending: dict[asyncio.Future[Any], None] = {}
        """In the order of their calls."""
        self._connection: asyncio.Future[None] | None = None
        for operation in operations:
            setattr(self, operation, self._caller(operation))
        if "lease_many" in operations:
            self.lease_released = self._lease_released
        if follows:
            self.follow = self._follow
        if tells:
            self.tell = self._caller("tell")

    def _caller(self, operation: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            if operation == "raise_markers":
                arguments = (*arguments[:2], *(arguments[2:] or ((),)), options.get("forget", ()))
            return await self._call(operation, arguments)

        return call

    async def open(self) -> None:
        if self.is_dead or self.path.is_cut or not self.server.is_up:
            raise self._gone("open")

    async def aclose(self) -> None:
        pass

    # -- calls --------------------------------------------------------------------------------------

    async def _call(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        path, loop = self.path, self.server.loop
        if self.is_dead:
            raise self._gone(operation)
        reply: asyncio.Future[Any] = loop.create_future()
        self._pending[reply] = None
        try:
            there, back = path.latency(), 0.0
            if path.happens(0.5):
                there, back = back, there
            if path.happens(path.doubled):
                loop.call_later(path.latency(), self._repeat, operation, arguments)
            sent = loop.now
            if there:
                loop.call_later(there, self._arrive, reply, operation, arguments, back)
            else:
                self._arrive(reply, operation, arguments, back)
            result = await reply
        finally:
            del self._pending[reply]
        self._note(operation, arguments, result, sent)
        return result

    def _arrive(
        self, reply: asyncio.Future[Any], operation: str, arguments: tuple[Any, ...], back: float
    ) -> None:
        path, loop = self.path, self.server.loop
        if path.is_cut or (path.lost and path.happens(path.lost / 2)):
            if not path.happens(0.5):  # else nothing comes back at all: a black hole
                loop.call_later(path.latency(), self._fail, reply, operation)
            return
        if not self.server.is_up:
            loop.call_later(path.latency(), self._fail, reply, operation)
            return
        result = self._execute(operation, arguments)
        if path.swapped and operation in ("get_many", "get_or_lease_many"):
            path.swapped -= 1
            result = self._of_others(result)
        if path.lost and path.happens(path.lost / 2):
            loop.call_later(back, self._fail, reply, operation)
        elif back:
            loop.call_later(back, self._answer, reply, result)
        else:
            self._answer(reply, result)

    def _execute(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        server = self.server
        if operation == "changes":
            for space, *known in arguments[0]:
                server.look_back(space, (known[0], known[1]))
                server.look_back(space, self._known.get(space, (0, 0)))
        elif operation == "raise_markers":
            server.look_back(arguments[0], self._known.get(arguments[0], (0, 0)))
            self.committed(arguments[0], frozenset((*arguments[1], *arguments[2])))
        return server.apply(operation, arguments)

    def _repeat(self, operation: str, arguments: tuple[Any, ...]) -> None:
        if self.server.is_up and not self.path.is_cut:
            self._execute(operation, arguments)

    def _note(self, operation: str, arguments: tuple[Any, ...], result: Any, sent: float) -> None:
        if operation == "changes":
            for (space, *_), changes in zip(arguments[0], result, strict=True):
                self._known[space] = changes.epoch, changes.seq
            if self.server.loop.now - sent < PATIENCE:
                self.synced(frozenset(each[0] for each in arguments[0]), sent)
        elif operation == "raise_markers":
            self._known[arguments[0]] = result.epoch, result.seq

    def _of_others(self, result: Any) -> Any:
        """As a connection does that handed one caller another's reply."""
        others = [record.envelope for record in list(self.server.records.values())[-3:]]
        if not others:
            return result
        other = self.path.chance.choice(others)
        return [(other, False) if isinstance(each, tuple) else other for each in result]

    def _answer(self, reply: asyncio.Future[Any], result: Any) -> None:
        if not reply.done():
            reply.set_result(result)

    def _fail(self, reply: asyncio.Future[Any], operation: str) -> None:
        if not reply.done():
            reply.set_exception(self._gone(operation))

    def _gone(self, operation: str) -> TierUnavailableError:
        return TierUnavailableError("simulated", tier=self.name, operation=operation, reason="connection")

    # -- what is waited for -------------------------------------------------------------------------

    async def _lease_released(self, key: bytes) -> None:
        released: asyncio.Future[None] = self.server.loop.create_future()
        self.server.waiting.setdefault(key, []).append((self, released))
        await released

    def hear_release(self, released: asyncio.Future[None]) -> None:
        if not self.path.is_cut and not self.path.happens(self.path.unheard):
            self.server.loop.call_later(self.path.latency(), self._answer, released, None)

    async def _follow(self, heard: Callable[[Message | None], None]) -> None:
        if self.is_dead or self.path.is_cut or not self.server.is_up:
            raise self._gone("follow")
        self._connection = self.server.loop.create_future()
        self.server.following[self] = heard
        try:
            heard(None)
            await self._connection
        finally:
            self.server.following.pop(self, None)

    def carry(self, heard: Callable[[Message | None], None], message: Message) -> None:
        """Bring a message: late, twice, in another order, or not at all."""
        path = self.path
        if path.is_cut or path.happens(path.unheard):
            return
        for _ in range(1 + path.happens(path.doubled)):
            self.server.loop.call_later(path.latency(), self._hear, heard, message)

    def _hear(self, heard: Callable[[Message | None], None], message: Message) -> None:
        if not self.is_dead and self in self.server.following:
            heard(message)

    def disconnect(self) -> None:
        if self._connection is not None and not self._connection.done():
            self._connection.set_exception(self._gone("follow"))

    def kill(self) -> None:
        """The process is gone: what it sent may still arrive, and nothing else of it."""
        self.is_dead = True
        for reply in list(self._pending):
            self._fail(reply, "killed")
        self.disconnect()
        self.server.following.pop(self, None)
