"""What every authority and every feed promises (`tiers/base.py`), asked of all of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llmcache_fast._errors import TierError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import MAX_MARKERS, MAX_RULES, MAX_TOLD, Asked, Message, Raised
from tests.contract.clocks import clock_of, markers_of
from tests.contract.tiers import AUTHORITIES, CLASSES, make, over

FEEDS = [name for name in AUTHORITIES if hasattr(CLASSES[name], "follow")]
BUSES = [name for name in FEEDS if hasattr(CLASSES[name], "tell")]
PROCESS = ["memory"]
"""What they hold is of one object: there is no second one to tell."""
TOP = 2**64 - 1


feed = over(FEEDS)
bus = over(BUSES)


def rule(number: int, size: int = 17) -> bytes:
    return hashlib.sha256(b"rule %d" % number).digest()[:17].ljust(size, b"\xff")


async def rules_of(tier: Any, namespace: int, since: int = 0) -> list[tuple[bytes, int]]:
    epoch, _ = await clock_of(tier, namespace)
    (changes,) = await tier.changes([Asked(namespace, epoch, since)])
    return [(bytes(pattern), seq) for pattern, seq in changes.rules]


class Heard:
    """What a follower was told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.follows = anyio.Event()
        self._more = anyio.Event()

    def __call__(self, message: Message | None) -> None:
        if message is None:
            self.follows.set()
            return
        assert self.follows.is_set(), "a message came before the word that messages come"
        self.messages.append(message)
        self._more.set()

    async def wait_for(self, count: int) -> list[Message]:
        with anyio.fail_after(30):
            while len(self.messages) < count:
                self._more = anyio.Event()
                await self._more.wait()
        return self.messages


@asynccontextmanager
async def following(tier: Any, count: int = 1) -> AsyncIterator[list[Heard]]:
    """`count` followers of the tier, told that messages come from now on."""
    followers = [Heard() for _ in range(count)]
    async with anyio.create_task_group() as group:
        for heard in followers:
            group.start_soon(tier.follow, heard)
        with anyio.fail_after(30):
            for heard in followers:
                await heard.follows.wait()
        yield followers
        group.cancel_scope.cancel()


def told(namespace: int, raised: Raised, targets: Sequence[int] | None) -> Message:
    return Message(namespace, *_stamp(raised), None if targets is None else tuple(targets))


def _stamp(raised: Raised) -> tuple[int, int, int]:
    return raised.epoch, raised.prev, raised.seq


# --- the clock and its markers ------------------------------------------------------------------------------


async def test_an_invalidation_tells_the_value_before(authority: Any, clock: ManualClock) -> None:
    epoch, start = await clock_of(authority, 7)
    first = await authority.raise_markers(7, [1])
    clock.advance(5)
    second = await authority.raise_markers(7, [2, 3], [rule(1)])
    third = await authority.raise_markers(7, [])
    assert [each.epoch for each in (first, second, third)] == [epoch] * 3
    assert [each.prev for each in (first, second, third)] == [start, first.seq, second.seq]
    assert start < first.seq < second.seq < third.seq
    assert await clock_of(authority, 7) == (epoch, third.seq)


async def test_raised_at_once_each_tells_the_one_before(authority: Any) -> None:
    _, start = await clock_of(authority, 7)
    raised: list[Raised] = []

    async def work(target: int) -> None:
        raised.append(await authority.raise_markers(7, [target]))

    async with anyio.create_task_group() as group:
        for target in range(20):
            group.start_soon(work, target)
    chain = sorted(raised, key=lambda each: each.seq)
    assert [each.prev for each in chain] == [start, *(each.seq for each in chain[:-1])]


async def test_an_invalidation_of_a_namespace_nobody_asked_for_makes_its_clock(authority: Any) -> None:
    raised = await authority.raise_markers(11, [1])
    assert 0 < raised.prev < raised.seq
    assert await clock_of(authority, 11) == (raised.epoch, raised.seq)


