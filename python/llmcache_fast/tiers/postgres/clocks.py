"""The clocks that are rooted in Postgres: markers and rules raised, and what was raised since."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import MAX_MARKERS, MAX_RULES, Asked, Changes, Message, Raised
from llmcache_fast.tiers.postgres.connections import Connection, Connections, desynchronised
from llmcache_fast.tiers.postgres.numbers import capped, to_signed, to_unsigned
from llmcache_fast.tiers.postgres.statements import Statements

_UNKNOWN = (0, 0)


class Clocks:
    """Each step is one statement, a function of the schema (`sql/0004_changes.sql`).

    A clock that is behind what this process saw of it, in replies or in messages, or behind what the caller
    says it saw, gets a new epoch: a backup was restored, and the markers raised since are lost. Whoever asks
    next gets the same new epoch.
    """

    def __init__(
        self, pool: Connections, statements: Statements, channel: str, clock: Callable[[], int] | None
    ) -> None:
        self._pool = pool
        self._sql = statements
        self._channel = channel
        self._clock = clock
        self._known: dict[int, tuple[int, int]] = {}
        """Epoch and highest seq of each clock as this process has seen it."""

    async def raise_markers(
        self,
        budget: float,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes],
        forget: Sequence[bytes],
    ) -> Raised:
        given = sorted({to_signed(target) for target in targets})
        told = messages.told(targets, rules)

        async def work(connection: Connection) -> tuple[int, int, int]:
            epoch, seen = self._known.get(namespace, _UNKNOWN)
            row = await connection.fetchrow(
                self._sql.raise_markers,
                *(to_signed(namespace), _random_epoch(), self._now(), to_signed(epoch), seen),
                *(given, list(rules), list(forget), MAX_MARKERS, MAX_RULES, self._channel, told),
            )
            return row[0], row[1], row[2]

        epoch, seq, prev = await self._pool.call("raise_markers", work, budget)
        self._saw(namespace, to_unsigned(epoch), seq)
        return Raised(to_unsigned(epoch), seq, prev)

    async def changes(self, budget: float, asked: Sequence[Asked]) -> list[Changes]:
        if not asked:
            return []

        async def work(connection: Connection) -> list[Changes]:
            seen = [self._seen(each) for each in asked]
            rows = await connection.fetch(
                self._sql.changes,
                [to_signed(each.namespace) for each in asked],
                [to_signed(each.epoch) for each in asked],
                [capped(each.seq) for each in asked],
                [to_signed(epoch) for epoch, _ in seen],
                [capped(seq) for _, seq in seen],
                [_random_epoch() for _ in asked],
                self._now(),
            )
            if [row[0] for row in rows] != list(range(1, len(asked) + 1)):
                raise desynchronised(connection, "changes")
            return [
                Changes(
                    to_unsigned(epoch),
                    seq,
                    [(to_unsigned(t), s) for t, s in zip(targets or (), target_seqs or (), strict=True)],
                    list(zip(rules or (), rule_seqs or (), strict=True)),
                )
                for _, epoch, seq, targets, target_seqs, rules, rule_seqs in rows
            ]

        found = await self._pool.call("changes", work, budget)
        for each, changes in zip(asked, found, strict=True):
            self._saw(each.namespace, changes.epoch, changes.seq)
        return found

    def heard(self, message: Message) -> None:
        """Take note of a clock's value that another process was given."""
        epoch, seen = self._known.get(message.namespace, _UNKNOWN)
        if epoch == message.epoch:
            self._known[message.namespace] = epoch, max(seen, message.seq)

    def _seen(self, asked: Asked) -> tuple[int, int]:
        epoch, seen = self._known.get(asked.namespace, _UNKNOWN)
        # Who asks may have heard of what this tier did not see.
        if epoch in (0, asked.epoch):
            return asked.epoch, max(seen, asked.seq)
        return epoch, seen

    def _saw(self, namespace: int, epoch: int, seq: int) -> None:
        latest, highest = self._known.get(namespace, _UNKNOWN)
        # Calls overlap: an answer that was overtaken must not take the clock back.
        if latest != epoch or seq > highest:
            self._known[namespace] = epoch, seq

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()


def _random_epoch() -> int:
    return to_signed(random.SystemRandom().getrandbits(64))
