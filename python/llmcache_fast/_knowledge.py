"""What is known here of the invalidation clocks at the authority, and until when that may be relied on.

Decisions only, as pure functions of what was heard and when: nothing is asked or told here (`_markers`), no
marker is kept here (`markers` in the core). Times are seconds of a clock that never goes back and goes on
while the machine is suspended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from llmcache_fast.tiers.base import MAX_RULES, NEVER, Asked, Changes, Message, Raised

MAX_FOLLOWED: Final = 1 << 14
"""Namespaces whose clocks are followed; beyond it those that were not used for longest are forgotten."""
FORGOTTEN_AT_ONCE: Final = MAX_FOLLOWED // 8
"""How many at once: the entries of all of them leave memory in one walk through it."""
MAX_LEFT: Final = 64
"""Epochs of a namespace that are known to be over."""

Verdict = Literal["next", "old", "gap"]
"""Of a message: it comes next; all of it is known; something before it, or in it, is not known."""


@dataclass(slots=True)
class Known:
    """What is known of one namespace's clock."""

    namespace: str
    space: int
    """Its number."""
    tier_space: int
    """The number by which tiers know it."""
    epoch: int = 0
    seq: int = 0
    """All markers up to it are known here. Not the clock's last value that was heard of: messages overtake
    each other, and an invalidation made here moves the clock past markers not yet asked for."""
    as_of: float = -math.inf
    """When that was so at the authority, or later."""
    asked: bool = False
    """Whether the authority was heard at all."""
    entered: float = -math.inf
    """When the epoch became known here."""
    left: list[int] = field(default_factory=list)
    """Epochs that were given up for another. What comes of them is late, or of a store that went back."""
    over: int = 0
    """An epoch that the authority should not be in: one that was left, or whose clock went back."""
    rules: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    """By what authorities know it: pattern and seq of each rule."""
    most_rules: int = MAX_RULES // 2
    """With more of them, all are asked for: nobody tells of those that were forgotten."""

    def question(self) -> Asked:
        """What to ask the authority. One that is in an epoch that is over is asked as if more of that epoch
        were known than can be: so it begins a new one, unless it has."""
        if self.over:
            return Asked(self.tier_space, self.over, NEVER)
        if len(self.rules) > self.most_rules:
            return Asked(self.tier_space)
        return Asked(self.tier_space, self.epoch, self.seq)

    def hear(self, message: Message) -> Verdict:
        """Take note of a message; what it is to us."""
        if message.epoch != self.epoch or not self.asked:
            return "gap"
        if message.seq <= self.seq:
            return "old"
        self._compare(message.prev)
        if message.prev != self.seq or message.targets is None:
            return "gap"
        self.seq = message.seq
        return "next"

    def raised(self, raised: Raised, sent: float, now: float) -> bool:
        """Take note of an invalidation that was made here, sent at `sent`; whether its epoch is the one of
        now."""
        if not self._enter(raised.epoch, sent, now):
            return False
        if raised.seq > self.seq and self.asked:
            self._compare(raised.prev)
            if raised.prev == self.seq:
                self.seq = raised.seq
        return True

    def _compare(self, prev: int) -> None:
        """A clock that moves on from a value below what is known of it has lost what was raised since."""
        if prev < self.seq:
            self.over = self.epoch

    def learn(self, changes: Changes, sent: float, now: float) -> bool:
        """Take note of all that changed since `epoch` and `seq`, as asked at `sent`. False: it is what an
        earlier epoch was, and says nothing of now."""
        if not self._enter(changes.epoch, sent, now):
            return False
        # A message may have come in between that tells of more.
        self.seq = max(self.seq, changes.seq)
        self.as_of = max(self.as_of, sent)
        self.asked = True
        if self.over != self.epoch:
            self.over = 0
        return True

    def rule(self, pattern: str) -> bytes | None:
        """The rule that there is for a pattern."""
        return next((rule for rule, (kept, _) in self.rules.items() if kept == pattern), None)

    def forget(self, rules: Iterable[bytes]) -> list[str]:
        """Forget rules; the patterns of which none is left."""
        gone = {self.rules.pop(rule)[0] for rule in rules if rule in self.rules}
        return sorted(gone - {pattern for pattern, _ in self.rules.values()})

    def _enter(self, epoch: int, sent: float, now: float) -> bool:
        """Be in an epoch, leaving the one before; not in one that was left, nor by an answer that is late."""
        if epoch == self.epoch:
            return True
        if sent < self.entered:
            return False  # asked before the epoch of now was known: it may be the one before that
        if epoch in self.left:
            self.over = epoch
            return False
        if self.epoch:
            self.left = [*self.left[1 - MAX_LEFT :], self.epoch]
        self.epoch, self.seq, self.as_of, self.asked = epoch, 0, -math.inf, False
        self.entered = now
        self.rules.clear()
        return True


class Knowledge:
    """What is known of every namespace that is in use here."""

    def __init__(self, lease: float) -> None:
        """`lease`: seconds for which what was known at a moment may be relied on."""
        self.lease = lease
        self._known: dict[str, Known] = {}
        self._by_tier: dict[int, Known] = {}

    def get(self, namespace: str) -> Known | None:
        """What is known of a namespace, if it is followed."""
        return self._known.get(namespace)

    def of_message(self, message: Message) -> Known | None:
        """What is known of the namespace a message is about, if it is followed."""
        return self._by_tier.get(message.namespace)

    def use(self, namespace: str) -> Known | None:
        """As `get`, for what asks or tells the authority: it is the last to be forgotten now."""
        known = self._known.pop(namespace, None)
        if known is not None:
            self._known[namespace] = known
        return known

    def follow(self, known: Known) -> list[Known]:
        """Follow one more namespace; those that are not followed any more."""
        self._known[known.namespace] = known
        self._by_tier[known.tier_space] = known
        if len(self._known) <= MAX_FOLLOWED:
            return []
        forgotten = list(islice(self._known.values(), min(FORGOTTEN_AT_ONCE, len(self._known) - 1)))
        for each in forgotten:
            del self._known[each.namespace], self._by_tier[each.tier_space]
        return forgotten

    def vouched(self, namespace: str, now: float) -> bool:
        """Whether all that was invalidated until `now - lease` is known here."""
        known = self._known.get(namespace)
        return known is not None and now <= known.as_of + self.lease

    def vouched_until(self) -> float:
        """Until when that is so for every namespace that is followed."""
        return min((known.as_of for known in self), default=-math.inf) + self.lease

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)
