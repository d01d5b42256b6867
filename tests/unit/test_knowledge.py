"""What is known of clocks: decisions on messages, answers and time, against a model of a clock."""

from __future__ import annotations

import math
import random

import pytest

from llmcache_fast import _knowledge
from llmcache_fast._knowledge import Knowledge, Known
from llmcache_fast.tiers.base import NEVER, Asked, Changes, Message, Raised


def known(epoch: int = 7, seq: int = 10) -> Known:
    made = Known("n", 1, 1)
    assert made.learn(Changes(epoch, seq, []), 5.0, 5.0)
    return made


def message(prev: int, seq: int, *, epoch: int = 7, targets: tuple[int, ...] | None = (3,)) -> Message:
    return Message(1, epoch, prev, seq, targets)


def test_a_message_that_comes_next_moves_what_is_known() -> None:
    each = known()
    assert each.hear(message(10, 12)) == "next"
    assert each.hear(message(12, 13)) == "next"
    assert each.seq == 13


@pytest.mark.parametrize("late", [message(9, 10), message(3, 4)])
def test_a_message_of_what_is_known_changes_nothing(late: Message) -> None:
    each = known()
    assert each.hear(late) == "old"
    assert each.seq == 10


@pytest.mark.parametrize(
    "other",
    [message(11, 12), message(10, 12, targets=None), message(10, 12, epoch=8), message(2, 11)],
    ids=["one is missing", "not all is told", "another epoch", "they overlap"],
)
def test_a_message_that_does_not_follow_asks_for_more_and_moves_nothing(other: Message) -> None:
    each = known()
    assert each.hear(other) == "gap"
    assert (each.epoch, each.seq) == (7, 10)


def test_before_the_authority_was_heard_a_message_says_nothing() -> None:
    fresh = Known("n", 1, 1)
    assert fresh.hear(Message(1, 0, 0, 1, (2,))) == "gap"
    assert fresh.seq == 0


def test_an_own_invalidation_moves_it_only_when_nothing_is_missing_before() -> None:
    each = known()
    assert each.raised(Raised(7, 12, prev=10), 99.0, 99.0)
    assert each.seq == 12
    assert each.raised(Raised(7, 20, prev=15), 99.0, 99.0), "another process raised 15"
    assert each.seq == 12
    assert each.hear(message(12, 15)) == "next"


def test_an_answer_that_messages_overtook_takes_nothing_back() -> None:
    each = known()
    each.hear(message(10, 30))
    assert each.learn(Changes(7, 20, []), 6.0, 6.0)
    assert each.seq == 30
    assert each.as_of == 6.0
    assert each.learn(Changes(7, 20, []), 5.5, 5.5)
    assert each.as_of == 6.0


def test_an_epoch_that_was_left_is_never_entered_again() -> None:
    each = known()
    assert each.learn(Changes(8, 2, []), 6.0, 6.0)
    assert (each.epoch, each.seq) == (8, 2)
    for _ in range(2):
        assert not each.learn(Changes(7, 90, []), 7.0, 7.0)
        assert not each.raised(Raised(7, 91, prev=90), 99.0, 99.0)
    assert (each.epoch, each.seq, each.as_of) == (8, 2, 6.0)


def test_an_answer_that_was_asked_for_before_the_epoch_of_now_is_late() -> None:
    """A failover while several questions are under way: the new clock's answer may come first."""
    fresh = Known("n", 1, 1)
    fresh.learn(Changes(8, 2, []), 3.0, 4.0)
    assert not fresh.learn(Changes(7, 90, []), 2.0, 5.0)
    assert not fresh.raised(Raised(7, 91, prev=90), 3.5, 5.0)
    assert (fresh.epoch, fresh.seq, fresh.left) == (8, 2, [])
    assert fresh.question() == Asked(1, 8, 2)
    assert fresh.learn(Changes(9, 3, []), 4.5, 5.0)


def test_an_authority_in_an_epoch_of_the_past_is_made_to_begin_a_new_one() -> None:
    each = known()
    each.learn(Changes(8, 2, []), 6.0, 6.0)
    assert each.question() == Asked(1, 8, 2)
    each.learn(Changes(7, 90, []), 7.0, 7.0)
    assert each.question() == Asked(1, 7, NEVER)
    each.learn(Changes(9, 91, []), 8.0, 8.0)
    assert each.question() == Asked(1, 9, 91)


