"""Which server a command goes to: the only one, or the node that serves its slot."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis import exceptions
from redis.crc import key_slot

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.links import Command, Server
from llmcache_fast.tiers.redis.replies import NAME, accepted, tier_error, unexpected

_log = logging.getLogger("llmcache_fast.redis")

SLOTS = 16384
_REDIRECTIONS = 4
_LEARN_SECONDS = 0.5
"""Least time between two questions for the cluster's layout."""


class Task(NamedTuple):
    """A command, and the key that says where it must run; all its keys are of that key's slot."""

    key: bytes
    command: Command


class Route(Protocol):
    """The way to the server or servers."""

    async def open(self, budget: float) -> None:
        """Know where to go. Raises: TierError."""
        ...

    async def run(self, tasks: Sequence[Task], budget: float, operation: str) -> list[Any]:
        """The reply to each, in as many round trips at once as there are servers concerned.

        An error of one command or one server is in its place, as exception.

        Raises:
            TierError: no server could be asked.
        """
        ...

    def slot(self, key: bytes) -> int:
        """Keys of one slot may be named in one command."""
        ...

    def primaries(self) -> list[Server]:
        """Every server that holds entries."""
        ...

    def servers(self) -> list[Server]:
        """Every server there are connections to."""
        ...

    async def aclose(self) -> None: ...


class Single:
    """One server for everything."""

    def __init__(self, address: Address) -> None:
        self._server = Server(address, address.max_connections)

    async def open(self, budget: float) -> None:
        await self._server.exchange([], budget, "open")

    async def run(self, tasks: Sequence[Task], budget: float, operation: str) -> list[Any]:
        return await self._server.exchange([task.command for task in tasks], budget, operation)

    def slot(self, key: bytes) -> int:
        return 0

    def primaries(self) -> list[Server]:
        return [self._server]

    def servers(self) -> list[Server]:
        return [self._server]

    async def aclose(self) -> None:
        await self._server.aclose()


class Cluster:
    """The nodes of a Redis cluster. Reads too go to the primaries: a replica may lag behind an invalidation.

    The layout is asked for at the start, when a node redirects, and when a node cannot be reached.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._nodes: dict[tuple[str, int], Server] = {}
        self._slots: list[Server | None] = [None] * SLOTS
        self._learning: asyncio.Task[None] | None = None
        self._learned_at = -math.inf
        self._seed = self._node(address.host, address.port)

    async def open(self, budget: float) -> None:
        await self._learn(budget)

    async def run(self, tasks: Sequence[Task], budget: float, operation: str) -> list[Any]:
        replies: list[Any] = [None] * len(tasks)
        # Place and slot; the server, if a node named another one for now (ASK).
        pending: list[tuple[int, Server | None]] = [(place, None) for place in range(len(tasks))]
        for _ in range(_REDIRECTIONS):
            groups: dict[Server, list[tuple[int, bool]]] = {}
            for place, asked in pending:
                server = asked or self._slots[self.slot(tasks[place].key)] or self._seed
                groups.setdefault(server, []).append((place, asked is not None))
            outcomes = await asyncio.gather(
                *(
                    self._ask(
                        server, [(tasks[place].command, asking) for place, asking in group], budget, operation
                    )
                    for server, group in groups.items()
                )
            )
            pending = []
            for group, outcome in zip(groups.values(), outcomes, strict=True):
                for (place, _), reply in zip(group, outcome, strict=True):
                    replies[place] = reply
                    if isinstance(reply, exceptions.MovedError):
                        self._moved(reply)
                        pending.append((place, None))
                    elif isinstance(reply, exceptions.AskError):
                        pending.append((place, self._node(reply.host, reply.port)))
                    elif isinstance(reply, exceptions.ClusterDownError | exceptions.TryAgainError):
                        # Of this slot alone, for the moment: as if its node did not answer.
                        replies[place] = tier_error(reply, operation)
                        self._learn_soon()
            if not pending:
                break
        failures = [reply for reply in replies if isinstance(reply, TierError)]
        if failures and len(failures) == len(replies):
            raise failures[0]
        return replies

    def slot(self, key: bytes) -> int:
        return key_slot(key)

    def primaries(self) -> list[Server]:
        return list({server for server in self._slots if server is not None})

    def servers(self) -> list[Server]:
        return list(self._nodes.values())

    async def aclose(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        for server in self._nodes.values():
            await server.aclose()

    async def _ask(
        self, server: Server, commands: Sequence[tuple[Command, bool]], budget: float, operation: str
    ) -> list[Any]:
        wire: list[Command] = []
        for command, asking in commands:
            wire += [(b"ASKING",), command] if asking else [command]
        try:
            replies = await server.exchange(wire, budget, operation)
        except TierError as error:
            # Its replica may have taken over.
            self._learn_soon()
            return [error.again() for _ in commands]
        kept = iter(replies)
        return [(next(kept), next(kept))[1] if asking else next(kept) for _, asking in commands]

    def _node(self, host: str, port: int) -> Server:
        server = self._nodes.get((host, port))
        if server is None:
            server = self._nodes[host, port] = Server(
                self._address.at(host, port), self._address.max_connections
            )
        return server

    def _moved(self, reply: exceptions.MovedError) -> None:
        self._slots[reply.slot_id] = self._node(reply.host or self._address.host, reply.port)
        self._learn_soon()

    def _learn_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if (
            self._learning is None or self._learning.done()
        ) and loop.time() > self._learned_at + _LEARN_SECONDS:
            self._learned_at = loop.time()
            self._learning = loop.create_task(self._learn_quietly())

    async def _learn_quietly(self) -> None:
        try:
            await self._learn(_LEARN_SECONDS)
        except TierError as error:
            _log.debug("the cluster's layout could not be asked for: %s", error.message)

    async def _learn(self, budget: float) -> None:
        """Ask one node after the other for the layout until one answers."""
        nodes = [*self._nodes.values()]
        random.shuffle(nodes)
        failure: TierError | None = None
        for server in nodes:
            try:
                (reply,) = await server.exchange([(b"CLUSTER", b"SLOTS")], budget, "cluster")
                self._slots = self._layout(accepted(reply, "cluster"), server)
            except TierError as error:
                failure = error
            else:
                return
        raise failure or TierError("no node is known", tier=NAME, operation="cluster", reason="cluster")

    def _layout(self, reply: Any, answered: Server) -> list[Server | None]:
        """The servers by slot, from `[[first, last, [host, port, …], …], …]`."""
        slots: list[Server | None] = [None] * SLOTS
        try:
            for first, last, primary, *_ in reply:
                host = primary[0].decode() if primary[0] else answered.address.host
                slots[first : last + 1] = [self._node(host, primary[1])] * (last + 1 - first)
        except (TypeError, ValueError, AttributeError, IndexError):
            unexpected("cluster")
        if len(slots) != SLOTS or not any(slots):
            raise TierError(
                "the node serves no slots: the cluster is not set up",
                tier=NAME,
                operation="cluster",
                reason="cluster",
            )
        return slots
