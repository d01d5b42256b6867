"""Single entries: shrunk towards the namespace, held back by themselves, remembered with a bound."""

from __future__ import annotations

import pytest

from llmcache_fast.semantic import entries as module
from llmcache_fast.semantic.entries import Entries, Record

BUDGET = 0.05


def told(entry: bytes, at: int, outcomes: list[bool], known: Entries | None = None) -> Entries:
    known = known or Entries()
    for wrong in outcomes:
        known.observe(entry, at, wrong=wrong, pooled=True)
    return known


def test_an_entry_of_which_nothing_is_known_is_not_held() -> None:
    assert not Entries().holds(b"new", 3, BUDGET)


def test_one_wrong_answer_holds_that_score_and_all_below() -> None:
    known = told(b"e", 5, [True])
    assert [known.holds(b"e", at, BUDGET) for at in (4, 5, 6)] == [False, True, True]
    assert not known.holds(b"another", 5, BUDGET)


def test_right_answers_bring_it_back_and_the_better_the_budget_the_more_it_takes() -> None:
    def needed(budget: float) -> int:
        known = told(b"e", 5, [True])
        count = 0
        while known.holds(b"e", 5, budget):
            known.observe(b"e", 5, wrong=False, pooled=True)
            count += 1
        return count

    assert 3 <= needed(0.1) < needed(0.02) < 200


def test_right_answers_at_better_scores_do_not_bring_it_back() -> None:
    known = told(b"e", 5, [True, *[False] * 5])
    assert known.holds(b"e", 5, BUDGET)
    assert told(b"e", 4, [False] * 1000, known).holds(b"e", 5, BUDGET)


@pytest.mark.parametrize("budget", [0.001, 0.01, 0.1, 0.3])
def test_a_first_wrong_answer_always_holds(budget: float) -> None:
    known = Entries()
    for number in range(500):
        told(b"%d" % number, 3, [False] * 5, known)
    assert told(b"e", 5, [True], known).holds(b"e", 5, budget)


def test_entries_that_differ_much_are_judged_by_their_own_answers() -> None:
    alike, unlike = Entries(), Entries()
    for number in range(200):
        told(b"%d" % number, 3, [number % 5 == step for step in range(5)], alike)
        told(b"%d" % number, 3, [number % 5 == 0] * 5, unlike)
    assert unlike.strength(0.01) < alike.strength(0.01)


def test_the_longest_unseen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    known = Entries()
    for entry, wrong in (
        (b"a", True),
        (b"b", True),
        (b"a", False),
        (b"c", True),
        (b"d", False),
        (b"e", False),
    ):
        known.observe(entry, 1, wrong=wrong, pooled=True)
    assert set(known.tight) == {b"a", b"c"}
    assert set(known.clean) == {b"d", b"e"}


def test_of_what_two_processes_know_the_worse_counts() -> None:
    known = told(b"both", 4, [True])
    known.merge(
        {b"both": Record(wrongs=2, floor=2), b"theirs": Record(wrongs=1, floor=6), b"clean": Record(rights=3)}
    )
    both = known.record(b"both")
    assert both is not None
    assert (both.wrongs, both.floor) == (2, 2)
    assert known.holds(b"theirs", 6, BUDGET)
    assert known.record(b"clean") is None


def test_a_new_beginning_lets_entries_count_again() -> None:
    known = told(b"e", 4, [False])
    record = known.record(b"e")
    assert record is not None
    record.counted, record.reported = 16, True
    known.begin()
    assert (record.counted, record.reported) == (0, False)
