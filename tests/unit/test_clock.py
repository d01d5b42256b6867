"""The clock of an engine, as the system gives it and by hand."""

from __future__ import annotations

import time

from llmcache_fast._core import Clock
from llmcache_fast.testing import ManualClock


def since_boot() -> int:
    """Goes on while the machine is suspended, as `time.monotonic` does not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def test_both_clocks_are_the_system_s() -> None:
    clock = Clock()
    before = time.time_ns() // 1000, since_boot()
    now = clock(), clock.monotonic()
    after = time.time_ns() // 1000, since_boot()
    assert before[0] <= now[0] <= after[0]
    assert before[1] <= now[1] <= after[1]


def test_by_hand_the_monotonic_clock_only_goes_on() -> None:
    clock = ManualClock(1000)
    start = clock.monotonic()
    clock.advance(1.5)
    assert (clock.now, clock.monotonic() - start) == (1_501_000, 1_500_000)
    clock.advance(-1)
    assert (clock.now, clock.monotonic() - start) == (501_000, 1_500_000)
    clock.set(0)
    assert (clock.now, clock.monotonic() - start) == (0, 1_500_000)
    clock.set(9_000_000)
    assert clock.monotonic() - start == 1_500_000, "only time that passes moves it"


def test_a_clock_that_is_set_goes_on_from_the_system_s() -> None:
    clock = Clock()
    before = clock.monotonic()
    clock.set(7)
    stands = clock.monotonic()
    assert clock() == 7
    assert before <= stands == clock.monotonic()
