"""The false-hit budget: of the answers that a namespace gives to reworded questions, at most this share is
wrong.

What belongs here: what is served, what is checked, and what becomes of the outcome. What does not: calls and
comparisons (the caller makes them), the statistics of thresholds (`evidence`) and of single entries
(`entries`). Pure: randomness is passed in, and there is no clock. docs/explanation/semantic-budget.md says
what is guaranteed, and what is not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from llmcache_fast.semantic import evidence
from llmcache_fast.semantic.budget_form import MAX_SOURCES, VERSION, Counts, Own, State, read
from llmcache_fast.semantic.entries import COUNTED, Entries
from llmcache_fast.semantic.evidence import GRID
from llmcache_fast.semantic.prior import PRIOR, Prior

Verdict = Literal["accept", "uncertain", "reject"]
Source = Literal["shadow", "judge", "report", "uncertain"]

_DETECTIONS: Final = 10.0
"""Wrong answers that checks would meet while an attack uses up the whole budget of what was served since the
last alarm."""
_EXPOSED: Final = 0.15
"""Share of the budget of what was accepted since the last alarm that may be on its way unchecked; and at
least:"""
_LEAST_EXPOSED: Final = 4.0
_OVERDUE: Final = 64
"""Outcomes after which a check that was begun before them is given up."""


class Threshold(msgspec.Struct, frozen=True):
    """What is known about one threshold."""

    threshold: float
    shown: bool
    seen: float
    """Labels at this score or above, weighted."""
    evidence: float
    """How far it is: 1 shows it; below 0 speaks against it."""


class BudgetStatistics(msgspec.Struct, frozen=True):
    """A budget as it stands."""

    threshold: float
    """Infinite when nothing is served."""
    is_off: bool
    reason: str
    false_hit_budget: float
    confidence: float
    served: int
    checked: int
    """Served answers whose outcome is known."""
    wrong: int
    """Those of them that were wrong."""
    wrong_share: float
    """Of all served answers, estimated."""
    compared: int
    """Outcomes of answers that were not served."""
    judged: int
    reports: int
    reported_entries: int
    """Entries whose reports counted for the namespace since it began anew."""
    alarms: int
    """How often a threshold in use was closed."""
    check_rate: float
    waiting: int
    """Checks whose outcome is not known yet."""
    held_entries: int
    """Entries that were wrong at least once."""
    thresholds: tuple[Threshold, ...]


class _Check(NamedTuple):
    """A check that was begun."""

    score: float
    entry: bytes
    rate: float
    """The usual one of its time."""
    chance: float
    """Its own."""
    begun: int
    """Outcomes known by then."""


class Budget:
    """Keeps the share of wrong answers per served semantic hit at or below `false_hit_budget`, at
    `confidence`.

    For each candidate: `decide`. Accepted and served: `should_check`, once, and if it says so, `observe` the
    outcome. Uncertain: the provider (or a judge) is asked; compare its answer with the stored one and
    `observe(served=False)`. Not for several threads at once.
    """

    def __init__(
        self,
        false_hit_budget: float,
        confidence: float = 0.95,
        shadow_rate: float = 0.05,
        prior: Prior = PRIOR,
        rng: Callable[[], float] = random.random,
        source: bytes | None = None,
    ) -> None:
        """`rng` draws from [0, 1). `source` names this process among those that merge; None draws a name.

        Raises:
            ValueError: a number is out of its range.
        """
        if not 0 < false_hit_budget < 1:
            raise ValueError(
                f"false_hit_budget: {false_hit_budget!r} must be above 0 and below 1, such as 0.02"
            )
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence: {confidence!r} must be at least 0.5 and below 1, such as 0.95")
        if not 0 < shadow_rate <= 1:
            raise ValueError(
                f"shadow_rate: {shadow_rate!r} must be above 0 and at most 1: without checks nothing is known"
            )
        self.false_hit_budget = false_hit_budget
        self.confidence = confidence
        self.shadow_rate = shadow_rate
        self.prior = prior
        self._rng = rng
        self._source = source or bytes(int(rng() * 256) for _ in range(16))
        self._own = Own(0, evidence.unknown())
        self._others: dict[bytes, Own] = {}
        self._shown = [False] * len(GRID)
        self._counts = Counts()
        self._entries = Entries()
        self._pending: list[_Check] = []
        self._exposed = 0.0
        self._outcomes = 0
        self._unchecked = 0
        self._at = -1
        self._update()

    # --- what is served ---

    @property
    def threshold(self) -> float:
        """Scores from here on are served; infinite while none are."""
        return GRID[self._at] if self._at >= 0 else math.inf

    def decide(self, score: float, entry: bytes) -> Verdict:
        """Whether a candidate may be served. `score`: the verifier's, 0 to 1."""
        at = evidence.place(score)
        if at >= len(GRID):
            return "reject"
        if at > self._at or self._entries.holds(entry, at, self.false_hit_budget):
            return "uncertain"
        # Many at once: the outcomes of the first are waited for.
        counts = self._counts
        share = 0.0 if counts.suspicious else _EXPOSED * self.false_hit_budget
        allowed = max(_LEAST_EXPOSED, share * (counts.recent + counts.trusted))
        return "accept" if self._exposed < allowed else "uncertain"

    def should_check(self, score: float, entry: bytes) -> bool:
        """Whether the hit that is now being served gets a shadow check. Call it once for each served hit."""
        rate = self._rate
        # What the last step let in is known least.
        chance = 2 * rate if evidence.place(score) == self._at else rate
        # And the longer none was drawn, the likelier: no run of bad luck lets an attack pass.
        chance = min(1.0, chance * (1 + rate * self._unchecked))
        self._counts.served += 1
        self._counts.recent += 1
        self._counts.suspicious = max(self._counts.suspicious - 1, 0)
        if self._rng() >= chance:
            self._unchecked += 1
            return False
        self._unchecked = 0
        self._pending.append(_Check(score, entry, rate, chance, self._outcomes))
        self._exposed += 1 / chance
        return True

    def abandon(self, score: float, entry: bytes) -> _Check | None:
        """A check came to nothing: its call failed, or was not made. That must not depend on the answer."""
        for index, check in enumerate(self._pending):
            if check.score == score and check.entry == entry:
                del self._pending[index]
                self._exposed = self._exposed - 1 / check.chance if self._pending else 0.0
                return check
        return None

    @property
    def _rate(self) -> float:
        """How often hits are checked now: always while little was served since the last alarm, and after a
        wrong answer."""
        if self._counts.suspicious:
            return 1.0
        allowed = self.false_hit_budget * self._counts.recent
        return max(self.shadow_rate, min(1.0, _DETECTIONS / allowed)) if allowed > 0 else 1.0

    # --- what becomes of it ---

    def observe(self, score: float, entry: bytes, wrong: bool, *, served: bool, source: Source) -> None:
        """The outcome of a comparison: whether the stored answer was wrong for the question."""
        if source == "report":
            if wrong:
                self.report(score, entry)
            return
        at = evidence.place(score)
        if at >= len(GRID):
            return
        counts, rate = self._counts, self._rate
        check = self.abandon(score, entry) if served else None
        then, chance = rate, rate if served and source == "shadow" else 1.0
        if check is not None:
            then, chance = check.rate, check.chance
        self._outcomes += 1
        while self._pending and self._pending[0].begun < self._outcomes - _OVERDUE:
            self.abandon(self._pending[0].score, self._pending[0].entry)
        if served:
            counts.served += source == "judge"
            counts.checked += 1
            counts.wrong += wrong
            counts.wrong_weight += wrong / chance
        else:
            counts.compared += 1
        counts.judged += source == "judge"
        counts.trusted += not served and not wrong and at <= self._at
        held = self._entries.holds(entry, at, self.false_hit_budget)
        record = self._entries.observe(entry, at, wrong=wrong, pooled=at <= self._at)
        if held or (not wrong and record.counted >= COUNTED):
            return
        record.counted += not wrong
        self._learn(at, wrong=wrong, weight=then / chance, eager=1.0 if at > self._at else then / chance)
        if wrong and at <= self._at:
            # Look at all that follow: one wrong answer is nothing, a row of them is an attack.
            counts.suspicious = math.ceil(0.5 / self.false_hit_budget)
        self._update()

    def report(self, score: float, entry: bytes) -> None:
        """Somebody says that a served answer was wrong. Reports are no random sample: they count against
        thresholds, never for them, once an entry, and cannot turn matching off by themselves."""
        at = evidence.place(score)
        self._counts.reports += 1
        if at >= len(GRID):
            return
        record = self._entries.observe(entry, at, wrong=True, pooled=False)
        if record.reported:
            return
        record.reported = True
        self._counts.reported_entries += 1
        # The strictest threshold that was shown is closed by what was compared, or not at all.
        last = self._own.levels[self._shown.index(True)] if self._at >= 0 else None
        kept = last.closing if last is not None else []
        self._learn(at, wrong=True, weight=1.0, eager=1.0)
        if last is not None:
            last.closing = kept
        self._update(reported=True)

    def _learn(self, at: int, *, wrong: bool, weight: float, eager: float) -> None:
        self._own.version += 1
        evidence.observe(
            self._own.levels, at, wrong=wrong, weight=weight, eager=eager, budget=self.false_hit_budget
        )

    def _update(self, *, reported: bool = False) -> None:
        """Close what broke the budget, show what was shown to keep it."""
        levels = self._own.levels
        # Only what is served is under the budget: a stricter threshold that few questions reach may look bad
        # by chance.
        while self._at >= 0 and evidence.alarmed(levels[self._at]):
            self._close(reported=reported)
        for level, shown in zip(levels, self._shown, strict=True):
            if not shown and evidence.alarmed(level):
                level.begin()
                level.restarts += 1
        self._shown = evidence.newly_shown(levels, self._opening, self._shown, 1 - self.confidence)
        self._at = _last(self._shown)

    def _close(self, *, reported: bool) -> None:
        """The threshold in use begins anew; the next stricter one that was shown is used."""
        level = self._own.levels[self._at]
        level.begin()
        level.burnt += not reported
        level.restarts += reported
        self._shown[self._at] = False
        self._at = _last(self._shown)
        self._counts.alarms += 1
        self._counts.recent = self._counts.trusted = 0
        self._counts.by_reports = reported
        self._entries.begin()

    def _opening(self, index: int) -> list[float]:
        """All that speaks for a threshold: of this process, of others, known before."""
        own = self._own.levels[index]
        total = list(own.opening)
        for other in self._others.values():
            if other.levels[index].epoch == own.epoch:
                total = [old + new for old, new in zip(total, other.levels[index].opening, strict=True)]
        rights, wrongs = self.prior.answers[index]
        if own.epoch == (0, 0) and rights + wrongs > 0:
            scale = min(1.0, self.prior.worth / (rights + wrongs))
            known = evidence.gains(rights * scale, wrongs * scale, self.false_hit_budget)
            total = [old + new for old, new in zip(total, known, strict=True)]
        return total

    # --- what it says of itself ---

    @property
    def is_unblemished(self) -> bool:
        """No served answer was found to be wrong yet, in this process."""
        return not (self._counts.wrong or self._counts.reports or self._counts.alarms)

    @property
    def is_off(self) -> bool:
        """Nothing is served, because the budget cannot be kept: not for want of evidence, but by it."""
        if self._at >= 0:
            return False
        enough = 2 / self.false_hit_budget
        strictest = next((level for level in self._own.levels if level.seen >= enough), None)
        return strictest is not None and strictest.epoch != (0, 0)

    @property
    def reason(self) -> str:
        """Why the threshold is what it is, in a sentence."""
        share = f"{self.false_hit_budget:.2%} wrong answers at {self.confidence:.0%} confidence"
        if self.is_off:
            return (
                f"off: not even the strictest threshold with enough questions keeps {share}; it comes back "
                "when comparisons of unserved answers show one that does"
            )
        if self._at < 0:
            return f"learning: no threshold has been shown to keep {share} yet; unserved answers are compared"
        if self._counts.alarms and self._counts.by_reports:
            return (
                f"tightened to {self.threshold} by reports on {self._counts.reported_entries} entries; "
                "comparisons can show looser thresholds again"
            )
        if self._counts.alarms:
            return f"from {self.threshold} on shown to keep {share}, after {self._counts.alarms} alarms"
        return f"from {self.threshold} on shown to keep {share}"

    def statistics(self) -> BudgetStatistics:
        """Where it stands, in numbers."""
        counts, error = self._counts, 1 - self.confidence
        needed = [level.needed(error / 3) for level in self._own.levels]
        return BudgetStatistics(
            threshold=self.threshold,
            is_off=self.is_off,
            reason=self.reason,
            false_hit_budget=self.false_hit_budget,
            confidence=self.confidence,
            served=counts.served,
            checked=counts.checked,
            wrong=counts.wrong,
            wrong_share=counts.wrong_weight / counts.served if counts.served else 0.0,
            compared=counts.compared,
            judged=counts.judged,
            reports=counts.reports,
            reported_entries=counts.reported_entries,
            alarms=counts.alarms,
            check_rate=self._rate,
            waiting=len(self._pending),
            held_entries=len(self._entries.tight),
            thresholds=tuple(
                Threshold(
                    GRID[index],
                    self._shown[index],
                    level.seen,
                    evidence.stake(self._opening(index), evidence.OPENING) / needed[index],
                )
                for index, level in enumerate(self._own.levels)
            ),
        )

    # --- across restarts and processes ---

    def dump(self) -> bytes:
        """All evidence. It holds scores and ids of entries, no text."""
        entries = self._entries
        state = State(
            VERSION,
            self.false_hit_budget,
            self.confidence,
            self._source,
            {**self._others, self._source: self._own},
            self._shown,
            self._counts,
            entries.tight,
            entries.clean,
            (entries.answers, entries.wrongs, entries.pairs, entries.wrong_pairs),
        )
        return msgspec.msgpack.encode(state)

    def load(self, data: bytes) -> None:
        """Go on where the process that wrote `data` stopped; what this one has learned itself is forgotten.

        To start several processes from one dump, `merge` it into each.

        Raises:
            ValueError: the bytes are none of `dump`, or of another budget or confidence: evidence for one
                says nothing of another. Nothing was changed.
        """
        state = read(data, self.false_hit_budget, self.confidence)
        self._source = state.source
        self._own = state.sources.pop(state.source)
        self._others = state.sources
        self._shown = state.shown
        self._counts = state.counts
        self._entries = Entries()
        self._entries.tight, self._entries.clean = state.tight, state.clean
        moments = state.moments
        entries = self._entries
        entries.answers, entries.wrongs, entries.pairs, entries.wrong_pairs = moments
        self._pending.clear()
        self._exposed = 0.0
        self._update()

    def merge(self, other: Budget | bytes) -> None:
        """Take the evidence of another process of this namespace. Twice the same changes nothing; of what
        both know of an entry the worse counts; a threshold that one has closed begins anew for all.

        Raises:
            ValueError: as `load`.
        """
        data = other.dump() if isinstance(other, Budget) else other
        state = read(data, self.false_hit_budget, self.confidence)
        for name, theirs in state.sources.items():
            if name == self._source:
                continue
            known = self._others.get(name)
            if known is None and len(self._others) >= MAX_SOURCES - 1:
                del self._others[min(self._others, key=lambda one: self._others[one].version)]
            if known is None or theirs.version > known.version:
                self._others[name] = theirs
            for index, (own, level) in enumerate(zip(self._own.levels, theirs.levels, strict=True)):
                if level.epoch <= own.epoch:
                    continue
                own.begin()
                own.burnt, own.restarts = max(own.burnt, level.burnt), max(own.restarts, level.restarts)
                if self._shown[index]:
                    self._shown[index:] = [False] * (len(GRID) - index)
                    self._counts.recent = self._counts.trusted = 0
        self._entries.merge(state.tight)
        self._update()


def _last(shown: Sequence[bool]) -> int:
    return max((index for index, one in enumerate(shown) if one), default=-1)
