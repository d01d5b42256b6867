"""Replies swapped, duplicated and dropped on their way to whole caches: nobody is given another's value (I9).

Several caches of two namespaces share a server behind the proxy. Short in CI; `-m long` is 10,000 faults.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, _entry
from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier
from tests.faults.frames import is_of_a_statement, postgres_reply, resp_reply
from tests.faults.proxy import Fault, Proxy
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

pytestmark = [
    pytest.mark.timeout(1800),
    # asyncpg's half-made connections raise when they are collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAMESPACES = ("one", "one", "one", "two")
"""Of the caches."""
CALLERS = 6
"""Of each cache."""
REQUESTS = 24
BUDGET = 0.1
HEAL = 30.0
Chances = dict[Fault, float]
REDIS: Chances = {"swap": 0.05, "swap_between": 0.1, "duplicate": 0.01, "drop": 0.005}
POSTGRES: Chances = {"swap_between": 0.3, "duplicate": 0.02, "drop": 0.005}
"""Its driver has one question at a time on a connection: there is nothing to swap with on the same."""
NEVER_OPENS = BreakerOptions(window=10**6, least=10**6)
"""An open breaker keeps callers from the faults that are to meet them."""

TierAt = Callable[[int], Tier]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Seen:
    """What the callers got and what the caches counted."""

    calls: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    strange: int = 0
    """Records of another request that came as far as the reader of envelopes."""
    incidents: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    bugs: int = 0
    """Replies that a tier was not prepared for: it raised what no tier may."""
    faults: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    """Made after the first."""


def right(namespace: str, number: int) -> str:
    return f"{namespace} answers {number}: " + "x" * (number * 41 % 700)


@asynccontextmanager
async def caches(tier_at: TierAt, proxy: Proxy) -> AsyncIterator[list[LLMCache]]:
    async with AsyncExitStack() as stack:
        opened = []
        for namespace in NAMESPACES:
            tier = GuardedTier(tier_at(proxy.port), GuardOptions(breaker=NEVER_OPENS))
            cache = LLMCache(tiers=[tier], namespace=namespace, ttl=None, lease_wait=1.0, compress=False)
            opened.append(await stack.enter_async_context(cache))
        yield opened


async def call(cache: LLMCache, rng: random.Random, seen: Seen) -> None:
    """One call of a caller; memory has forgotten what it knew, so that it goes to the tier."""
    namespace, number = cache.options.namespace, rng.randrange(REQUESTS)
    request = {"n": number}
    cache._clear()
    seen.calls += 1
    try:
        match rng.randrange(6):
            case 0:
                await cache.set(request, right(namespace, number))
            case 1 | 2:
                value = await cache.get_or_compute(request, lambda: compute(namespace, number))
                seen.wrong += value != right(namespace, number)
            case _:
                value = await cache.get(request)
                seen.wrong += value not in (None, right(namespace, number))
    except Exception as error:
        seen.errors[type(error).__name__] += 1


async def compute(namespace: str, number: int) -> str:
    await anyio.sleep(0.002)  # so that the other cache of the namespace waits for it
    return right(namespace, number)


async def calls(
    proxy: Proxy, chances: Chances, tier_at: TierAt, faults: int, monkeypatch: pytest.MonkeyPatch
) -> Seen:
    """Calls until the proxy has done so many faults; then all is well, and every cache must work again."""
    seen = Seen()
    decode = _entry.from_envelope

    def watched(data: bytes, namespace: str, key: bytes, **options: Any) -> Any:
        # The fingerprint stands in a record that is not sealed: this needs no decoder.
        seen.strange += key not in data
        return decode(data, namespace, key, **options)

    def unprepared(self: GuardedTier, operation: str, error: Exception) -> TierError:
        seen.bugs += not isinstance(error, TierError)
        return own_error(self, operation, error)

    own_error = GuardedTier._own_error
    monkeypatch.setattr(GuardedTier, "_own_error", unprepared)
    monkeypatch.setattr(_entry, "from_envelope", watched)
    # What a driver raises in callbacks of the event loop is told to the loop's handler, and to no caller.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with proxy, caches(tier_at, proxy) as opened:
        for cache in opened:
            for number in range(REQUESTS):
                await cache.set({"n": number}, right(cache.options.namespace, number))
            await cache.flush(HEAL)
        first = proxy.counts["connections"]
        proxy.chances.update(chances)

        async def caller(cache: LLMCache, seed: int) -> None:
            rng = random.Random(seed)
            while not seen.wrong and sum(proxy.counts[fault] for fault in chances) < faults:
                await call(cache, rng, seen)

        async with anyio.create_task_group() as group:
            for seed in range(CALLERS * len(opened)):
                group.start_soon(caller, opened[seed % len(opened)], seed)
        seen.faults.update({fault: proxy.counts[fault] for fault in chances})
        proxy.well()
        for cache in opened:
            with anyio.fail_after(HEAL):
                while not await works(cache):  # noqa: ASYNC110 - on a state, not for a time
                    await anyio.sleep(0.02)
            tier = cache.stats().tiers[0]
            seen.incidents.update(tier.incidents)
            seen.failures += tier.errors + sum(lane.failures for lane in tier.guard.values())
        seen.connections = proxy.counts["connections"] - first
    return seen


async def works(cache: LLMCache) -> bool:
    """Whether all that is stored comes back from the tier, to the one who asks for it."""
    namespace = cache.options.namespace
    for number in range(REQUESTS):
        await cache.set({"n": number}, right(namespace, number))
    await cache.flush(HEAL)
    cache._clear()
    before = cache.stats().tiers[0].hits
    for number in range(REQUESTS):
        if await cache.get({"n": number}) != right(namespace, number):
            return False
    return cache.stats().tiers[0].hits == before + REQUESTS


def check(seen: Seen, faults: int) -> None:
    print(f"{seen.wrong} of {seen.calls} wrong; {seen}")  # noqa: T201 - figures for a reader
    assert seen.wrong == 0
    assert seen.errors == {}
    assert seen.bugs == 0
    assert sum(seen.faults.values()) >= faults
    assert min(seen.faults.values()) > 0, "a kind of fault never came about"
    assert seen.incidents.total() == seen.strange, "a record of another request was passed over in silence"
    # Whatever else was noticed cost its connection.
    assert seen.connections > 0
    assert seen.failures > 0


def redis_at(server: RedisServer, prefix: str) -> TierAt:
    return lambda port: RedisTier.from_url(
        f"{server.url.replace(str(server.port), str(port))}?prefix={prefix}&budget={BUDGET}&max_connections=8"
    )


def postgres_at(server: PostgresServer, url: str) -> TierAt:
    return lambda port: PostgresTier.from_url(
        f"{url.replace(f':{server.port}/', f':{port}/')}?budget={BUDGET}&connections=6&connect_timeout=1"
    )


async def redis_calls(server: RedisServer, prefix: str, faults: int, monkeypatch: pytest.MonkeyPatch) -> Seen:
    proxy = Proxy(server.port, resp_reply, seed=11)
    return await calls(proxy, REDIS, redis_at(server, prefix), faults, monkeypatch)


async def postgres_calls(
    server: PostgresServer,
    url: str,
    faults: int,
    monkeypatch: pytest.MonkeyPatch,
    chances: Chances = POSTGRES,
) -> Seen:
    # By the socket no password is asked for: connections, of which many are made here, are cheap.
    proxy = Proxy(str(server.folder / f".s.PGSQL.{server.port}"), postgres_reply, seed=11)
    proxy.replaceable = is_of_a_statement
    return await calls(proxy, chances, postgres_at(server, url), faults, monkeypatch)


@pytest.mark.parametrize("faults", [600, pytest.param(10_000, marks=pytest.mark.long)])
async def test_redis_gives_nobody_a_reply_of_another(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    seen = await redis_calls(redis_server, redis_prefix, faults, monkeypatch)
    check(seen, faults)
    assert seen.strange > 0, "no fault got past the connections: the reader of envelopes was not tried"


@pytest.mark.parametrize("faults", [100, pytest.param(10_000, marks=pytest.mark.long)])
async def test_postgres_gives_nobody_a_reply_of_another(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    check(await postgres_calls(postgres_server, postgres_url, faults, monkeypatch), faults)


# -- the planted bugs: both tests find a reader that checks nothing -----------------------------------------


def believe(data: bytes, namespace: str, key: bytes, **options: Any) -> tuple[Any, str]:
    """Take a record for what it says it is of (docs/reference/envelope.md), whatever was asked for."""
    if len(data) < 112:
        return None, "truncated"
    size = int.from_bytes(data[18:20], "little")
    entry, reason = read(data, data[112 : 112 + size].decode(errors="replace"), data[80:112], **options)
    return (None, reason) if entry is None else (entry._replace(key=key, namespace=namespace), "")


read = _entry.from_envelope


async def test_a_redis_reader_that_believes_any_record_is_found_out(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_entry, "from_envelope", believe)
    assert (await redis_calls(redis_server, redis_prefix, 2_000, monkeypatch)).wrong > 0


async def test_a_postgres_reader_that_believes_any_row_is_found_out(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get_many(self: PostgresTier, keys: Any) -> list[bytes | None]:
        async def work(connection: Any) -> list[bytes | None]:
            rows = await connection.fetch(self._sql.get, list(keys))
            return [row[1] for row in rows][: len(keys)] + [None] * (len(keys) - len(rows))

        return await self._call("get_many", work)

    monkeypatch.setattr(PostgresTier, "get_many", get_many)
    monkeypatch.setattr(_entry, "from_envelope", believe)
    chances: Chances = {"swap_between": 0.3}
    assert (await postgres_calls(postgres_server, postgres_url, 2_000, monkeypatch, chances)).wrong > 0
