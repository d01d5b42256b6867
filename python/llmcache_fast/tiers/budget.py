"""Waiting for a budget of time.

What does not belong here: what a budget is spent on, and what it means that it was not enough (`guarded`).
"""

from __future__ import annotations

import anyio

_PARTS = 5


async def within(budget: float, done: anyio.Event) -> bool:
    """Wait for `done`, for `budget` seconds in which the event loop was running; whether it came.

    The budget is spent in parts, each on a new round of the loop. One long round, in which a thousand
    requests start, uses up one part and not all of it: a busy loop is not taken for a slow tier.
    """
    for _ in range(_PARTS):
        with anyio.move_on_after(budget / _PARTS):
            await done.wait()
            return True
    return done.is_set()