@pytest.mark.parametrize("by", ["message", "own"])
def test_a_clock_that_lost_what_was_raised_is_made_to_begin_a_new_epoch(by: str) -> None:
    """A failover lost 10, and somebody who knew less raised again: no seq is behind what anybody knows."""
    each = known()
    if by == "message":
        assert each.hear(message(8, 20)) == "gap"
    else:
        assert each.raised(Raised(7, 20, prev=8), 99.0, 99.0)
    assert each.question() == Asked(1, 7, NEVER)
    each.learn(Changes(7, 20, []), 6.0, 6.0)
    assert each.question() == Asked(1, 7, NEVER), "the answer was to an earlier question"
    each.learn(Changes(9, 21, []), 7.0, 7.0)
    assert each.question() == Asked(1, 9, 21)


def test_in_a_new_epoch_nothing_is_known_until_it_was_asked_for() -> None:
    each = known()
    each.rules[b"rule"] = ("a/*", 9)
    assert each.raised(Raised(9, 50, prev=40), 99.0, 99.0)
    assert (each.seq, each.as_of, each.rules) == (0, -math.inf, {})
    assert each.hear(message(50, 51, epoch=9)) == "gap"


def test_vouched_for_is_what_was_asked_within_the_lease() -> None:
    all_known = Knowledge(2.0)
    assert not all_known.vouched("n", 0.0)
    all_known.follow(known())
    assert all_known.vouched("n", 7.0)
    assert not all_known.vouched("n", 7.001)
    other = Known("o", 2, 2)
    all_known.follow(other)
    assert all_known.vouched_until() == -math.inf
    other.learn(Changes(1, 1, []), 4.0, 4.0)
    assert all_known.vouched_until() == 6.0


def test_of_too_many_namespaces_those_unused_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_knowledge, "MAX_FOLLOWED", 3)
    monkeypatch.setattr(_knowledge, "FORGOTTEN_AT_ONCE", 2)
    all_known = Knowledge(2.0)
    first, second, third, fourth = (Known(name, ord(name), ord(name) + 100) for name in "abcd")
    assert [all_known.follow(each) for each in (first, second, third)] == [[], [], []]
    assert all_known.use("a") is first
    assert all_known.use("z") is None
    assert all_known.follow(fourth) == [second, third]
    assert all_known.of_message(Message(second.tier_space, 1, 1, 2, ())) is None
    assert all_known.of_message(Message(first.tier_space, 1, 1, 2, ())) is first
    assert [each.namespace for each in all_known] == ["a", "d"]


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_lost_doubled_or_late_nothing_unknown_is_taken_for_known(seed: int) -> None:
    """A clock, a line that loses, doubles and reorders, and one who follows: what it knows is all."""
    rng = random.Random(seed)
    clock, markers, line = 100, dict[int, int](), list[Message]()
    follower, seen = Known("n", 1, 1), dict[int, int]()
    for _ in range(200):
        match rng.randrange(5):
            case 0 | 1:
                prev, clock = clock, clock + rng.randrange(1, 4)
                target = rng.randrange(6)
                markers[target] = clock
                line.append(Message(1, 7, prev, clock, None if rng.random() < 0.1 else (target,)))
            case 2 | 3 if line:
                heard = line[rng.randrange(min(3, len(line)))]
                if rng.random() < 0.8:
                    line.remove(heard)
                verdict = follower.hear(heard)
                if verdict != "old" and heard.targets is not None:
                    seen.update({each: max(heard.seq, seen.get(each, 0)) for each in heard.targets})
                if rng.random() < 0.3 and line:
                    line.pop(rng.randrange(len(line)))
            case _:
                since = follower.seq if follower.epoch == 7 else 0
                told = [(target, seq) for target, seq in markers.items() if seq > since]
                follower.learn(Changes(7, clock, told), 0.0, 0.0)
                seen.update(told)
        known_now = {target: seq for target, seq in markers.items() if seq <= follower.seq}
        assert all(seen.get(target, 0) >= seq for target, seq in known_now.items())
