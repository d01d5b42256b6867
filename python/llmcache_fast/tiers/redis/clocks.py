"""The clocks that are rooted in Redis: markers and rules raised, and what was raised since."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import MAX_MARKERS, MAX_RULES, Asked, Changes, Message, Raised
from llmcache_fast.tiers.redis import scripts
from llmcache_fast.tiers.redis.replies import NAME, accepted, unexpected
from llmcache_fast.tiers.redis.routing import Route, Task

_log = logging.getLogger("llmcache_fast.redis")

_RULE_BYTES = range(17, 1025)
_UNKNOWN = (b"", 0)


class Clocks:
    """Each clock with its markers and rules is one sorted set (`lua/clock.lua`); raising is one script.

    A clock that is behind what this process saw of it, in replies or in messages, or behind what the caller
    says it saw, gets a new epoch: an older copy of the data was restored, and the markers raised since are
    lost. Whoever asks next gets the same new epoch.
    """

    def __init__(self, name: Callable[[bytes], bytes], channel: bytes) -> None:
        """`name` makes the Redis key of a namespace's eight bytes; raises are told on `channel`."""
        self._name = name
        self._channel = channel
        self._known: dict[int, tuple[bytes, int]] = {}

    async def raise_markers(
        self,
        route: Route,
        budget: float,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes],
        forget: Sequence[bytes],
    ) -> Raised:
        for rule in (*rules, *forget):
            if len(rule) not in _RULE_BYTES:
                raise ValueError(f"a rule has 17 to 1,024 bytes, this one has {len(rule)}")
        key = self._name(namespace.to_bytes(8))
        known, seen = self._known.get(namespace, _UNKNOWN)
        arguments: tuple[bytes | str | int, ...] = (
            *(secrets.token_bytes(8), known, seen),
            *(MAX_MARKERS, MAX_RULES, namespace.to_bytes(8)),
            *(self._channel, messages.told(targets, rules), len(targets), len(rules)),
            *(target.to_bytes(8) for target in targets),
            *rules,
            *forget,
        )
        task = Task(key, (b"EVALSHA", scripts.RAISE, 1, key, *arguments))
        (reply,) = await route.run([task], budget, "raise_markers")
        match accepted(reply, "raise_markers"):
            case [bytes(epoch), bytes(seq), bytes(prev), int(new)]:
                before = _reading(epoch, prev, "raise_markers")[1]
                reading = _reading(epoch, seq, "raise_markers")
            case _:
                unexpected("raise_markers")
        self._saw(namespace, *reading, new=bool(new and known))
        return Raised(int.from_bytes(epoch), reading[1], before)

    async def changes(self, route: Route, budget: float, asked: Sequence[Asked]) -> list[Changes]:
        if not asked:
            return []
        tasks = []
        for namespace, epoch, seq in asked:
            key = self._name(namespace.to_bytes(8))
            known, seen = self._known.get(namespace, _UNKNOWN)
            if known in (b"", epoch.to_bytes(8)):
                # Who asks may have heard of what this tier did not see.
                known, seen = epoch.to_bytes(8), max(seen, seq)
            arguments = (secrets.token_bytes(8), known, seen, epoch.to_bytes(8), seq)
            tasks.append(Task(key, (b"EVALSHA", scripts.CHANGES, 1, key, *arguments)))
        replies = await route.run(tasks, budget, "changes")
        return [self._changes(each, reply) for each, reply in zip(asked, replies, strict=True)]

    def _changes(self, asked: Asked, reply: Any) -> Changes:
        match accepted(reply, "changes"):
            case [bytes(epoch), bytes(text), int(new), list(flat)]:
                reading = _reading(epoch, text, "changes")
            case _:
                unexpected("changes")
        lost = bool(new) and (asked.seq > 0 or asked.namespace in self._known)
        self._saw(asked.namespace, *reading, new=lost)
        return Changes(int.from_bytes(epoch), reading[1], *_raised(flat))

    def heard(self, message: Message) -> None:
        """Take note of a clock's value that another process was given."""
        known, seen = self._known.get(message.namespace, _UNKNOWN)
        if known == message.epoch.to_bytes(8):
            self._known[message.namespace] = known, max(seen, message.seq)

    def _saw(self, namespace: int, epoch: bytes, seq: int, *, new: bool) -> None:
        if new:
            _log.warning("%s: a clock was lost or went back; it starts anew", NAME)
        # Calls overlap: an answer that was overtaken must not take the clock back.
        latest, highest = self._known.get(namespace, _UNKNOWN)
        if latest != epoch or seq > highest:
            self._known[namespace] = epoch, seq


def _reading(epoch: bytes, text: bytes, operation: str) -> tuple[bytes, int]:
    if len(epoch) != 8 or not text.isdigit():
        unexpected(operation)
    return epoch, int(text)


def _raised(flat: list[Any]) -> tuple[list[tuple[int, int]], list[tuple[bytes, int]]]:
    """Markers and rules out of members and scores in turn."""
    markers, rules = [], []
    try:
        for member, score in zip(flat[::2], flat[1::2], strict=True):
            if len(member) == 8:
                markers.append((int.from_bytes(member), int(float(score))))
            elif len(member) > 16:
                rules.append((member[1:], int(float(score))))
    except (TypeError, ValueError):
        unexpected("changes")
    return markers, rules
