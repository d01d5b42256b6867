"""Budgets of time of many calls, under one timer.

What does not belong here: what a budget is spent on, and what it means that it was not enough (`guarded`).
"""

from __future__ import annotations

from typing import Protocol

import anyio

from llmcache_fast.tiers.detached import Detached
from llmcache_fast.tiers.signal import Running

_SLACK = 1.5
"""Ticks that one round of the event loop counts for at the most."""
_TIMER = 0.001
"""Seconds to which event loops round their timers, up."""


class Waiting(Protocol):
    """What is told that its time is up: a `Signal`, for one."""

    def set(self) -> None: ...


class Watch:
    """Sets the signals of those whose budgets are over.

    A budget is of time in which the event loop was running: of the time between two rounds, no more counts
    than a tick and a half. One long round, in which a thousand requests start, is not taken for a slow tier.

    It costs a caller a dictionary entry; a timer and a cancel scope for each call cost 15 us.
    """

    def __init__(self, running: Running, tick: float) -> None:
        """`tick` is the time between two looks in seconds, a part of the smallest budget."""
        self._now = running.now
        self._tick = tick
        self._ends: dict[Waiting, float] = {}
        self._looked = running.now()
        self._counted = 0.0
        self._timed = 0
        self._task: Detached | None = None

    def time(self) -> float:
        """Seconds counted; right while somebody waits."""
        return self._counted + min(self._now() - self._looked, _SLACK * self._tick)

    def start(self, signal: Waiting, budget: float) -> float:
        """Set `signal` in `budget` seconds, unless `stop` comes before. The time now."""
        time = self._begin()
        self._ends[signal] = time + budget
        return time

    def stop(self, signal: Waiting) -> float:
        """Forget it. The time now."""
        self._ends.pop(signal, None)
        return self.time()

    def start_timing(self) -> float:
        """Count time until `stop_timing`, for one who sees to a budget by himself. The time now."""
        self._timed += 1
        return self._begin()

    def stop_timing(self) -> float:
        """The time now."""
        self._timed -= 1
        return self.time()

    def close(self) -> None:
        """End the timer. A later `start` begins anew."""
        task, self._task = self._task, None
        if task is not None:
            task.end_within(0)

    def _begin(self) -> float:
        if self._task is None:
            self._looked = self._now()
            self._task = Detached(self._run)
        return self.time()

    async def _run(self) -> None:
        this = self._task
        idle = False
        # It goes on for a tick after the last call: calls one after the other start no timer each.
        while not idle and self._task is this:
            idle = not (self._ends or self._timed)
            pause = min(self._ends.values(), default=1e9) - self._counted
            await anyio.sleep(min(self._tick, max(pause - _TIMER / 2, 0.0)))
            time, self._looked = self.time(), self._now()
            self._counted = time
            for signal in [signal for signal, end in self._ends.items() if end <= time + _TIMER]:
                del self._ends[signal]
                signal.set()
            idle = idle and not (self._ends or self._timed)
        if self._task is this:
            self._task = None
