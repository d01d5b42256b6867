"""Redis under cancellations and losses: no caller ever gets another caller's reply, no connection leaks.

The short form runs in CI; `-m long` multiplies it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.redis import RedisTier, links
from tests.contract.clocks import clock_of, raise_markers
from tests.contract.tiers import key
from tests.servers.redis import RedisServer, StartRedis

KEYS = 64
CONNECTIONS = 4


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def envelope(number: int) -> bytes:
    return b"%d:" % number + b"x" * (number * 37 % 3000)


def stored(number: int) -> StoredRecord:
    return StoredRecord(key(number), envelope(number), 1, 1, NEVER, 0)


async def storm(url: str, calls: int) -> tuple[int, int, int]:
    """Wrong replies, cancellations, and connections left, of `calls` calls cancelled at random points."""
    tier = RedisTier.from_url(f"{url}&max_connections={CONNECTIONS}&budget=5")
    await tier.open()
    await tier.put_many([stored(n) for n in range(KEYS)])
    wrong = cancelled = 0
    rng = random.Random(7)
    left = calls

    async def get() -> None:
        nonlocal wrong
        numbers = rng.sample(range(2 * KEYS), rng.randint(1, 5))
        found = await tier.get_many([key(n) for n in numbers])
        wrong += found != [envelope(n) if n < KEYS else None for n in numbers]

    async def put() -> None:
        nonlocal wrong
        numbers = rng.sample(range(KEYS), rng.randint(1, 5))
        wrong += await tier.put_many([stored(n) for n in numbers]) != (len(numbers), 0, 0)

    async def mark() -> None:
        nonlocal wrong
        space = rng.randrange(4)
        _, before = await clock_of(tier, space)
        wrong += (await raise_markers(tier, space, [1]))[1] <= before

    async def lease() -> None:
        nonlocal wrong
        fingerprint = key(1000 + rng.randrange(8))
        ((found, _),) = await tier.get_or_lease_many([fingerprint], b"token", 5)
        wrong += found is not None

    async def worker() -> None:
        nonlocal left, wrong, cancelled
        while left > 0:
            left -= 1
            with anyio.CancelScope() as scope:
                # At a random point: after so many rounds of the loop, before the call is over.
                handle = asyncio.get_running_loop().call_later(rng.random() * 0.003, scope.cancel)
                try:
                    await rng.choice([get, get, put, mark, lease])()
                except TierError:
                    wrong += 1
                finally:
                    handle.cancel()
            cancelled += scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for _ in range(16):
            group.start_soon(worker)
    connections = tier.connections
    # Whatever is left in the pool answers for itself.
    for _ in range(2 * CONNECTIONS):
        try:
            await get()
        except TierError:
            wrong += 1
    try:
        await tier.clear()
    except TierError:
        wrong += 1
    await tier.aclose()
    return wrong, cancelled, connections


@pytest.mark.parametrize("calls", [3_000, pytest.param(100_000, marks=pytest.mark.long)])
@pytest.mark.timeout(1200)
async def test_a_storm_of_cancellations(redis_server: RedisServer, redis_prefix: str, calls: int) -> None:
    wrong, cancelled, connections = await storm(f"{redis_server.url}?prefix={redis_prefix}", calls)
    assert wrong == 0
    assert cancelled > calls / 20
    assert connections <= CONNECTIONS
    clients = redis_server.command("CLIENT", "LIST", "TYPE", "normal").splitlines()
    assert len(clients) <= 1 + CONNECTIONS  # the one that asks; the rest is about to be closed


async def test_the_storm_notices_a_connection_that_goes_back_with_an_unread_reply(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: what redis-py's own pool was seen to do."""

    async def careless(connection: Any, commands: Sequence[Any], operation: str) -> Any:
        await connection.send_packed_command(
            [links._pack(command) for command in commands], check_health=False
        )
        return links._Trip(connection, len(commands), b"", operation)

    async def unchecked(trip: Any, patience: Any) -> None:
        while len(trip.replies) < trip._count:
            trip.replies.append(await trip.connection.read_response(disconnect_on_error=False))

    async def always_clean(self: links.Server, operation: str) -> Any:
        if self._idle:
            connection = self._idle.pop()
            self._busy.add(connection)
            return connection
        return await take(self, operation)

    take = links.Server._take
    monkeypatch.setattr(links, "_sent", careless)
    monkeypatch.setattr(links._Trip, "receive", unchecked)
    monkeypatch.setattr(links.Server, "_take", always_clean)
    monkeypatch.setattr(links.Server, "_drop", links.Server._give_back)
    monkeypatch.setattr(links.Server, "_let_end", lambda self, trip, _: self._give_back(trip.connection))
    wrong, _, _ = await storm(f"{redis_server.url}?prefix={redis_prefix}", 1_000)
    assert wrong > 0


