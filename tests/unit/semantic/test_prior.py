"""What is known beforehand: a floor or counts, of bounded worth."""

from __future__ import annotations

import math

import pytest

from llmcache_fast._core import COLD_START_SCORE
from llmcache_fast.semantic.budget import Budget
from llmcache_fast.semantic.evidence import GRID
from llmcache_fast.semantic.prior import PRIOR, Prior


def test_a_floor_opens_a_large_budget_and_not_a_small_one() -> None:
    assert Budget(0.1, prior=PRIOR).threshold == min(each for each in GRID if each >= COLD_START_SCORE)
    assert Budget(0.01, prior=PRIOR).threshold == math.inf


def test_a_floor_above_the_grid_knows_nothing() -> None:
    assert Budget(0.5, prior=Prior.above(2.0)).threshold == math.inf


def test_much_evidence_counts_no_more_than_its_worth() -> None:
    many = Prior(tuple((1e6, 0.0) for _ in GRID), worth=20)
    assert Budget(0.1, prior=many).threshold == math.inf


def test_wrong_answers_speak_against_a_threshold() -> None:
    counts = Prior(tuple((100.0, 0.0) if threshold >= 0.9 else (80.0, 20.0) for threshold in GRID))
    assert Budget(0.1, prior=counts).threshold == 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prior(()),
        lambda: Prior(tuple((1.0, math.nan) for _ in GRID)),
        lambda: Prior(tuple((-1.0, 0.0) for _ in GRID)),
        lambda: Prior.above(0.9, worth=-1),
    ],
)
def test_impossible_numbers_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match="prior"):
        make()


def test_it_survives_as_a_file() -> None:
    prior = Prior(tuple((float(place), 1.0) for place in range(len(GRID))), worth=50)
    assert Prior.load(prior.dump()) == prior


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"version":1}', PRIOR.dump().replace(b":1,", b":2,", 1), PRIOR.dump()[:-9], b"\xff"],
)
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="prior"):
        Prior.load(data)
