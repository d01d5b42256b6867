"""Members of partitions on servers, beyond the contract: what is left there, and who overtakes whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import StoredRecord, arrival_of
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres import partitions as in_postgres
from llmcache_fast.tiers.postgres.statements import Statements
from llmcache_fast.tiers.redis import RedisTier, scripts
from llmcache_fast.tiers.redis import partitions as in_redis
from llmcache_fast.tiers.redis.routing import Cluster
from tests.contract.test_members_contract import follow, partition, record
from tests.contract.tiers import key
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer, StartRedis


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def redis(redis_server: RedisServer, redis_prefix: str, anyio_backend: str) -> AsyncIterator[RedisTier]:
    tier = RedisTier.from_url(f"{redis_server.url}?prefix={redis_prefix}&budget=5")
    await tier.open()
    yield tier
    await tier.aclose()


@pytest.fixture
async def postgres(postgres_url: str, anyio_backend: str) -> AsyncIterator[PostgresTier]:
    tier = PostgresTier.from_url(postgres_url + "?budget=5")
    await tier.open()
    yield tier
    await tier.aclose()


async def command(tier: RedisTier, *words: Any) -> Any:
    assert tier._route is not None
    (server,) = tier._route.servers()
    (reply,) = await server.exchange([words], 5.0, "test")
    return reply


def name(tier: RedisTier, of: int = 0) -> bytes:
    return tier._partitions.name(partition(of))


# -- Redis -------------------------------------------------------------------------------------------------


async def test_a_set_lives_as_long_as_its_longest_lived_member(redis: RedisTier) -> None:
    now = redis._clock()

    async def left() -> int:
        seconds: int = await command(redis, b"TTL", name(redis))
        return seconds

    await redis.put_many([record(1, stale_until=now + 100_000_000)])
    assert 90 <= await left() <= 100
    await redis.put_many([record(2, stale_until=now + 10_000_000)])
    assert 90 <= await left() <= 100
    await redis.put_many([record(n, stale_until=now + n * 100_000_000) for n in (3, 1)])
    assert 290 <= await left() <= 300
    await redis.put_many([record(4, stale_until=NEVER)])
    assert await left() == -1
    await redis.put_many([record(5, stale_until=now + 1_000_000_000)])
    assert await left() == -1


async def test_members_whose_records_are_gone_are_taken_out_when_they_are_met(redis: RedisTier) -> None:
    await redis.put_many([record(n) for n in range(6)])
    for number in (1, 3):
        assert await command(redis, b"DEL", redis._key(key(number))) == 1
    await redis.delete_many([key(5)], (1, 11))  # leaves a tombstone
    assert await command(redis, b"ZCARD", name(redis)) == 6
    assert (await follow(redis))[0] == [key(0), key(2), key(4)]
    assert await command(redis, b"ZCARD", name(redis)) == 3
    await redis.delete_many([key(0), key(2), key(4)])
    found, cursor = await redis.members(partition(0))
    # Nothing was found, and the cursor goes on all the same.
    assert found == []
    assert cursor is not None
    assert await command(redis, b"EXISTS", name(redis)) == 0
    await redis.put_many([record(2)])
    assert (await follow(redis, cursor))[0] == [key(2)]


async def test_what_arrives_again_while_it_is_found_gone_stays(
    redis: RedisTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a record and its being taken out it is written again."""
    await redis.put_many([record(1)])
    await redis.delete_many([key(1)])
    route = redis._route
    assert route is not None
    run = route.run

    async def overtaken(tasks: Any, budget: float, operation: str) -> Any:
        if operation == "members" and tasks[0].command[1] == scripts.LEAVE:
            monkeypatch.undo()
            await redis.put_many([record(1)])
        return await run(tasks, budget, operation)

    monkeypatch.setattr(route, "run", overtaken)
    found, cursor = await redis.members(partition(0))
    assert found == []
    assert (await follow(redis, cursor))[0] == [key(1)]


async def test_arrivals_only_grow_whatever_the_servers_clock_does(redis: RedisTier) -> None:
    await redis.put_many([record(1)])
    late = 2**52 + 10  # as if the clock had been ahead
    await command(redis, b"ZADD", name(redis), late, key(1))
    _, cursor = await follow(redis)
    await redis.put_many([record(n) for n in (2, 3)])
    found, cursor = await follow(redis, cursor)
    assert found == [key(2), key(3)]
    assert cursor is not None
    assert arrival_of(cursor) == late + 2


async def test_the_newest_members_are_kept(redis: RedisTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_redis, "MAX_MEMBERS", 5)
    await redis.put_many([record(n) for n in range(4)])
    await redis.put_many([record(n) for n in range(4, 8)])
    assert (await follow(redis))[0] == [key(n) for n in range(3, 8)]


