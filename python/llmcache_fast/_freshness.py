"""When an entry is fresh, stale or gone. Pure functions of times in microseconds."""

from __future__ import annotations

from typing import Literal, NamedTuple

from llmcache_fast._entry import NEVER

MICROS = 1_000_000

State = Literal["fresh", "stale", "fallback", "gone"]


class Lifetime(NamedTuple):
    """Absolute ends of freshness and of the stale window."""

    fresh_until: int
    stale_until: int


def lifetime(now: int, ttl: float | None, stale: float, jitter: float, chance: float) -> Lifetime:
    """The life of an entry written now.

    Jitter is subtractive and applied once, at write, so that entries written together do not expire
    together: of `ttl`, the share `jitter * chance` is taken off, with `chance` drawn from [0, 1).
    """
    if ttl is None:
        return Lifetime(NEVER, NEVER)
    fresh_until = min(now + round(ttl * (1 - jitter * chance) * MICROS), NEVER)
    return Lifetime(fresh_until, min(fresh_until + round(stale * MICROS), NEVER))


def state(now: int, fresh_until: int, stale_until: int, stale_while_revalidate: float) -> State:
    """What may be done with an entry now.

    `stale`: returned at once while it is computed anew. `fallback`: returned only if that fails.
    """
    if now < fresh_until:
        return "fresh"
    if now >= stale_until:
        return "gone"
    return "stale" if now < fresh_until + stale_while_revalidate * MICROS else "fallback"
