"""A cache whose tier breaks under its callers: what each got, how long it took, and when it was well again.

What does not belong here: in which ways a tier breaks (`test_frozen`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from llmcache_fast import LLMCache
from llmcache_fast._stats import TierStats
from llmcache_fast.tiers.base import Tier

CALLERS, CALLS = 8, 40
STORED = 40
HEAL = 30.0
"""Seconds after which a test fails. The aim is 5, which a machine that does ten things at once may miss."""


@dataclass
class Endured:
    """What came of it; times in seconds."""

    wrong: list[str] = field(default_factory=list)
    """Answers that were not the request's."""
    errors: list[str] = field(default_factory=list)
    """Names of what callers were raised."""
    waits: list[float] = field(default_factory=list)
    """Of each call while the tier was broken; the computation takes no time."""
    asked: int = 0
    """Reads that reached the tier meanwhile."""
    healed: float = 0.0
    """From the mending to the first answer of the tier."""
    before: TierStats | None = None
    after: TierStats | None = None

    @property
    def p99(self) -> float:
        return sorted(self.waits)[len(self.waits) * 99 // 100]


async def endure(
    tier: Tier, break_: Callable[[], Awaitable[None]], mend: Callable[[], Awaitable[None]]
) -> Endured:
    """Fill a cache, break its tier, let callers call, mend it, and wait until it answers."""
    seen = Endured()
    async with LLMCache(tiers=[tier], ttl=None) as cache:
        for number in range(STORED):
            await cache.set({"n": number}, _right({"n": number}))
        await cache.flush(HEAL)
        cache._clear()
        await break_()
        seen.before = cache.stats().tiers[0]
        async with anyio.create_task_group() as tasks:
            for caller in range(CALLERS):
                tasks.start_soon(_call, cache, caller, seen)
        seen.asked = cache.stats().tiers[0].guard["read"].calls - seen.before.guard["read"].calls
        await mend()
        mended = anyio.current_time()
        with anyio.fail_after(HEAL):
            while not await _answers(cache):  # noqa: ASYNC110 - on a state, not for a time
                await anyio.sleep(0.02)
        seen.healed = anyio.current_time() - mended
        seen.after = cache.stats().tiers[0]
    return seen


def _right(request: dict[str, int]) -> str:
    return f"the answer to {sorted(request.items())}"


async def _call(cache: LLMCache, caller: int, seen: Endured) -> None:
    for turn in range(CALLS):
        # Some are stored; none is in memory, unless another caller has got it since.
        request = {"n": turn} if turn % 4 == 0 else {"n": turn, "caller": caller}
        start = anyio.current_time()

        async def compute(request: dict[str, int] = request) -> str:
            return _right(request)

        try:
            value = await cache.get_or_compute(request, compute)
        except Exception as error:
            seen.errors.append(type(error).__name__)
        else:
            if value != _right(request):
                seen.wrong.append(str(request))
        seen.waits.append(anyio.current_time() - start)
        await anyio.sleep(0.001)


async def _answers(cache: LLMCache) -> bool:
    """Whether a new entry goes into the tier and comes back from it."""
    if not cache.stats().tiers[0].available:
        return False
    await cache.set({"again": 1}, "again")
    await cache.flush(1.0)
    cache._clear()
    return bool(await cache.get({"again": 1}) == "again")
