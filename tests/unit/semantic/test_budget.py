"""The budget: verdicts, checks, outcomes; how it tightens, turns off and comes back; several processes."""

from __future__ import annotations

import math
import random

import pytest

from llmcache_fast.semantic.budget import Budget
from llmcache_fast.semantic.prior import Prior

NO_PRIOR = Prior.above(2.0)


def made(budget: float = 0.1, seed: int = 1) -> Budget:
    return Budget(budget, prior=NO_PRIOR, rng=random.Random(seed).random)


def compare(
    budget: Budget, score: float, number: int, *, wrong: bool = False, name: str = "", served: bool = False
) -> None:
    for count in range(number):
        entry = f"{name}{score}{count}".encode()
        budget.observe(score, entry, wrong, served=served, source="shadow" if served else "uncertain")


def opened(budget: float = 0.1, score: float = 0.9) -> Budget:
    found = made(budget)
    compare(found, score, round(12 / budget))
    assert found.threshold <= score
    return found


def serve(budget: Budget, score: float, number: int, *, wrong: bool = False, name: str = "s") -> int:
    """How many were served, each with its check done at once."""
    served = 0
    for count in range(number):
        entry = f"{name}{count}".encode()
        if budget.decide(score, entry) == "accept":
            served += 1
            if budget.should_check(score, entry):
                budget.observe(score, entry, wrong, served=True, source="shadow")
    return served


def test_a_cold_start_serves_nothing_without_a_prior() -> None:
    budget = made()
    assert budget.threshold == math.inf
    assert budget.decide(1.0, b"e") == "uncertain"
    assert budget.decide(0.3, b"e") == "reject"
    assert budget.decide(math.nan, b"e") == "reject"
    assert not budget.is_off
    assert budget.reason.startswith("learning")


def test_unserved_answers_that_would_have_been_right_open_it() -> None:
    budget = opened()
    assert budget.decide(0.95, b"new") == "accept"
    assert budget.decide(0.3, b"new") == "reject"
    assert "shown to keep 10.00% wrong answers at 95% confidence" in budget.reason


def test_it_opens_as_far_as_was_shown() -> None:
    budget = made()
    for count in range(300):
        compare(budget, 0.9, 1, name=f"right{count}")
        compare(budget, 0.7, 1, wrong=True, name=f"wrong{count}")
    assert 0.7 < budget.threshold <= 0.9
    assert budget.decide(0.7, b"new") == "uncertain"


def test_one_entry_does_not_open_it_for_all() -> None:
    budget = made()
    for _ in range(1000):
        budget.observe(0.9, b"the same", False, served=False, source="uncertain")
    assert budget.threshold == math.inf


def test_hits_are_checked_always_at_first_and_by_the_rate_in_the_end() -> None:
    budget = opened()
    rates = []
    for _ in range(4):
        rates.append(budget.statistics().check_rate)
        serve(budget, 0.95, 1500)
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.05)


def test_where_nothing_is_served_all_that_is_compared_counts_in_full() -> None:
    budget = opened()
    compare(budget, 0.95, 3000)
    assert budget.statistics().check_rate == 1.0


def test_a_wrong_answer_makes_it_look_at_all_that_follow() -> None:
    budget = opened()
    serve(budget, 0.95, 6000)
    compare(budget, 0.95, 1, wrong=True, served=True)
    assert budget.statistics().check_rate == 1.0
    serve(budget, 0.95, 20)
    assert budget.statistics().check_rate < 0.1


def test_wrong_answers_in_a_row_close_it_and_it_says_so() -> None:
    budget = opened()
    wrong = serve(budget, 0.95, 1000, wrong=True, name="bad")
    assert wrong <= 12
    assert budget.threshold == math.inf
    assert budget.is_off
    assert "off" in budget.reason
    assert "comes back" in budget.reason
    assert budget.statistics().alarms > 0


