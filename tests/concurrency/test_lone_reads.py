"""Reads of one key of a tier that keeps its budget: in their callers' own tasks, and judged as all others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast._errors import TierError
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

KEY = bytes(32)
BREAKER = BreakerOptions(least=3)


async def guarded(inner: Any, options: GuardOptions | None = None) -> GuardedTier:
    tier = GuardedTier(inner, options or GuardOptions(read_budget=60.0, breaker=BREAKER), rng=lambda: 0.0)
    await tier.open()
    return tier


class Prompt(MemoryTier):
    """Keeps its budget, and says in which task it was read."""

    keeps_budget = True

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[int] = []
        self.error: Exception | None = None
        self.seconds = 0.0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.tasks.append(anyio.get_current_task().id)
        await anyio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return await super().get_many(keys) if keys[0] == KEY else []


async def test_the_read_of_one_key_is_awaited_as_it_is_and_no_other() -> None:
    inner = Prompt()
    tier = await guarded(inner)
    assert await tier.get_many([KEY]) == [None]
    assert await tier.get_many([KEY, KEY]) == [None, None]
    own = anyio.get_current_task().id
    assert [task == own for task in inner.tasks] == [True, False]
    assert tier.statistics()["read"].calls == 2


async def test_its_failures_and_slowness_count_as_those_of_others() -> None:
    inner = Prompt()
    tier = await guarded(inner, GuardOptions(read_budget=60.0, slow=0.0005, breaker=BREAKER))
    with pytest.raises(TierError) as short:
        await tier.get_many([b"x" * 32])
    inner.error = ZeroDivisionError()
    with pytest.raises(TierError) as bug:
        await tier.get_many([KEY])
    assert (short.value.reason, bug.value.reason) == ("mismatch", "bug")
    inner.error, inner.seconds = None, 0.05
    assert await tier.get_many([KEY]) == [None]
    stats = tier.statistics()["read"]
    assert (stats.failures, stats.slow, stats.running, stats.state) == (2, 1, 0, "open")


async def test_a_busy_event_loop_does_not_make_it_slow() -> None:
    class Busy(MemoryTier):
        keeps_budget = True

        async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            await anyio.lowlevel.checkpoint()
            time.sleep(0.6)  # noqa: ASYNC251 - that is the point: longer than the whole budget
            return [None]

    tier = await guarded(Busy(), GuardOptions(read_budget=0.5, breaker=BREAKER))
    assert await tier.get_many([KEY]) == [None]
    assert tier.statistics()["read"].slow == 0


async def test_a_caller_of_it_that_goes_away_leaves_its_place() -> None:
    inner = Prompt()
    inner.seconds = 60.0
    tier = await guarded(inner, GuardOptions(read_budget=60.0, concurrency=1, breaker=BREAKER))
    for _ in range(5):
        with anyio.move_on_after(0):
            await tier.get_many([KEY])
    inner.seconds = 0.0
    assert await tier.get_many([KEY]) == [None]
    stats = tier.statistics()["read"]
    assert (stats.running, stats.abandoned, stats.state) == (0, 0, "closed")