async def test_a_batch_with_partitions_is_one_round_trip(
    redis: RedisTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = redis._route
    assert route is not None
    run, trips = route.run, []

    async def counted(tasks: Any, budget: float, operation: str) -> Any:
        trips.append(len(tasks))
        return await run(tasks, budget, operation)

    monkeypatch.setattr(route, "run", counted)
    await redis.put_many([record(n, n % 3) for n in range(30)])
    await redis.put_many([record(n, None) for n in range(30)])
    assert trips == [1 + 3, 1]


async def test_a_record_is_there_before_it_is_listed(redis_cluster: RedisServer, redis_prefix: str) -> None:
    """In a cluster set and record are on two nodes: the set comes second."""
    tier = RedisTier.from_url(f"{redis_cluster.url}?prefix={redis_prefix}&budget=5")
    await tier.open()
    route = tier._route
    assert isinstance(route, Cluster)
    run, seen = route.run, []

    async def watched(tasks: Any, budget: float, operation: str) -> Any:
        if operation == "put_many":
            seen.append({task.command[1] for task in tasks})
        return await run(tasks, budget, operation)

    route.run = watched  # type: ignore[method-assign]
    await tier.put_many([record(n) for n in range(20)])
    assert seen == [{scripts.PUT}, {scripts.JOIN}]
    await tier.clear()
    assert await tier.members(partition(0)) == ([], None)
    await tier.aclose()


async def test_a_user_of_an_older_version_is_told(start_redis: StartRedis) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "cache", "on", ">secret", "~lc:*", "+@all", "-persist", "-pttl")
    tier = RedisTier.from_url(server.url.replace("://", "://cache:secret@"))
    await tier.open()
    assert await tier.put_many([record(1, None)]) == (1, 0, 0)
    with pytest.raises(TierUnavailableError, match="prints the permissions"):
        await tier.put_many([record(2)])
    # It is there, and can be put again.
    assert await tier.get_many([key(1), key(2)]) == [b"x", b"x"]
    await tier.aclose()


# -- Postgres ----------------------------------------------------------------------------------------------


async def test_a_batch_that_is_committed_later_arrives_later(
    postgres: PostgresTier, postgres_url: str
) -> None:
    """One connection has written and not committed; what another writes meanwhile must not hide it."""
    sql = Statements.of("llmcache")
    slow = await asyncpg.connect(postgres_url)
    open_transaction = slow.transaction()
    await open_transaction.start()
    await slow.execute(*in_postgres.writing(sql, [record(1)], None))
    ended = anyio.Event()

    async def fast() -> None:
        await postgres.put_many([record(2)])
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(fast)
        # Another partition waits for nobody.
        await postgres.put_many([record(3, 1), record(4, None)])
        assert (await follow(postgres, of=1))[0] == [key(3)]
        first, cursor = await postgres.members(partition(0))
        assert (first, cursor) == ([], None)
        assert not ended.is_set()
        await open_transaction.commit()
    found, cursor = await follow(postgres, cursor)
    assert found == [key(1), key(2)]
    await slow.close()


async def test_a_batch_that_was_rolled_back_never_arrived(postgres: PostgresTier, postgres_url: str) -> None:
    other = await asyncpg.connect(postgres_url)
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with other.transaction():
            await other.execute(*in_postgres.writing(Statements.of("llmcache"), [record(1)], None))
            await other.execute("SELECT 1 / 0")
    await other.close()
    await postgres.put_many([record(2)])
    assert (await follow(postgres))[0] == [key(2)]


async def test_batches_of_many_partitions_do_not_wait_for_one_another_in_a_circle(
    postgres: PostgresTier,
) -> None:
    async def work(worker: int) -> None:
        for turn in range(15):
            order = range(24) if (worker + turn) % 2 else reversed(range(24))
            lot = [record(n, (n * 7 + worker) % 5, snap=turn) for n in order]
            await postgres.put_many([*lot, record(100 + worker, None)])

    async with anyio.create_task_group() as group:
        for worker in range(6):
            group.start_soon(work, worker)
    members = [found for of in range(5) for found in (await follow(postgres, of=of))[0]]
    assert sorted(members) == sorted(key(n) for n in range(24))


async def test_a_clock_that_goes_back_does_not_take_arrivals_back(postgres_url: str) -> None:
    clock = ManualClock()
    tier = PostgresTier.from_url(postgres_url + "?budget=5", clock=clock)
    await tier.open()
    await tier.put_many([record(1), record(2)])
    _, cursor = await follow(tier)
    assert cursor is not None
    assert arrival_of(cursor) == clock() + 2
    clock.advance(-3600)
    await tier.put_many([record(3)])
    found, later = await follow(tier, cursor)
    assert found == [key(3)]
    assert later is not None
    assert arrival_of(later) == arrival_of(cursor) + 1
    await tier.aclose()


async def test_partitions_without_records_are_purged_after_a_while(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    clock = ManualClock()
    tier = PostgresTier.from_url(postgres_url + "?budget=5", clock=clock)
    await tier.open()

    def count() -> str:
        database = postgres_url.rpartition("/")[2]
        return postgres_server.execute("SELECT count(*) FROM llmcache.partitions", database).strip()

    await tier.put_many([record(1), record(2, 1, stale_until=clock() + 1)])
    await tier.purge(clock() + 5)
    assert count() == "2", "its row has just been written"
    clock.advance(3601)
    await tier.purge(clock())
    assert count() == "1"
    await tier.put_many([record(3, 1)])
    assert (await follow(tier, of=1))[0] == [key(3)]
    await tier.clear()
    clock.advance(3601)
    await tier.purge(clock())
    assert count() == "0"
    await tier.aclose()


def test_a_batch_without_partitions_is_the_statement_it_was() -> None:
    sql = Statements.of("s")
    plain = [StoredRecord(key(n), b"x", 1, 1, NEVER, 0) for n in range(3)]
    assert in_postgres.writing(sql, plain, None)[0] == sql.put
    assert "partitions" not in sql.put
    statement, *values = in_postgres.writing(sql, [*plain, record(5)], 7)
    assert statement == sql.join
    assert values[-2:] == [7, [None, None, None, partition(0)]]
