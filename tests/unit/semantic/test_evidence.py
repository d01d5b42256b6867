"""Bets about thresholds: what shows one, what closes one, and what a new beginning costs."""

from __future__ import annotations

import math

import pytest

from llmcache_fast.semantic import evidence
from llmcache_fast.semantic.evidence import GRID, Level, newly_shown, observe, place, unknown

ERROR = 0.05


def shown(levels: list[Level], before: list[bool] | None = None) -> list[bool]:
    return newly_shown(levels, lambda index: levels[index].opening, before or [False] * len(GRID), ERROR)


def tell(levels: list[Level], at: int, *, rights: int = 0, wrongs: int = 0, budget: float = 0.1) -> None:
    for wrong in [False] * rights + [True] * wrongs:
        observe(levels, at, wrong=wrong, weight=1.0, eager=1.0, budget=budget)


@pytest.mark.parametrize(
    ("score", "threshold"), [(1.0, 0.99), (0.99, 0.99), (0.989, 0.98), (0.5, 0.5), (0.5999, 0.55)]
)
def test_a_score_has_the_strictest_threshold_that_it_reaches(score: float, threshold: float) -> None:
    assert GRID[place(score)] == threshold


@pytest.mark.parametrize("score", [0.4999, 0.0, -1.0, math.nan])
def test_what_reaches_none_has_no_place(score: float) -> None:
    assert place(score) == len(GRID)


def test_right_answers_show_a_threshold_and_all_looser_ones() -> None:
    levels = unknown()
    tell(levels, 0, rights=40)
    assert not any(shown(levels))
    tell(levels, 0, rights=40)
    assert all(shown(levels))


def test_answers_below_a_threshold_say_nothing_of_it() -> None:
    levels = unknown()
    tell(levels, 9, rights=100)
    # 9 is where a part of the error rate begins.
    assert shown(levels) == [False] * 9 + [True] * (len(GRID) - 9)


def test_a_wrong_answer_in_ten_never_shows_a_tenth() -> None:
    levels = unknown()
    for _ in range(200):
        tell(levels, 0, rights=9, wrongs=1)
        assert not any(shown(levels))


def test_what_was_shown_stays_so() -> None:
    levels = unknown()
    tell(levels, 0, rights=100)
    before = shown(levels)
    tell(levels, 0, wrongs=30)
    assert shown(levels, before) == before


def test_a_row_of_wrong_answers_is_an_alarm_and_a_few_among_many_are_none() -> None:
    levels = unknown()
    for _ in range(20):
        tell(levels, 0, rights=19, wrongs=1)
        assert not evidence.alarmed(levels[0])
    tell(levels, 0, wrongs=6)
    assert evidence.alarmed(levels[0])


def test_old_right_answers_do_not_delay_an_alarm() -> None:
    levels = unknown()
    tell(levels, 0, rights=10_000)
    tell(levels, 0, wrongs=6)
    assert evidence.alarmed(levels[0])


def test_all_beginnings_together_use_no_more_than_their_share() -> None:
    used = 0.0
    for burnt in range(30):
        for restarts in range(2000):
            level = Level([], [], burnt, restarts)
            used += math.exp(-level.needed(ERROR))
    assert 0.99 * ERROR < used < ERROR


def test_a_small_weight_is_a_small_step() -> None:
    full, part = unknown(), unknown()
    observe(full, 0, wrong=True, weight=1.0, eager=1.0, budget=0.1)
    observe(part, 0, wrong=True, weight=0.1, eager=0.1, budget=0.1)
    assert all(one < other < 0 for one, other in zip(full[0].opening, part[0].opening, strict=True))
    assert (full[0].seen, part[0].seen) == (1.0, 0.1)


def test_the_mean_of_bets_lies_between_them_and_needs_no_large_numbers() -> None:
    logs = [5000.0] + [0.0] * (len(evidence.OPENING) - 1)
    assert 5000 + math.log(0.2) < evidence.stake(logs, evidence.OPENING) < 5000
