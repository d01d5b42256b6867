"""What is known of single entries: a few of them are asked for what they do not answer far more often than
others.

What belongs here: shrinkage towards the namespace (empirical Bayes with a Beta prior, Efron and Morris 1973),
and memory with a bound. What does not: thresholds of the namespace (`evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

MAX_ENTRIES: Final = 20_000
"""Remembered of each kind, with and without a wrong answer; the longest unseen is forgotten first."""
COUNTED: Final = 16
"""Right answers of one entry that count for the namespace; beyond, it speaks for itself alone. Nobody opens a
threshold for all by asking one thing over and over."""
_WEAK, _USUAL = 4.0, 10.0
"""Strength of the prior, in answers: the least, and what it is until entries have been seen to differ. The
most is half of 1 / budget, so that a first wrong answer always holds an entry back."""


class Record(msgspec.Struct):
    """One entry."""

    rights: int = 0
    wrongs: int = 0
    floor: int = -1
    """Place of the best score with which it was wrong: scores there and below are held back."""
    since: int = 0
    """Right answers at held-back places since the last wrong one."""
    counted: int = 0
    """Right answers that counted for the namespace."""
    reported: bool = False


class Entries:
    """Records by entry, and how much entries differ."""

    def __init__(self) -> None:
        self.clean: dict[bytes, Record] = {}
        self.tight: dict[bytes, Record] = {}
        # Sums over entries, for the moments: answers, wrong ones, and pairs of both within an entry.
        self.answers = self.wrongs = self.pairs = self.wrong_pairs = 0.0

    def record(self, entry: bytes) -> Record | None:
        """What is known of an entry."""
        return self.tight.get(entry) or self.clean.get(entry)

    def holds(self, entry: bytes, at: int, budget: float) -> bool:
        """Whether a score at place `at` is held back for this entry alone."""
        found = self.tight.get(entry)
        if found is None or at < found.floor:
            return False
        strength = self.strength(budget)
        mean = min(self.mean(budget), budget / 2)
        return (found.wrongs + strength * mean) / (found.wrongs + found.since + strength) > budget

    def mean(self, budget: float) -> float:
        """The prior's mean: the share of wrong answers, itself drawn to half the budget."""
        return (self.wrongs + budget / 2 * 20) / (self.answers + 20)

    def strength(self, budget: float) -> float:
        """The prior's strength, from how often two answers of one entry are both wrong (method of
        moments)."""
        found = _USUAL
        if self.pairs >= 20 and self.wrongs:
            mean = self.wrongs / self.answers
            alike = (self.wrong_pairs / self.pairs - mean * mean) / max(mean * (1 - mean), 1e-9)
            found = max(1 / max(alike, 1e-9) - 1, _WEAK)
        return min(found, 0.5 / budget)

    def observe(self, entry: bytes, at: int, *, wrong: bool, pooled: bool) -> Record:
        """One label; the record it changed. `pooled`: it also tells how entries differ."""
        found = self.tight.pop(entry, None) or self.clean.pop(entry, None) or Record()
        if pooled:
            self.answers += 1
            self.pairs += found.rights + found.wrongs
            self.wrongs += wrong
            self.wrong_pairs += found.wrongs * wrong
        if wrong:
            found.wrongs += 1
            found.floor = at if found.floor < 0 else min(found.floor, at)
            found.since = 0
        else:
            found.rights += 1
            found.since += at >= found.floor
        self.put(entry, found)
        return found

    def put(self, entry: bytes, found: Record) -> None:
        """Keep a record as the last seen."""
        kept = self.tight if found.wrongs else self.clean
        kept[entry] = found
        if len(kept) > MAX_ENTRIES:
            del kept[next(iter(kept))]

    def begin(self) -> None:
        """The namespace's evidence begins anew: each entry may count again."""
        for found in (*self.clean.values(), *self.tight.values()):
            found.counted, found.reported = 0, False

    def merge(self, others: Mapping[bytes, Record]) -> None:
        """Take what another process knows, where it is worse."""
        for entry, theirs in others.items():
            if not theirs.wrongs:
                continue
            own = self.tight.pop(entry, None) or self.clean.pop(entry, None) or Record()
            if theirs.wrongs > own.wrongs:
                floor = theirs.floor if own.floor < 0 else min(own.floor, theirs.floor)
                own = msgspec.structs.replace(own, wrongs=theirs.wrongs, floor=floor, since=theirs.since)
            self.put(entry, own)