async def test_the_storm_notices_a_round_trip_that_nobody_ends(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: a cancelled one leaves its replies to the next."""
    monkeypatch.setattr(links.Server, "_let_end", lambda self, trip, _: self._give_back(trip.connection))
    wrong, _, _ = await storm(f"{redis_server.url}?prefix={redis_prefix}", 1_000)
    assert wrong > 0


async def lone_gets(server: RedisServer, prefix: str, calls: int) -> tuple[int, int, int]:
    """Wrong replies, cancellations, and connections made, of gets one after the other, most of them cut."""
    async with LLMCache(tiers=[f"{server.url}?prefix={prefix}&budget=5"]) as cache:
        keys = [cache.fingerprint({"n": number}) for number in range(KEYS)]
        for number, name in enumerate(keys):
            await cache.set(name, envelope(number))
        await cache.flush()
        before = connections_made(server)
        wrong = cancelled = 0
        rng = random.Random(7)
        for _ in range(calls):
            cache._clear()
            number = rng.randrange(KEYS)
            task = asyncio.ensure_future(cache.get(keys[number]))
            for _ in range(rng.randrange(12)):  # rounds of the event loop
                await asyncio.sleep(0)
            task.cancel()
            try:
                wrong += await task != envelope(number)
            except asyncio.CancelledError:
                cancelled += 1
        return wrong, cancelled, connections_made(server) - before


def connections_made(server: RedisServer) -> int:
    (line,) = (
        line for line in server.command("INFO", "stats").splitlines() if "connections_received" in line
    )
    return int(line.partition(":")[2])


async def test_lone_gets_that_are_cancelled_cost_no_connections(
    redis_server: RedisServer, redis_prefix: str
) -> None:
    wrong, cancelled, made = await lone_gets(redis_server, redis_prefix, 1_000)
    assert wrong == 0
    assert cancelled > 50
    assert made < cancelled / 4


async def test_a_connection_for_each_cancellation_would_be_noticed(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug."""
    monkeypatch.setattr(links.Server, "_let_end", lambda self, trip, _: self._drop(trip.connection))
    _, cancelled, made = await lone_gets(redis_server, redis_prefix, 1_000)
    assert made >= cancelled / 4


async def after_restarts(tier: RedisTier, server: RedisServer, rounds: int) -> int:
    """Restart empty so often, under load; how often the clock did not begin anew."""
    unnoticed = 0
    stop = False

    async def load(worker: int) -> None:
        number = worker
        while not stop:
            number += 8
            try:
                await tier.put_many([stored(number % 512)])
                found = await tier.get_many([key(number % 512)])
                assert found in ([envelope(number % 512)], [None])
            except TierError:
                await anyio.sleep(0.005)

    async def clock() -> tuple[int, int]:
        with anyio.fail_after(60):
            while True:
                try:
                    return await raise_markers(tier, 1, [1])
                except TierError:
                    await anyio.sleep(0.005)

    async with anyio.create_task_group() as group:
        for worker in range(8):
            group.start_soon(load, worker)
        last = await clock()
        for _ in range(rounds):
            await anyio.to_thread.run_sync(lambda: server.restart(empty=True))
            now = await clock()
            unnoticed += now[0] == last[0] or now[1] <= last[1]
            last = now
        stop = True
    return unnoticed


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.long)])
async def test_a_server_restarted_empty_under_load_begins_a_new_epoch_each_time(
    start_redis: StartRedis, rounds: int
) -> None:
    server = start_redis()
    tier = RedisTier.from_url(f"{server.url}?budget=1")
    await tier.open()
    assert await after_restarts(tier, server, rounds) == 0
    await tier.aclose()


async def test_an_epoch_that_is_not_random_is_noticed(
    start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: a clock that begins anew under its old name."""
    monkeypatch.setattr("llmcache_fast.tiers.redis.clocks.secrets.token_bytes", lambda size: b"\1" * size)
    server = start_redis()
    tier = RedisTier.from_url(f"{server.url}?budget=1")
    await tier.open()
    assert await after_restarts(tier, server, 1) == 1
    await tier.aclose()
