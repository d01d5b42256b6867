"""Waiting for a budget of time.

What does not belong here: what a budget is spent on, and what it means that it was not enough (`guarded`).
"""

from __future__ import annotations

import anyio

RESERVE = 0.06
"""Share of a read's budget that is not spent on waiting for the tier. It is for what the cache does before
and after: with a tier that stood still, eight callers at once were held up for 2 to 6 ms more than the 50 ms
they waited (tests/faults/test_frozen.py), and it is their time too."""
_PARTS = 5
_TIMER = 0.001
"""Seconds to which event loops round their timers, up."""


def to_wait(budget: float) -> float:
    """What a caller's `budget` leaves for waiting, in seconds."""
    return budget * (1 - RESERVE)


async def within(budget: float, done: anyio.Event) -> bool:
    """Wait for `done`, for `budget` seconds in which the event loop was running; whether it came.

    The budget is spent in parts, each on a new round of the loop. One long round, in which a thousand
    requests start, uses up a part or two and not all of it: a busy loop is not taken for a slow tier.
    """
    part = budget / _PARTS
    while True:
        start = anyio.current_time()
        with anyio.move_on_after(max(0.0, min(part, budget - _TIMER))):
            await done.wait()
            return True
        budget -= min(anyio.current_time() - start, 1.5 * part)
        if budget <= _TIMER or part <= 0:
            return done.is_set()