async def test_one_call_tells_the_changes_of_many_namespaces(authority: Any) -> None:
    raised = {space: await authority.raise_markers(space, [space, 1]) for space in (3, TOP - 5, 5)}
    later = await authority.raise_markers(3, [9], [rule(3)])
    epoch, seq, _ = raised[5]
    answers = await authority.changes(
        [
            Asked(5, epoch, seq),
            Asked(3, raised[3].epoch, raised[3].seq),
            Asked(TOP - 5),
            Asked(404),
            Asked(3, later.epoch ^ 1, later.seq),
        ]
    )
    assert [answer.seq for answer in answers[:3]] == [seq, later.seq, raised[TOP - 5].seq]
    assert [answer.epoch for answer in answers[:3]] == [epoch, later.epoch, raised[TOP - 5].epoch]
    assert [list(answer.markers) for answer in answers[:2]] == [[], [(9, later.seq)]]
    assert sorted(answers[2].markers) == [(1, raised[TOP - 5].seq), (TOP - 5, raised[TOP - 5].seq)]
    # A namespace nobody heard of has a clock from now on, and keeps it.
    assert not answers[3].markers
    assert not answers[3].rules
    assert (answers[3].epoch, answers[3].seq) == await clock_of(authority, 404)
    # What is known of another epoch counts for nothing.
    assert dict(answers[4].markers) == {3: raised[3].seq, 1: raised[3].seq, 9: later.seq}
    assert [(bytes(pattern), at) for pattern, at in answers[4].rules] == [(rule(3), later.seq)]
    assert await authority.changes([]) == []


async def test_markers_beyond_the_bound_become_one_of_the_namespace(authority: Any) -> None:
    space, step = 7, 4096
    raised: dict[int, int] = {}
    last = 0
    for first in range(0, MAX_MARKERS + 4 * step, step):
        targets = range(1_000 + first, 1_000 + first + step)
        last = (await authority.raise_markers(space, targets)).seq
        raised.update(dict.fromkeys(targets, last))
    kept = dict(await markers_of(authority, space))
    floor = kept.pop(space)
    assert len(kept) <= MAX_MARKERS * 5 // 4
    # Too strict, never too lax: what is not told by a marker of its own is told by the namespace's.
    assert [target for target, seq in raised.items() if kept.get(target, floor) < seq] == []
    assert {target for target, seq in raised.items() if seq == last} <= set(kept)
    assert floor < last
    assert await markers_of(authority, space, last) == []


async def test_one_call_may_raise_more_than_the_bound(authority: Any) -> None:
    targets = range(1_000, 1_000 + MAX_MARKERS + 10)
    epoch, seq, _ = await authority.raise_markers(7, targets)
    kept = dict(await markers_of(authority, 7))
    assert {kept.get(target, kept.get(7)) for target in targets} == {seq}
    assert await clock_of(authority, 7) == (epoch, seq)


async def test_a_target_named_twice_is_raised_once(authority: Any) -> None:
    raised = await authority.raise_markers(7, [1, 1, TOP, 1], [rule(1), rule(1)])
    assert sorted(await markers_of(authority, 7)) == [(1, raised.seq), (TOP, raised.seq)]
    assert await rules_of(authority, 7) == [(rule(1), raised.seq)]


# --- rules --------------------------------------------------------------------------------------------------


async def test_rules_are_kept_and_told_like_markers(authority: Any) -> None:
    first = await authority.raise_markers(7, [], [rule(1), rule(2, 1024)])
    second = await authority.raise_markers(7, [5], [rule(3)])
    again = await authority.raise_markers(7, [], [rule(1)])
    assert await rules_of(authority, 7) == [
        (rule(2, 1024), first.seq),
        (rule(3), second.seq),
        (rule(1), again.seq),
    ]
    assert await rules_of(authority, 7, first.seq) == [(rule(3), second.seq), (rule(1), again.seq)]
    assert await rules_of(authority, 7, again.seq) == []
    assert await rules_of(authority, 8) == []
    assert await markers_of(authority, 7) == [(5, second.seq)]


async def test_rules_are_bytes_of_any_kind(authority: Any) -> None:
    patterns = [bytes(17), bytes(18), bytes(range(256)), b"\n" * 17, b"'\";--\\" * 3, "ü*/%_".encode() * 4]
    raised = await authority.raise_markers(7, [], patterns)
    assert sorted(await rules_of(authority, 7)) == sorted((each, raised.seq) for each in patterns)


async def test_forgotten_rules_go_with_the_invalidation_that_covers_them(authority: Any) -> None:
    await authority.raise_markers(7, [], [rule(1), rule(2), rule(3)])
    other = await authority.raise_markers(8, [], [rule(1)])
    raised = await authority.raise_markers(7, [7], [rule(4)], forget=[rule(1), rule(3), rule(99)])
    assert {pattern for pattern, _ in await rules_of(authority, 7)} == {rule(2), rule(4)}
    assert await markers_of(authority, 7) == [(7, raised.seq)]
    assert await rules_of(authority, 8) == [(rule(1), other.seq)]


async def test_a_rule_forgotten_and_raised_in_one_step_is_there(authority: Any) -> None:
    await authority.raise_markers(7, [], [rule(1)])
    raised = await authority.raise_markers(7, [], [rule(1)], forget=[rule(1)])
    assert await rules_of(authority, 7) == [(rule(1), raised.seq)]


