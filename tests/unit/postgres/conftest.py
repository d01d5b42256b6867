"""An open tier over a fresh database, and only the event loop that asyncpg knows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llmcache_fast.tiers.postgres import PostgresTier

PATIENT = "?budget=5"
"""A busy machine is not what these tests are about."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def tier(postgres_url: str, anyio_backend: str) -> AsyncIterator[PostgresTier]:
    tier = PostgresTier.from_url(postgres_url + PATIENT)
    await tier.open()
    yield tier
    await tier.aclose()
