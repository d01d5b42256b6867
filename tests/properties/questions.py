"""Worlds of reworded questions, and a cache that lives by a budget in one of them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from llmcache_fast.semantic.budget import Budget
from llmcache_fast.semantic.evidence import GRID
from llmcache_fast.semantic.prior import Prior

Risk = Callable[[float], float]
"""The chance that a candidate of this score is wrong."""
Candidate = tuple[float, bytes, bool]
NO_PRIOR = Prior.above(2.0)


@dataclass
class Life:
    """What became of a budget."""

    budget: Budget
    served: int = 0
    wrong: int = 0
    loosest: int = -1
    """Place of the loosest threshold that was ever in use."""
    worst: float = 0.0
    """The largest share of wrong answers so far, looked at after each hit from the 20 / budget-th on."""

    @property
    def over(self) -> bool:
        return self.wrong > self.budget.false_hit_budget * self.served


def live(budget: Budget, candidates: Iterable[Candidate], *, delay: int = 0) -> Life:
    """One candidate after the other; an outcome is known `delay` candidates later."""
    life = Life(budget)
    waiting: deque[tuple[int, Candidate, bool]] = deque()
    for number, (score, entry, wrong) in enumerate(candidates):
        while waiting and waiting[0][0] <= number:
            _, known, served = waiting.popleft()
            budget.observe(*known, served=served, source="shadow" if served else "uncertain")
        verdict = budget.decide(score, entry)
        if verdict == "accept":
            life.served += 1
            life.wrong += wrong
            if life.served >= 20 / budget.false_hit_budget:
                life.worst = max(life.worst, life.wrong / life.served)
            if budget.should_check(score, entry):
                waiting.append((number + delay, (score, entry, wrong), True))
        elif verdict == "uncertain":
            waiting.append((number + delay, (score, entry, wrong), False))
        if budget.threshold <= 1:
            life.loosest = max(life.loosest, GRID.index(budget.threshold))
    return life


def questions(rng: random.Random, risk: Risk, number: int, entries: int = 500) -> Iterator[Candidate]:
    """Honest ones: scores of 0.5 to 1, wrong by chance."""
    for _ in range(number):
        score = 0.5 + 0.5 * rng.random()
        yield score, b"%d" % rng.randrange(entries), rng.random() < risk(score)


def collisions(rng: random.Random, number: int, entries: int) -> Iterator[Candidate]:
    """Crafted ones: high scores, all wrong."""
    for _ in range(number):
        yield 0.93 + 0.069 * rng.random(), b"%d" % rng.randrange(entries), True


def loosest_allowed(risk: Risk, budget: float, steps: int = 2000) -> int:
    """Place of the loosest threshold that keeps the budget in a world of `questions`; -1 for none."""

    def share(threshold: float) -> float:
        return sum(risk(threshold + (1 - threshold) * (step + 0.5) / steps) for step in range(steps)) / steps

    return max((place for place, threshold in enumerate(GRID) if share(threshold) <= budget), default=-1)


def made(budget: float, seed: int, prior: Prior = NO_PRIOR, shadow_rate: float = 0.05) -> Budget:
    return Budget(budget, shadow_rate=shadow_rate, prior=prior, rng=random.Random(seed + 10**6).random)
