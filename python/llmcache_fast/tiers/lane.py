"""One direction of a guarded tier: who may call now, how many at once, and how the calls ended.

What belongs here: room and refusal. What does not: making a call, and its time (`guarded`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast._stats import GuardStats
from llmcache_fast.tiers.breaker import Breaker, BreakerOptions, Outcome, Permit

NO_OUTAGE = frozenset({"busy", "corrupt", "refused"})
"""Reasons of a `TierError` that are no sign of an outage: it has no room now, or one record is bad."""


class Lane:
    """The breaker, the room and the counts of one direction."""

    def __init__(
        self,
        tier: str,
        *,
        breaker: BreakerOptions,
        concurrency: int,
        max_waiting: int,
        max_abandoned: int,
        rng: Callable[[], float],
    ) -> None:
        """`tier` is the name for errors; for the others see `GuardOptions`."""
        self.breaker = Breaker(breaker, rng)
        self.running = 0
        self.abandoned: set[object] = set()
        """Calls that go on without a caller."""
        self._tier = tier
        self._room = anyio.Semaphore(concurrency, fast_acquire=True)
        self._max_waiting = max_waiting
        self._max_abandoned = max_abandoned
        self._waiting = 0
        self._counts: Counter[str] = Counter()

    async def enter(self, operation: str, budget: float, now: Callable[[], float]) -> tuple[Permit, float]:
        """Leave to make one call, and the seconds it took to get a place. Each ends by `leave`.

        Raises:
            TierError: `busy`, for there was no place within the budget.
            TierUnavailableError: `open`, for the breaker is; or `abandoned`, for too many calls are.
        """
        time = now()
        if not self.breaker.admits(time):
            raise self._rejected(operation)
        if len(self.abandoned) >= self._max_abandoned:
            self._counts["rejected"] += 1
            text = "too many abandoned calls have not ended"
            raise TierUnavailableError(text, tier=self._tier, operation=operation, reason="abandoned")
        waited = 0.0
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            waited = await self._wait_for_room(operation, budget)
            time = now()
        permit = self.breaker.admit(time)
        if permit is None:
            self._room.release()
            raise self._rejected(operation)
        self.running += 1
        self._counts["calls"] += 1
        return permit, waited

    def leave(self) -> None:
        """A call has ended, or nobody waits for it any more: the limit is of calls waited for."""
        self.running -= 1
        self._room.release()

    # -- how calls end ------------------------------------------------------------------------------

    def answered(self, *, late: bool) -> Outcome:
        """A good answer."""
        self._counts["slow"] += late
        return "bad" if late else "good"

    def failed(self, error: TierError) -> Outcome:
        """The tier raised."""
        self._counts["busy" if error.reason == "busy" else "failures"] += 1
        return "unknown" if error.reason in NO_OUTAGE else "bad"

    def timed_out(self) -> Outcome:
        """No answer within the budget."""
        self._counts["timeouts"] += 1
        return "bad"

    def came_late(self, call: object) -> None:
        """A call that was abandoned has ended."""
        self.abandoned.discard(call)
        self._counts["late"] += 1

    def statistics(self) -> GuardStats:
        """Counts since the lane was made."""
        counts = ("calls", "failures", "slow", "timeouts", "busy", "rejected", "late")
        return GuardStats(
            state=self.breaker.state,
            opened=self.breaker.opened,
            running=self.running,
            abandoned=len(self.abandoned),
            **{name: self._counts[name] for name in counts},
        )

    async def _wait_for_room(self, operation: str, budget: float) -> float:
        """Take a place when there is one; the seconds that took."""
        started = anyio.current_time()
        if self._waiting < self._max_waiting:
            self._waiting += 1
            try:
                with anyio.move_on_after(budget):
                    await self._room.acquire()
                    return min(anyio.current_time() - started, budget)
            finally:
                self._waiting -= 1
        self._counts["busy"] += 1
        raise TierError("too many calls at once", tier=self._tier, operation=operation, reason="busy")

    def _rejected(self, operation: str) -> TierUnavailableError:
        self._counts["rejected"] += 1
        text = "not tried: the tier is in an outage"
        return TierUnavailableError(text, tier=self._tier, operation=operation, reason="open")
