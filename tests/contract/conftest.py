"""Open tiers to ask, under a clock of their own. A contract that fewer tiers keep brings its own fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmcache_fast.testing import ManualClock
from tests.contract.tiers import AUTHORITIES, TIERS, opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=list(TIERS))
async def tier(request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str) -> AsyncIterator[Any]:
    async with opened(request, clock, anyio_backend) as tier:
        yield tier


@pytest.fixture(params=AUTHORITIES)
async def authority(
    request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str
) -> AsyncIterator[Any]:
    async with opened(request, clock, anyio_backend) as tier:
        yield tier
