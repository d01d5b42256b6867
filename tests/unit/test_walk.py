"""Walking through the records of a Redis tier: its own alone, some bytes at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis import RedisTier
from tests.contract.tiers import key, record
from tests.servers.redis import RedisCluster, RedisServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisTier]:
    tier = RedisTier.from_url(url)
    await tier.open()
    yield tier
    await tier.aclose()


async def walk(tier: RedisTier, limit: int = 500) -> list[list[tuple[bytes, bytes]]]:
    pages, cursor = [], None
    while True:
        page, cursor = await tier.scan(cursor, limit)
        pages.append(page)
        if cursor is None:
            return pages


async def test_keys_of_others_are_walked_over(redis_server: RedisServer, redis_prefix: str) -> None:
    client: Any = redis.Redis(port=redis_server.port)
    ends = b"[a*?]-^\\:"
    async with opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}%5Ba%2A%3F%5D-%5E%5C%3A") as tier:
        await tier.put_many([record(number) for number in range(300)])
        await tier.raise_markers(1, [1])
        await tier.delete_many([key(0)], (1, 20))
        for number in range(300):
            client.set(redis_prefix.encode() + b"%d" % number, b"other")
        client.set(redis_prefix.encode() + ends + b"r" + bytes(32), b"not a record")
        client.set(redis_prefix.encode() + b"axxx-^\\:r" + bytes(32), b"R" + bytes(16))
        found = [each for page in await walk(tier, 20) for each in page]
        assert set(found) == {(key(number), b"x") for number in range(1, 300)}
        assert await tier.clear() == 299


async def test_large_records_come_few_at_a_time(redis_server: RedisServer, redis_prefix: str) -> None:
    async with opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}") as tier:
        await tier.put_many([record(number, bytes(1 << 20)) for number in range(30)])
        pages = await walk(tier)
        assert {found for page in pages for found, _ in page} == {key(number) for number in range(30)}
        again = await walk(tier)
        assert max(len(page) for page in again) < 30, "what the records weigh is known by now"
        await tier.clear()


async def test_a_cursor_is_of_the_servers_it_was_made_for(
    redis_server: RedisServer, redis_cluster: RedisCluster, redis_prefix: str
) -> None:
    async with (
        opened(f"{redis_cluster.url}?budget=5&prefix={redis_prefix}") as cluster,
        opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}") as single,
    ):
        await cluster.put_many([record(number) for number in range(50)])
        _, cursor = await cluster.scan(None, 5)
        assert cursor is not None
        with pytest.raises(TierError) as caught:
            await single.scan(cursor)
        assert caught.value.reason == "cluster"
        for nonsense in (b"", b"x" * 40, cursor[:9] + b"1:x", cursor[:9] + b"1"):
            with pytest.raises(ValueError, match="none that scan gave"):
                await cluster.scan(nonsense)
        await cluster.clear()
