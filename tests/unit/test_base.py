"""The shared words of all tiers."""

from __future__ import annotations

import time

from llmcache_fast._entry import NEVER
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import Authority, PutReport, Tier, clock_micros
from llmcache_fast.tiers.disk import DiskTier


def test_the_clock_counts_microseconds_since_1970() -> None:
    before = time.time()
    now = clock_micros()
    assert before - 1 <= now / 1e6 <= time.time() + 1
    assert now < NEVER == 2**63 - 1


def test_a_report_names_what_was_not_stored() -> None:
    assert PutReport(3) == (3, 0, 0)
    assert PutReport(1, superseded=2, refused=3)._asdict() == {"stored": 1, "superseded": 2, "refused": 3}


def test_the_protocols_are_kept_as_types() -> None:
    """Checked by mypy; here only that the parts fit together at run time."""
    tiers: list[Tier] = [MemoryTier(), DiskTier("/nowhere")]
    authorities: list[Authority] = [MemoryTier(), DiskTier("/nowhere")]
    assert [tier.name for tier in tiers] == ["memory-double", "disk"]
    assert all(hasattr(authority, "raise_markers") for authority in authorities)
