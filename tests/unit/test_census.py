"""What the tiers of servers hold, counted."""

from __future__ import annotations

import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres import census as postgres
from llmcache_fast.tiers.redis import RedisTier
from llmcache_fast.tiers.redis import census as redis
from tests.servers.redis import RedisServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def key(number: int) -> bytes:
    return number.to_bytes(32)


def record(number: int, *, stale_until: int = NEVER) -> StoredRecord:
    return StoredRecord(key(number), bytes(2000), 1, 10, stale_until, 100)


@pytest.mark.parametrize("partitions", [0, 3])
async def test_postgres(postgres_url: str, anyio_backend: str, partitions: int) -> None:
    tier = PostgresTier.from_url(f"{postgres_url}?budget=5&partitions={partitions}")
    await tier.open()
    before = await postgres.census(tier)
    await tier.put_many([record(number) for number in range(30)])
    await tier.put_many([record(30, stale_until=1)])
    await tier.delete_many([key(0)], (1, 11))
    await tier.raise_markers(1, [2, 3])
    await tier.lease_many([key(99)], b"token", 60.0)
    counted = await postgres.census(tier)
    assert counted.pop("bytes") >= before["bytes"] + 30 * 2000
    assert counted == {"rows": 30, "expired": 1, "namespaces": 1, "markers": 2, "leases": 1}
    await tier.aclose()


async def test_redis(redis_server: RedisServer, redis_prefix: str) -> None:
    tiers = [RedisTier.from_url(f"{redis_server.url}?budget=5&prefix={redis_prefix}{name}") for name in "ab"]
    for tier in tiers:
        await tier.open()
    await tiers[0].put_many([record(number) for number in range(1500)])
    await tiers[0].put_many([record(number)._replace(partition=bytes(32)) for number in range(3)])
    await tiers[0].raise_markers(1, [2, 3])
    await tiers[0].lease_many([key(9999)], b"token", 60.0)
    assert await redis.census(tiers[0]) == {"rows": 1500, "leases": 1, "namespaces": 1, "partitions": 1}
    assert await redis.census(tiers[1]) == {"rows": 0, "leases": 0, "namespaces": 0, "partitions": 0}
    for tier in tiers:
        await tier.aclose()
