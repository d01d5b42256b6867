"""Following Redis and Postgres: what others raise is heard, in order; what is no message is dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest
import redis.asyncio
from anyio.lowlevel import checkpoint

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import MAX_TOLD, Asked, Message
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisServer

Make = Callable[[], Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["redis_server", "redis_cluster", "postgres"])
async def make(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Make]:
    """Makes tiers that share a server, as processes do."""
    made: list[Any] = []

    async def one() -> Any:
        tier: Any
        if request.param == "postgres":
            tier = PostgresTier.from_url(request.getfixturevalue("postgres_url") + "?budget=5")
        else:
            server = request.getfixturevalue(request.param)
            prefix = request.getfixturevalue("redis_prefix")
            tier = RedisTier.from_url(f"{server.url}?budget=5&prefix={prefix}")
        await tier.open()
        made.append(tier)
        return tier

    yield one
    for tier in made:
        await tier.aclose()


class Follower:
    """What a tier's follower heard."""

    def __init__(self, tier: Any) -> None:
        self.tier = tier
        self.messages: list[Message] = []
        self.begun = 0

    def __call__(self, message: Message | None) -> None:
        if message is None:
            self.begun += 1
        else:
            self.messages.append(message)

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not condition():
                await checkpoint()


@asynccontextmanager
async def following(tier: Any) -> AsyncIterator[Follower]:
    follower = Follower(tier)
    async with anyio.create_task_group() as group:
        group.start_soon(tier.follow, follower)
        await follower.until(lambda: follower.begun == 1)
        yield follower
        group.cancel_scope.cancel()


async def test_raises_of_others_are_heard_in_their_order(make: Make) -> None:
    mine, other = await make(), await make()
    async with following(mine) as follower, following(mine) as second:
        raised = []
        for number in range(30):
            tier = (mine, other)[number % 2]
            raised.append(await tier.raise_markers(2**64 - 1, [number, 2**63]))
        await follower.until(lambda: len(follower.messages) == len(second.messages) == 30)
        assert follower.messages == second.messages
        assert follower.messages == [
            Message(2**64 - 1, epoch, prev, seq, (number, 2**63))
            for number, (epoch, seq, prev) in enumerate(raised)
        ]
        assert all(a.seq == b.prev for a, b in zip(follower.messages, follower.messages[1:], strict=False))


async def test_what_is_too_much_is_heard_of_without_its_targets(make: Make) -> None:
    tier = await make()
    async with following(tier) as follower:
        await tier.raise_markers(1, range(MAX_TOLD))
        await tier.raise_markers(1, range(MAX_TOLD + 1))
        await tier.raise_markers(1, [1], [b"r" * 17])
        await tier.raise_markers(1, [2], forget=[b"r" * 17])
        await follower.until(lambda: len(follower.messages) == 4)
        told = [message.targets for message in follower.messages]
        assert set(told[0] or ()) == set(range(MAX_TOLD))
        assert told[1:] == [None, None, (2,)]


async def test_a_bus_carries_what_it_is_told(make: Make) -> None:
    mine, other = await make(), await make()
    if not hasattr(mine, "tell"):
        return
    async with following(mine) as follower:
        sent = [Message(n, 2**64 - 1, n, n + 1, None if n % 2 else (n,)) for n in range(20)]
        for message in sent:
            await other.tell(message)
        await follower.until(lambda: len(follower.messages) == 20)
        assert follower.messages == sent


async def test_nonsense_is_dropped_and_counted(make: Make) -> None:
    tier = await make()
    async with following(tier) as follower:
        for payload in ("", "1:x", "9" * 4000, "1:" + "0" * 16 + ":*"):
            if isinstance(tier, PostgresTier):
                connection = await asyncpg.connect(tier._dsn)
                await connection.execute("SELECT pg_notify('llmcache_raised', $1)", payload)
                await connection.close()
            else:
                client = redis.asyncio.Redis(port=tier._route.servers()[0].address.port)
                await client.publish(tier.address.prefix + "raised", payload)
                await client.aclose()
        raised = await tier.raise_markers(3, [1])
        await follower.until(lambda: len(follower.messages) == 1)
        assert follower.messages[0].seq == raised.seq
        await follower.until(lambda: tier._feed.dropped == 4)


