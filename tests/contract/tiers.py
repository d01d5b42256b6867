"""The tiers that contracts are asked of, how they are made, and records for them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast.testing import FaultyTier, ManualClock, MemoryTier
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier

Make = Callable[[Any, ManualClock], Any]

TIERS: dict[str, Make] = {
    "memory": lambda of, clock: MemoryTier(clock=clock),
    "faulty": lambda of, clock: FaultyTier(MemoryTier(clock=clock)),
    "disk": lambda of, clock: DiskTier(of("tmp_path") / "tier", max_bytes=8 << 20, budget=5.0, clock=clock),
    "redis": lambda of, clock: RedisTier.from_url(
        f"{of('redis_server').url}?prefix={of('redis_prefix')}&budget=5", clock=clock
    ),
    "redis-cluster": lambda of, clock: RedisTier.from_url(
        f"{of('redis_cluster').url}?prefix={of('redis_prefix')}&budget=5", clock=clock
    ),
    "postgres": lambda of, clock: PostgresTier.from_url(of("postgres_url") + "?budget=5", clock=clock),
}
CLASSES: dict[str, type[Any]] = {
    "memory": MemoryTier,
    "faulty": FaultyTier,
    "disk": DiskTier,
    "redis": RedisTier,
    "redis-cluster": RedisTier,
    "postgres": PostgresTier,
}
AUTHORITIES = ["memory", "disk", "redis", "redis-cluster", "postgres"]
SCANNABLE = [name for name in TIERS if hasattr(CLASSES[name], "scan")]
DURABLE = ["disk", "redis", "postgres"]
ASYNCIO_ONLY = ["redis", "redis-cluster", "postgres"]
OWN_TIME = ["redis", "redis-cluster"]
"""They expire records and tell the time by the server's clock."""


def make(request: pytest.FixtureRequest, name: str, clock: ManualClock, anyio_backend: str) -> Any:
    if name in ASYNCIO_ONLY and anyio_backend != "asyncio":
        pytest.skip("its driver runs on asyncio only")
    return TIERS[name](request.getfixturevalue, clock)


def over(names: Iterable[str]) -> Any:
    """A fixture of each of these tiers, open, under the test's `clock`."""

    @pytest.fixture(params=list(names))
    async def tier(
        request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str
    ) -> AsyncIterator[Any]:
        tier = make(request, request.param, clock, anyio_backend)
        await tier.open()
        try:
            yield tier
        finally:
            await tier.aclose()

    return tier


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(
    number: int, envelope: bytes = b"x", *, epoch: int = 1, snap: int = 10, stale_until: int = NEVER
) -> StoredRecord:
    return StoredRecord(key(number), envelope, epoch, snap, stale_until, cost=100)
