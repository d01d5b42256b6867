"""The contract's values; what tiers make of them is in `tests/contract`."""

from __future__ import annotations

import time

from llmcache_fast import _entry
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers import base
from llmcache_fast.tiers.base import PutReport, StoredRecord, Tier
from llmcache_fast.tiers.disk import DiskTier


def test_never_is_the_entries_never() -> None:
    assert base.NEVER == _entry.NEVER == 2**63 - 1


def test_the_clock_is_in_microseconds_since_1970() -> None:
    before = time.time_ns() // 1000
    now = base.clock_micros()
    assert before <= now <= time.time_ns() // 1000


def test_a_record_crosses_into_the_core_as_a_plain_tuple() -> None:
    record = StoredRecord(b"k" * 32, b"envelope", 1, 2, 3, 4)
    assert tuple(record) == (b"k" * 32, b"envelope", 1, 2, 3, 4)
    assert PutReport(5) == (5, 0, 0)


def test_tiers_have_the_methods_of_the_protocol() -> None:
    wanted = {name for name in vars(Tier) if not name.startswith("_")} - {"name"}
    wanted |= {name for name in vars(base.Authority) if not name.startswith("_")}
    for kind in (MemoryTier, DiskTier):
        assert wanted <= set(dir(kind)), kind