async def test_an_error_of_who_hears_is_his_own(make: Make) -> None:
    tier = await make()
    caught: list[BaseException] = []

    def broken(message: Message | None) -> None:
        if message is not None:
            raise RuntimeError("mine")

    async def follow() -> None:
        try:
            await tier.follow(broken)
        except (RuntimeError, TierError) as error:
            caught.append(error)

    async with following(tier) as follower, anyio.create_task_group() as group:
        group.start_soon(follow)
        await follower.until(lambda: len(tier._feed._followers) == 2)
        await tier.raise_markers(1, [1])
        await follower.until(lambda: bool(caught) and len(follower.messages) == 1)
        await tier.raise_markers(1, [1])
        await follower.until(lambda: len(follower.messages) == 2)
    assert [str(error) for error in caught] == ["mine"]


async def test_a_closed_tier_is_not_followed(make: Make) -> None:
    tier = await make()
    reasons: list[str] = []

    async def follow() -> None:
        with pytest.raises(TierError) as caught:
            await tier.follow(lambda message: None)
        reasons.append(caught.value.reason)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            while not tier._feed._followers:
                await checkpoint()
            await tier.aclose()
        await follow()
    assert reasons == ["closed", "closed"]


async def test_leases_and_messages_share_a_connection_to_redis(
    redis_server: RedisServer, redis_prefix: str
) -> None:
    tier = RedisTier.from_url(f"{redis_server.url}?budget=5&prefix={redis_prefix}")
    await tier.open()
    async with following(tier):
        await tier.get_or_lease_many([bytes(32)], b"me", 60)
        channel = f"{redis_prefix}raised"
        assert redis_server.command("PUBSUB", "NUMSUB", channel).split() == [channel, "1"]
        assert redis_server.command("PUBSUB", "NUMSUB", f"{redis_prefix}released").split()[1] == "1"
        await tier.release_leases([bytes(32)], b"me")
    await tier.aclose()


async def test_leases_and_messages_share_a_connection_to_postgres(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    tier = PostgresTier.from_url(postgres_url + "?budget=5&connections=1")
    await tier.open()
    await tier.get_or_lease_many([bytes(32)], b"me", 60)
    async with following(tier) as follower:
        async with anyio.create_task_group() as group:
            group.start_soon(tier.lease_released, bytes(32))
            connection = tier._ear._connection if tier._ear else None
            assert connection is not None
            await follower.until(lambda: len(connection._listeners) == 2)
            await tier.raise_markers(1, [1])
            await follower.until(lambda: len(follower.messages) == 1)
            await tier.release_leases([bytes(32)], b"me")
        name = postgres_url.rpartition("/")[2]
        open_now = f"count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name LIKE 'llm%'"
        assert postgres_server.execute(f"SELECT {open_now}") == "2"
    await tier.aclose()


async def test_behind_a_pooler_nobody_can_follow(postgres_url: str, anyio_backend: str) -> None:
    tier = PostgresTier.from_url(postgres_url + "?pooler=transaction")
    await tier.open()
    with pytest.raises(TierError) as caught:
        await tier.follow(lambda message: None)
    assert caught.value.reason == "unsupported"
    raised = await tier.raise_markers(1, [1])
    assert (await tier.changes([Asked(1, raised.epoch, raised.prev)]))[0].markers == [(1, raised.seq)]
    await tier.aclose()


async def test_all_nodes_of_a_cluster_are_heard(redis_cluster: RedisCluster, redis_prefix: str) -> None:
    """Each raise is published by the node of its clock; followers are connected to whichever node."""
    tiers = [RedisTier.from_url(f"{redis_cluster.url}?budget=5&prefix={redis_prefix}") for _ in range(4)]
    for tier in tiers:
        await tier.open()
    async with following(tiers[0]) as a, following(tiers[1]) as b, following(tiers[2]) as c:
        for space in range(20):
            await tiers[3].raise_markers(space, [space])
        for follower in (a, b, c):
            await follower.until(lambda: len(follower.messages) == 20)  # noqa: B023 - awaited here
            assert sorted(message.namespace for message in follower.messages) == list(range(20))
    for tier in tiers:
        await tier.aclose()