async def test_rules_beyond_the_bound_become_a_marker_of_the_namespace(authority: Any) -> None:
    raised: dict[bytes, int] = {}
    for number in range(MAX_RULES + MAX_RULES // 2):
        raised[rule(number)] = (await authority.raise_markers(7, [], [rule(number)])).seq
    kept = dict(await rules_of(authority, 7))
    floor = dict(await markers_of(authority, 7))[7]
    assert len(kept) <= MAX_RULES * 5 // 4
    assert [pattern for pattern, seq in raised.items() if kept.get(pattern, floor) < seq] == []
    last = rule(MAX_RULES + MAX_RULES // 2 - 1)
    assert last in kept
    assert floor < raised[last]


# --- those who follow ---------------------------------------------------------------------------------------


async def test_followers_hear_of_every_invalidation_in_order(feed: Any) -> None:
    async with following(feed, 2) as followers:
        first = await feed.raise_markers(7, [1, TOP])
        other = await feed.raise_markers(TOP, [])
        second = await feed.raise_markers(7, [2], forget=[rule(1)])
        for heard in followers:
            messages = await heard.wait_for(3)
            assert [m for m in messages if m.namespace == 7] == [
                told(7, first, [1, TOP]),
                told(7, second, [2]),
            ]
            assert [m for m in messages if m.namespace == TOP] == [told(TOP, other, [])]
    assert second.prev == first.seq


async def test_invalidations_made_at_once_are_heard_as_a_chain(feed: Any) -> None:
    _, start = await clock_of(feed, 7)

    async def work(target: int) -> None:
        await feed.raise_markers(7, [target])

    async with following(feed) as (heard,):
        async with anyio.create_task_group() as group:
            for target in range(8):
                group.start_soon(work, target)
        messages = await heard.wait_for(8)
    assert [each.prev for each in messages] == [start, *(each.seq for each in messages[:-1])]
    assert {each.targets for each in messages} == {(target,) for target in range(8)}


async def test_a_message_with_a_rule_or_too_many_targets_names_none(feed: Any) -> None:
    async with following(feed) as (heard,):
        most = await feed.raise_markers(7, range(MAX_TOLD))
        more = await feed.raise_markers(7, range(MAX_TOLD + 1))
        ruled = await feed.raise_markers(7, [1], [rule(1)])
        messages = await heard.wait_for(3)
    assert messages == [told(7, most, range(MAX_TOLD)), told(7, more, None), told(7, ruled, None)]


async def test_who_no_longer_follows_hears_nothing(feed: Any) -> None:
    async with following(feed) as (stays,):
        async with following(feed) as (leaves,):
            await feed.raise_markers(7, [1])
            await leaves.wait_for(1)
        await feed.raise_markers(7, [2])
        assert [each.targets for each in await stays.wait_for(2)] == [(1,), (2,)]
    assert [each.targets for each in leaves.messages] == [(1,)]


async def test_a_follower_may_come_back(feed: Any) -> None:
    for turn in range(3):
        async with following(feed) as (heard,):
            raised = await feed.raise_markers(7, [turn])
            assert await heard.wait_for(1) == [told(7, raised, [turn])]


async def test_a_closed_tier_is_not_followed(feed: Any) -> None:
    await feed.aclose()
    with pytest.raises(TierError) as caught:
        await feed.follow(Heard())
    assert caught.value.reason == "closed"


@pytest.mark.parametrize("name", [name for name in FEEDS if name not in PROCESS])
async def test_followers_of_other_processes_are_told(
    name: str, request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str
) -> None:
    tiers = [make(request, name, clock, anyio_backend) for _ in range(3)]
    for tier in tiers:
        await tier.open()
    expected = defaultdict(list)
    async with following(tiers[0]) as (one,), following(tiers[1]) as (two,):
        for turn in range(12):
            space = 7 + turn % 2
            raised = await tiers[turn % 3].raise_markers(space, [turn])
            expected[space].append(told(space, raised, [turn]))
        for heard in (one, two):
            messages = await heard.wait_for(12)
            assert {space: [m for m in messages if m.namespace == space] for space in (7, 8)} == expected
    for tier in tiers:
        await tier.aclose()


async def test_a_bus_carries_messages_about_clocks_of_other_tiers(bus: Any) -> None:
    messages = [
        Message(TOP, TOP, 1, 2**63 - 1, (0, TOP)),
        Message(7, 1, 5, 6, None),
        Message(7, 1, 6, 7, ()),
        Message(7, 1, 7, 8, tuple(range(TOP - MAX_TOLD, TOP))),
    ]
    async with following(bus, 2) as followers:
        for message in messages:
            await bus.tell(message)
        for heard in followers:
            assert await heard.wait_for(4) == messages
