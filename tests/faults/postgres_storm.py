"""Callers of a Postgres tier who are cancelled at random points, behind a proxy that delays the replies.

Every reply names the key it is of, so a caller who gets another's reply notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres.connections import Connections

KEYS = 200


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(number: int, snap: int = 1) -> StoredRecord:
    return StoredRecord(key(number), key(number) + b" %d" % snap, 1, snap, NEVER, 1)


@contextlib.asynccontextmanager
async def delaying_proxy(port: int, delay: float) -> AsyncIterator[int]:
    """The port of a proxy that holds what the server says for up to `delay` seconds."""
    rng = random.Random(1)

    async def pump(source: SocketStream, sink: SocketStream, longest: float) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            while True:
                data = await source.receive()
                if longest:
                    await anyio.sleep(rng.random() * longest)
                await sink.send(data)
        await sink.aclose()

    async def serve(client: SocketStream) -> None:
        server = await anyio.connect_tcp("127.0.0.1", port)
        async with client, server, anyio.create_task_group() as group:
            group.start_soon(pump, client, server, 0)
            await pump(server, client, delay)
            group.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def storm(tier: PostgresTier, cancellations: int, seed: int = 1) -> Counter[str]:
    """Callers until so many were cancelled; counts by what became of them.

    Four kinds: a task cancelled from outside, a deadline, a cancelled scope, and a whole group of callers.
    """
    counts: Counter[str] = Counter()
    rng = random.Random(seed)

    async def read() -> None:
        numbers = rng.sample(range(KEYS), rng.randint(1, 5))
        found = await tier.get_many([key(number) for number in numbers])
        right = len(found) == len(numbers) and all(
            envelope is not None and envelope.startswith(key(number) + b" ")
            for number, envelope in zip(numbers, found, strict=False)
        )
        counts["right" if right else "wrong"] += 1

    async def lease() -> None:
        numbers = rng.sample(range(KEYS), 3)
        found = await tier.get_or_lease_many([key(number) for number in numbers], b"t", 1)
        right = [envelope is not None and envelope[:32] for envelope, _ in found] == list(map(key, numbers))
        counts["right" if right else "wrong"] += 1

    async def write() -> None:
        numbers = rng.sample(range(KEYS), rng.randint(1, 5))
        report = await tier.put_many([record(number, rng.randint(1, 99)) for number in numbers])
        counts["right" if sum(report) == len(numbers) else "wrong"] += 1

    async def caller() -> None:
        try:
            await rng.choice([read, read, lease, write])()
        except TierError as error:
            counts[error.reason] += 1
        except asyncio.CancelledError:
            counts["cancelled"] += 1
            raise

    async def by_task(after: float) -> None:
        task = asyncio.ensure_future(caller())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait([task])

    async def by_deadline(after: float) -> None:
        with anyio.move_on_after(after):
            await caller()

    async def by_scope(after: float) -> None:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(after, scope.cancel)
            await caller()

    async def by_group(after: float) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(caller)
            await anyio.sleep(after)
            group.cancel_scope.cancel()

    async def worker() -> None:
        while counts["cancelled"] < cancellations and not counts["wrong"]:
            await rng.choice([by_task, by_deadline, by_scope, by_group])(rng.random() * 0.04)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(worker)
    return counts


async def slots_lost(tier: PostgresTier) -> int:
    """How many of the tier's connections can no longer be had."""
    pool = tier._pool
    assert pool is not None
    size = tier.settings.connections
    together = asyncio.Barrier(size)

    async def work(connection: Any) -> None:
        await connection.execute("SELECT 1")
        async with asyncio.timeout(2):
            await together.wait()

    calls = [asyncio.ensure_future(pool.call("test", work, 2.0)) for _ in range(size)]
    await asyncio.wait(calls)
    if not any(call.exception() for call in calls):
        return 0
    return pool.statistics().lent or size


class LeakyConnections(Connections):
    """Planted bug: a caller who is cancelled takes its connection along."""

    async def call(self, operation: str, work: Callable[[Any], Awaitable[Any]], budget: float) -> Any:
        connection = await self._lend(operation, asyncio.get_running_loop().time() + budget)
        result = await work(connection)
        self._give_back(connection)
        return result


class OneBehindConnections(Connections):
    """Planted bug: the reply that a cancelled caller did not wait for is the next caller's."""

    _unread: deque[tuple[str, asyncio.Task[Any]]]

    async def call(self, operation: str, work: Callable[[Any], Awaitable[Any]], budget: float) -> Any:
        unread = self.__dict__.setdefault("_unread", deque())
        task = asyncio.ensure_future(super().call(operation, work, budget))
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if operation == "get_many":
                unread.append(task)
            raise
        return await unread.popleft() if unread and operation == "get_many" else result
