"""What labelled candidates say about each threshold: whether it was shown to keep the budget, whether it
broke it.

What belongs here: the bets. What does not: single entries (`entries`), whom to check and what to serve
(`budget`).

For every threshold of a fixed grid two bets run. The first is against "of what scores at least this much,
more than the budget is wrong"; once it has multiplied its stake by 1 / error, the threshold is *shown*
(Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting"; by Ville's
inequality one may look after every label). The thresholds share one error rate by the fallback procedure
(Wiens 2003), a form of the fixed-sequence testing in "Learn then test" (Angelopoulos et al. 2021): what a
shown threshold had goes on to the next looser one. The second bet is against "at most the budget is wrong
now"; it begins anew whenever it has lost (an e-detector: Shin, Ramdas and Rinaldo 2023), and when it has won
a hundredfold, the threshold is *closed*: the questions have changed, or somebody changed them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

GRID: Final = (
    0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.89, 0.88, 0.87, 0.86, 0.85, 0.83,
    0.81, 0.79, 0.77, 0.75, 0.72, 0.69, 0.65, 0.63, 0.60, 0.55, 0.50,
)  # fmt: skip
"""Thresholds, strict to loose. What scores below the last is never served."""
_RISING: Final = tuple(reversed(GRID))

OPENING: Final = ((0.95, 0.25), (0.6, 0.2), (0.3, 0.1), (0.1, 0.1), (0.95, 0.15), (0.5, 0.1), (0.2, 0.1))
"""Sizes of the first bet and their shares of the stake: large wins soonest when nothing is wrong, small when
the share is near the budget."""
EAGER: Final = 4
"""From here on they bet more on labels that cost nothing: see `observe`."""
CLOSING: Final = ((0.5, 0.4), (0.12, 0.3), (0.03, 0.3))
"""The same of the second: large for an attack, small for a drift."""
ALARM: Final = math.log(100.0)
STARTS: Final = 9
"""Every so many thresholds a part of the error rate begins: were there one start alone, the strictest
threshold, which few questions reach, would keep all others waiting."""


class Level(msgspec.Struct):
    """The bets about one threshold, as logarithms of what each has made of its stake."""

    opening: list[float]
    closing: list[float]
    burnt: int = 0
    """How often it was shown and closed again."""
    restarts: int = 0
    """How often it was refuted before it was shown, or closed by reports."""
    seen: float = 0.0
    """Labels, weighted, since the beginning."""

    def begin(self) -> None:
        """Both bets anew."""
        self.opening = [0.0] * len(OPENING)
        self.closing = [0.0] * len(CLOSING)

    @property
    def epoch(self) -> tuple[int, int]:
        """Evidence of another epoch does not count."""
        return self.burnt, self.restarts

    def needed(self, error: float) -> float:
        """Logarithm of what the first bet must reach when the threshold has this share of the error rate.

        However often it begins anew, the sum of what it uses stays below its share: after k closings 0.8 *
        0.2^k of it (who broke the budget must show the more), and of that (6 / pi^2) / (m + 1)^2 after m
        other beginnings.
        """
        restarts = math.log(math.pi**2 / 6) + 2 * math.log(self.restarts + 1)
        return -math.log(error) - math.log(0.8) - self.burnt * math.log(0.2) + restarts


def unknown() -> list[Level]:
    """All thresholds, and nothing known of them."""
    return [Level([0.0] * len(OPENING), [0.0] * len(CLOSING)) for _ in GRID]


def place(score: float) -> int:
    """Index of the strictest threshold that `score` reaches; `len(GRID)` for none."""
    # A score that is no number reaches nothing.
    return len(GRID) - bisect_right(_RISING, score) if score >= GRID[-1] else len(GRID)


def stake(logs: Sequence[float], bets: Sequence[tuple[float, float]]) -> float:
    """Logarithm of what bets side by side have made of a stake of one."""
    top = max(logs)
    return top + math.log(
        sum(share * math.exp(log - top) for log, (_, share) in zip(logs, bets, strict=True))
    )


def gains(rights: float, wrongs: float, budget: float) -> list[float]:
    """What the first bets win by so many answers."""
    return [
        rights * math.log1p(size * budget) + wrongs * math.log1p(size * (budget - 1)) for size, _ in OPENING
    ]


def observe(
    levels: Sequence[Level], at: int, *, wrong: bool, weight: float, eager: float, budget: float
) -> None:
    """One label at place `at`. `weight`, above 0 and at most 1, is inverse to the chance of having been
    looked at.

    `eager` is the weight for those bets that lay more on what scores below the threshold in use, where each
    candidate is compared and not a sample. They may: what is served was shown to keep the budget, so if the
    whole does not, it is what lies below that breaks it, and laying more there loses the more.
    """
    closing = [math.log1p(-size * weight * (budget - wrong) / budget) for size, _ in CLOSING]
    opening = [
        math.log1p(size * (weight if index < EAGER else eager) * (budget - wrong))
        for index, (size, _) in enumerate(OPENING)
    ]
    for level in levels[at:]:
        level.opening = [old + new for old, new in zip(level.opening, opening, strict=True)]
        level.closing = [max(old, 0.0) + new for old, new in zip(level.closing, closing, strict=True)]
        level.seen += weight


def alarmed(level: Level) -> bool:
    """Whether more than the budget is wrong now."""
    return max(level.closing) >= ALARM and stake(level.closing, CLOSING) >= ALARM


def newly_shown(
    levels: Sequence[Level], opening: Callable[[int], Sequence[float]], shown: Sequence[bool], error: float
) -> list[bool]:
    """Which thresholds are shown. `opening` gives the logarithms of all there is about one; a shown one stays
    so."""
    starts = len(range(0, len(GRID), STARTS))
    carried, found = 0.0, []
    for index, level in enumerate(levels):
        carried += error / starts if index % STARTS == 0 else 0.0
        passes = shown[index] or (carried > 0 and _reaches(opening(index), level.needed(carried)))
        found.append(passes)
        if not passes:
            carried = 0.0
    return found


def _reaches(logs: Sequence[float], needed: float) -> bool:
    # The mean is no larger than the largest: mostly that settles it.
    return max(logs) >= needed and stake(logs, OPENING) >= needed
