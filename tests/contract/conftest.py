"""Open tiers to ask, under a clock of their own. A contract that fewer tiers keep brings its own fixture."""

from __future__ import annotations

import pytest

from llmcache_fast.testing import ManualClock
from tests.contract.tiers import AUTHORITIES, TIERS, over


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


tier = over(TIERS)
authority = over(AUTHORITIES)
