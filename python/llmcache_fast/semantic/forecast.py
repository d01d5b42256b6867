"""What each threshold would do, before anything is served: from labelled pairs, or from a log of requests.

What belongs here: counting, and the intervals of what was counted. What does not: making vectors, files,
drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple, Protocol

import msgspec

from llmcache_fast.semantic.evidence import GRID, place
from llmcache_fast.semantic.prior import Prior


class Share(msgspec.Struct, frozen=True):
    """A share of what was counted, and the interval it has at the stated confidence."""

    count: int
    of: int
    share: float | None
    """None of nothing."""
    low: float
    high: float


def share(count: int, of: int, confidence: float) -> Share:
    """With the interval of Wilson 1927, which also holds for small numbers and for none at all."""
    if not of:
        return Share(0, 0, None, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    found, spread = count / of, z * z / of
    middle = (found + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(found * (1 - found) / of + spread / of / 4)
    # At the ends rounding would leave a hair.
    return Share(
        count,
        of,
        found,
        max(middle - half, 0.0) if count else 0.0,
        min(middle + half, 1.0) if count < of else 1.0,
    )


class PairsPoint(msgspec.Struct, frozen=True):
    """Labelled pairs at one threshold."""

    threshold: float
    hits: Share
    """Of the pairs that ask the same, those accepted."""
    false_hits: Share
    """Of the others, those accepted."""
    wrong: Share
    """Of all accepted, those that do not ask the same."""


class LogPoint(msgspec.Struct, frozen=True):
    """A log of requests at one threshold."""

    threshold: float
    hits: Share
    """Of all requests, those answered from a question in other words."""
    wrong: Share
    """Of those whose answers are known, the wrong ones."""
    wrong_requests: Share
    """The same, of all requests."""


def of_pairs(pairs: Sequence[tuple[float, bool]], confidence: float = 0.95) -> list[PairsPoint]:
    """What each threshold does to pairs of `(score, same)`."""
    same, other = (
        _counted([pair for pair in pairs if pair[1]]),
        _counted([pair for pair in pairs if not pair[1]]),
    )
    total = sum(asks_same for _, asks_same in pairs)
    return [
        PairsPoint(
            threshold,
            share(same[at], total, confidence),
            share(other[at], len(pairs) - total, confidence),
            share(other[at], same[at] + other[at], confidence),
        )
        for at, threshold in enumerate(GRID)
    ]


def prior_of(pairs: Sequence[tuple[float, bool]], worth: float = 100.0) -> Prior:
    """Pairs as what a budget knows beforehand."""
    same, other = (
        _counted([pair for pair in pairs if pair[1]]),
        _counted([pair for pair in pairs if not pair[1]]),
    )
    return Prior(tuple((float(a), float(b)) for a, b in zip(same, other, strict=True)), worth)


def keeps(points: Sequence[PairsPoint] | Sequence[LogPoint], budget: float) -> float | None:
    """The loosest threshold that keeps the budget, or None: from the first whose share of wrong answers does
    with the upper end of its interval, looser and looser until one does not. The interval is that of one
    threshold by itself; what is served is decided by a `Budget`, from what then happens."""
    found = None
    for point in points:
        if point.wrong.high <= budget:
            found = point.threshold
        elif found is not None:
            break
    return found


def _counted(scored: Sequence[tuple[float, bool]]) -> list[int]:
    """How many reach each threshold."""
    at = [0] * (len(GRID) + 1)
    for score, _ in scored:
        at[place(score)] += 1
    total, reached = 0, []
    for number in at[:-1]:
        total += number
        reached.append(total)
    return reached


class Nearest(Protocol):
    """Vectors by partition and key, nearest first; as `VectorIndex`."""

    def add(self, partition: bytes, key: bytes, vector: bytes) -> bool:
        """Put a vector."""
        ...

    def search(self, partition: bytes, vector: bytes, limit: int) -> list[tuple[bytes, float]]:
        """Keys and cosines."""
        ...


class Line(NamedTuple):
    """One request of a log."""

    partition: bytes
    text: str
    vector: bytes | None
    """None when it has none: such a request is neither matched nor a match."""
    answer: str | None
    """Equal answers are the same answer; None when it is not known."""


class Forecast:
    """Follows a log in its order. Each earlier question of the partition counts as stored."""

    def __init__(
        self, index: Nearest, score: Callable[[str, str, float], float], candidates: int = 4
    ) -> None:
        """`score` judges an asked and a stored text with their cosine, below 0 if they cannot ask the same.
        The nearest of so many `candidates` that may ask the same counts."""
        self.requests = self.repeated = 0
        self._index = index
        self._score = score
        self._candidates = candidates
        self._lines: list[Line] = []
        self._seen: set[tuple[bytes, str]] = set()
        self._found: list[tuple[float, bool | None]] = []

    def add(self, line: Line) -> None:
        """The next request."""
        self.requests += 1
        if (line.partition, line.text) in self._seen:
            self.repeated += 1  # the exact tiers answer it
            return
        self._seen.add((line.partition, line.text))
        if line.vector is None:
            return
        found: tuple[float, Line] | None = None
        for key, cosine in self._index.search(line.partition, line.vector, self._candidates):
            stored = self._lines[int.from_bytes(key, "big")]
            score = self._score(line.text, stored.text, cosine)
            if found is None or score >= 0:
                found = score, stored
            if score >= 0:
                break
        if found is not None:
            score, stored = found
            known = line.answer is not None and stored.answer is not None
            self._found.append((score, line.answer != stored.answer if known else None))
        self._index.add(line.partition, len(self._lines).to_bytes(32, "big"), line.vector)
        self._lines.append(line)

    def points(self, confidence: float = 0.95) -> list[LogPoint]:
        """What each threshold would have done."""
        hits = _counted([(score, True) for score, _ in self._found])
        known = _counted([(score, True) for score, wrong in self._found if wrong is not None])
        wrong = _counted([(score, True) for score, wrong in self._found if wrong])
        return [
            LogPoint(
                threshold,
                share(hits[at], self.requests, confidence),
                share(wrong[at], known[at], confidence),
                share(wrong[at], self.requests if known[at] else 0, confidence),
            )
            for at, threshold in enumerate(GRID)
        ]