def test_it_comes_back_by_comparisons_of_what_is_not_served_and_the_second_time_takes_more() -> None:
    def needed(budget: Budget, name: str) -> int:
        count = 0
        while budget.threshold > 0.95:
            compare(budget, 0.95, 1, name=f"{name}{count}")
            count += 1
        return count

    budget = made()
    first = needed(budget, "first")
    serve(budget, 0.95, 1000, wrong=True, name="bad")
    second = needed(budget, "second")
    assert first < second < 3 * first


def test_a_check_that_failed_can_be_given_up() -> None:
    budget = opened()
    checks = [b"%d" % number for number in range(6)]
    begun = [
        entry
        for entry in checks
        if budget.decide(0.95, entry) == "accept" and budget.should_check(0.95, entry)
    ]
    assert len(begun) == 4  # so many may be on their way at first
    assert budget.decide(0.95, b"one more") == "uncertain"
    for entry in begun:
        budget.abandon(0.95, entry)
    assert budget.decide(0.95, b"one more") == "accept"


def test_checks_that_never_end_are_given_up_when_others_have() -> None:
    budget = opened()
    for number in range(4):
        assert budget.should_check(0.95, b"%d" % number)
    assert budget.decide(0.95, b"e") == "uncertain"
    compare(budget, 0.6, 70)
    assert budget.decide(0.95, b"e") == "accept"


def test_a_judge_that_was_served_counts_as_served_and_known() -> None:
    budget = made()
    budget.observe(0.8, b"e", False, served=True, source="judge")
    found = budget.statistics()
    assert (found.served, found.checked, found.judged) == (1, 1, 1)


def test_reports_hold_the_entry_and_count_once_each() -> None:
    budget = opened()
    budget.report(0.95, b"e")
    budget.observe(0.95, b"e", True, served=True, source="report")
    assert budget.decide(0.95, b"e") == "uncertain"
    assert budget.decide(0.95, b"another") == "accept"
    found = budget.statistics()
    assert (found.reports, found.reported_entries, found.checked) == (2, 1, 0)


def test_a_report_that_all_was_right_is_none() -> None:
    budget = made()
    before = budget.dump()
    for number in range(1000):
        budget.observe(0.95, b"%d" % number, False, served=True, source="report")
    assert budget.dump() == before


def test_processes_open_together_what_none_would_alone() -> None:
    one, other = made(seed=1), made(seed=2)
    compare(one, 0.9, 45, name="one")
    compare(other, 0.9, 45, name="other")
    assert one.threshold == other.threshold == math.inf
    one.merge(other)
    other.merge(one.dump())
    assert one.threshold == other.threshold <= 0.9


def test_what_one_process_closed_is_closed_for_the_other() -> None:
    one, other = opened(), made(seed=2)
    other.merge(one)
    assert other.threshold <= 0.9
    serve(one, 0.95, 1000, wrong=True, name="bad")
    other.merge(one)
    assert other.threshold == math.inf
    assert other.is_off or other.reason.startswith("learning")


def test_evidence_of_an_older_state_of_a_process_is_not_taken() -> None:
    one, other = made(seed=1), made(seed=2)
    compare(one, 0.9, 10)
    early = one.dump()
    compare(one, 0.9, 10, name="more")
    other.merge(one)
    late = other.dump()
    other.merge(early)
    assert other.dump() == late


def test_evidence_for_another_budget_is_refused() -> None:
    budget = made(0.1)
    with pytest.raises(ValueError, match=r"gathered for 0\.2"):
        budget.load(made(0.2).dump())
    with pytest.raises(ValueError, match=r"gathered for 0\.2"):
        budget.merge(made(0.2))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((0.0, 0.95, 0.05), "false_hit_budget"),
        ((1.0, 0.95, 0.05), "false_hit_budget"),
        ((math.nan, 0.95, 0.05), "false_hit_budget"),
        ((0.1, 0.4, 0.05), "confidence"),
        ((0.1, 1.0, 0.05), "confidence"),
        ((0.1, 0.95, 0.0), "shadow_rate"),
        ((0.1, 0.95, 1.5), "shadow_rate"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: tuple[float, float, float], says: str) -> None:
    budget, confidence, shadow_rate = numbers
    with pytest.raises(ValueError, match=says):
        Budget(budget, confidence, shadow_rate)
