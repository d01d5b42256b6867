"""Which records are of a partition, in the order of their arrival: a sorted set of fingerprints for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmcache_fast.tiers.base import MAX_MEMBERS, StoredRecord, arrival_of, cursor_at
from llmcache_fast.tiers.redis import scripts
from llmcache_fast.tiers.redis.replies import accepted, number_of, unexpected
from llmcache_fast.tiers.redis.routing import Route, Task
from llmcache_fast.tiers.redis.values import life

_STEP = 256
"""Members one script adds: a microsecond each, and nobody else is served meanwhile."""


class Partitions:
    """The members of each partition (`lua/join.lua`).

    A record is written first and joins its partition then: whoever finds it listed finds it. In a cluster the
    set is of a slot of its own, so the two cannot be one step; a process that dies between them had not
    returned from its `put_many`. The server forgets a set with its longest lived member. A member whose
    record is gone (expired, deleted, evicted) is found out when it is listed, and taken out.
    """

    def __init__(self, name: Callable[[bytes], bytes], record: Callable[[bytes], bytes]) -> None:
        """What make the Redis keys of a partition and of a fingerprint."""
        self.name = name
        self._record = record

    def joins(self, records: Sequence[StoredRecord], now: int) -> list[Task]:
        """What makes `records` members of their partitions, to be run after they were written."""
        members: dict[bytes, dict[bytes, int]] = {}
        for record in records:
            if record.partition is not None:
                members.setdefault(record.partition, {})[record.key] = life(record, now)
        tasks = []
        for partition, lives in members.items():
            name, keys = self.name(partition), list(lives)
            longest = 0 if 0 in lives.values() else max(lives.values())
            for start in range(0, len(keys), _STEP):
                some = keys[start : start + _STEP]
                tasks.append(Task(name, (b"EVALSHA", scripts.JOIN, 1, name, longest, MAX_MEMBERS, *some)))
        return tasks

    async def members(
        self, route: Route, budget: float, partition: bytes, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """As `PartitionedTier.members`, in two round trips, and a third where members are found gone."""
        name, since = self.name(partition), b"-inf" if after is None else b"(%d" % arrival_of(after)
        listing = (b"ZRANGEBYSCORE", name, since, b"+inf", b"WITHSCORES", b"LIMIT", 0, limit)
        (reply,) = await route.run([Task(name, listing)], budget, "members")
        match accepted(reply, "members"):
            case list(flat):
                arrivals = _arrivals(flat)
            case _:
                unexpected("members")
        if not arrivals:
            return [], after
        records = [self._record(key) for key, _ in arrivals]
        kinds = [Task(record, (b"GETRANGE", record, 0, 0)) for record in records]
        replies = await route.run(kinds, budget, "members")
        # A node that does not answer says nothing of its records.
        answers = zip(arrivals, replies, strict=True)
        gone = [each for each, kind in answers if isinstance(kind, bytes) and kind != b"R"]
        if gone:
            words: list[bytes | int] = [word for each in gone for word in each]
            leave = Task(name, (b"EVALSHA", scripts.LEAVE, 1, name, *words))
            (reply,) = await route.run([leave], budget, "members")
            number_of(reply, "members")
        left = set(gone)
        return [each[0] for each in arrivals if each not in left], cursor_at(arrivals[-1][1])


def _arrivals(flat: Sequence[object]) -> list[tuple[bytes, int]]:
    """Members and their arrivals, out of what lists them in turn."""
    found = []
    for key, arrival in zip(flat[::2], flat[1::2], strict=False):
        match key, arrival:
            case bytes(), bytes() if len(key) == 32 and arrival.isdigit():
                found.append((key, int(arrival)))
            case _:
                unexpected("members")
    return found
