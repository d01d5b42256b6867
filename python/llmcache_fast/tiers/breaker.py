"""The circuit breaker of one direction of a tier: a state machine without clock, tasks or I/O.

After M. Nygard, *Release It!* (2007), with the window of slow or failed calls of Resilience4j. Times are
seconds of any clock that does not go back; they are passed in.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["closed", "open", "half-open"]
Outcome = Literal["good", "bad", "unknown"]
"""How a call ended: in time and well; failed or slow; or in a way that says nothing of the tier (it was busy,
its caller went away, it refused one record)."""


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a breaker opens and how it closes again."""

    window: int = 20
    """Calls looked back at."""
    window_seconds: float = 30.0
    """What is older does not count."""
    least: int = 4
    """Calls in the window below which nothing is concluded."""
    ratio: float = 0.5
    """Share of bad calls in the window at which the breaker opens."""
    backoff: float = 0.25
    """Seconds it stays open at first; doubles with each failed probe, less up to a half of jitter."""
    max_backoff: float = 2.0
    """At the most: within that time after a tier is well again it is tried."""
    probes: int = 3
    """Good probes in a row after which it closes."""

    def __post_init__(self) -> None:
        if min(self.window, self.least, self.probes) < 1 or self.least > self.window:
            raise ValueError("window, least and probes must be at least 1, and least at most window")
        if not 0 < self.ratio <= 1:
            raise ValueError("ratio must be above 0 and at most 1")
        if min(self.window_seconds, self.backoff) <= 0 or self.max_backoff < self.backoff:
            raise ValueError("window_seconds and backoff must be above 0, and max_backoff not below backoff")


class Permit(NamedTuple):
    """Leave to make one call; its end is reported with it."""

    generation: int
    probe: bool


class Breaker:
    """Closed: calls pass, and bad ones are counted. Open: none passes until the back-off is over. Half-open:
    exactly one call at a time passes, as a probe; a bad one opens it again, some good ones close it."""

    def __init__(
        self, options: BreakerOptions | None = None, rng: Callable[[], float] = random.random
    ) -> None:
        """`rng` draws from [0, 1); it is the jitter's."""
        self.options = options or BreakerOptions()
        self._rng = rng
        self.state: State = "closed"
        self.opened = 0
        """How often it left closed for open."""
        self.retry_at = 0.0
        """While it is open: when the first probe may go."""
        self._ended: deque[tuple[float, bool]] = deque(maxlen=self.options.window)
        self._failed_probes = 0
        self._good_probes = 0
        self._probing = False
        # Each change of state begins a generation: what ends late says nothing about the new state.
        self._generation = 0
        self._leave = Permit(0, False)

    def admits(self, now: float) -> bool:
        """Whether `admit` would give a permit."""
        if self.state == "closed":
            return True
        if self.state == "open":
            return now >= self.retry_at
        return not self._probing

    def admit(self, now: float) -> Permit | None:
        """Leave for one call, or None. Each permit must come back by `ended`, exactly once."""
        if self.state == "closed":
            return self._leave
        if not self.admits(now):
            return None
        if self.state == "open":
            self._become("half-open")
        self._probing = True
        return Permit(self._generation, True)

    def ended(self, permit: Permit, outcome: Outcome, now: float) -> None:
        """The call of `permit` ended so."""
        if permit.generation != self._generation:
            return
        if permit.probe:
            self._probing = False
            if outcome == "bad":
                self._failed_probes += 1
                self._open(now)
            elif outcome == "good":
                self._good_probes += 1
                if self._good_probes >= self.options.probes:
                    self._failed_probes = 0
                    self._become("closed")
        elif outcome != "unknown":
            self._ended.append((now, outcome == "bad"))
            if outcome == "bad" and self._is_out(now):
                self.opened += 1
                self._open(now)

    def _is_out(self, now: float) -> bool:
        while self._ended[0][0] < now - self.options.window_seconds:
            self._ended.popleft()
        bad = sum(was_bad for _, was_bad in self._ended)
        return len(self._ended) >= self.options.least and bad >= self.options.ratio * len(self._ended)

    def _open(self, now: float) -> None:
        # The exponent is bounded: 2.0 ** 1024 raises.
        full = min(self.options.backoff * 2.0 ** min(self._failed_probes, 60), self.options.max_backoff)
        self.retry_at = now + full * (1 - self._rng() / 2)
        self._become("open")

    def _become(self, state: State) -> None:
        self.state = state
        self._generation += 1
        self._leave = Permit(self._generation, False)
        self._good_probes = 0
        self._probing = False
        self._ended.clear()
