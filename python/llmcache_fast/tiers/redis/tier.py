"""The Redis tier as others see it: records, clocks, messages and leases."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import Asked, Changes, Message, PutReport, Raised, StoredRecord, clock_micros
from llmcache_fast.tiers.budget import to_wait
from llmcache_fast.tiers.redis import scripts
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.clocks import Clocks
from llmcache_fast.tiers.redis.feed import Feed
from llmcache_fast.tiers.redis.partitions import Partitions
from llmcache_fast.tiers.redis.releases import Releases
from llmcache_fast.tiers.redis.replies import NAME, as_many, number_of
from llmcache_fast.tiers.redis.routing import Cluster, Route, Single, Task
from llmcache_fast.tiers.redis.subscription import Subscription
from llmcache_fast.tiers.redis.values import HEAD, life, parts, stamp_bytes, stored
from llmcache_fast.tiers.redis.walk import Walk

_log = logging.getLogger("llmcache_fast.redis")

T = TypeVar("T")
Words = tuple[bytes | str | int, ...]

WRITE_FACTOR = 10
"""Nobody waits for a write behind, so it may take so many budgets; an invalidation must not fail lightly."""
TOMBSTONE_SECONDS = 60.0
_READ_BYTES, _READ_KEYS = 256 << 10, 64
"""A command reads this much at most: replies that arrive one by one show that the server is alive."""
_WRITE_BYTES, _WRITE_KEYS = 256 << 10, 64
"""A script writes this much at most: nobody else is served meanwhile."""
_WINDOW_BYTES = 4 << 20
"""Sent before replies are awaited: as much as a batch of the write-behind holds."""


class RedisTier:
    """Entries in a Redis server or cluster, shared by all who use the same server and prefix.

    A read is one `MGET` for all keys (in a cluster one per slot, all nodes at once). A write is one script
    that stores only what is not older than what is there. The server removes what nobody may use any more, so
    `purge` has nothing to do. Keys are the prefix, a letter and the 32 bytes of the fingerprint.

    Guarantee: replies are never taken for those of another command (`links`); a call takes no longer than its
    budget without a sign of life from the server, connecting included; a cancellation costs a connection at
    the most. Nothing is tried twice: who calls may do that, for all operations can be repeated.

    Durability is that of the server: `appendonly yes` keeps markers over a restart. A server that comes back
    empty, or with an older copy, gives its clocks a new epoch, so that nothing of before is served.

    >>> RedisTier.from_url("redis://127.0.0.1:6379/0?prefix=app:").address.prefix
    'app:'
    """

    name = NAME

    def __init__(self, address: Address, *, clock: Callable[[], int] = clock_micros) -> None:
        self.address = address
        self.budget = self.read_budget = address.budget
        self.write_budget = address.budget * WRITE_FACTOR
        # In a cluster a read may be sent on from node to node.
        self.keeps_budget = not address.cluster
        self._silence = to_wait(address.budget)
        """How long a read waits for a reply."""
        self._clock = clock
        self._route: Route | None = None
        self._subscription: Subscription | None = None
        prefix = address.prefix.encode()
        # In a cluster a record and its lease must be of one slot. The dot keeps the tag from being empty,
        # which it would be where a fingerprint begins with a brace; 36 bytes of key fill a bin of Redis'
        # allocator, so the braces are there only where they are needed.
        opening, self._closing = (b"{.", b"}") if address.cluster else (b"", b"")
        self._records = prefix + b"r" + opening
        self._leases = prefix + b"l" + opening
        clocks, partitions = prefix + b"c" + opening, prefix + b"p" + opening
        self._released, self._raised = prefix + b"released", prefix + b"raised"
        self._clocks = Clocks(lambda number: clocks + number + self._closing, self._raised)
        self._feed = Feed(self._clocks.heard)
        self._releases = Releases()
        self._walk = Walk(self._records)
        self._partitions = Partitions(lambda number: partitions + _whole(number) + self._closing, self._key)
        self._partition_walk = Walk(partitions)
        self._typical = 2048.0

    @classmethod
    def from_url(cls, url: str, *, clock: Callable[[], int] = clock_micros) -> RedisTier:
        """The tier of a URL: `redis:`, `rediss:`, `redis+cluster:`, `rediss+cluster:` or `redis+unix:`.

        Options: `prefix`, `max_connections` (of each server), `budget` (seconds), `db`, and with TLS the
        files `ca`, `cert` and `key`.

        Raises:
            ConfigurationError: it is none; the message holds no password.
        """
        return cls(Address.parse(url), clock=clock)

    def __repr__(self) -> str:
        return f"<RedisTier {self.address}>"

    # -- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Get ready. A server that cannot be reached now is no failure: it is tried again with each call.

        Raises:
            TierUnavailableError: the server refuses the credentials, or cannot prove who it is; or the event
                loop is not asyncio's.
        """
        if self._route is not None:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise TierUnavailableError(
                "the redis tier runs on asyncio, this event loop is another",
                tier=self.name,
                operation="open",
                reason="event_loop",
            ) from None
        route: Route = Cluster(self.address) if self.address.cluster else Single(self.address)
        try:
            await route.open(self.write_budget)
        except TierError as error:
            if error.reason in ("auth", "denied", "tls"):
                await route.aclose()
                raise
            _log.warning("redis tier %s cannot be reached yet: %s", self.address, error.message)
        except BaseException:
            await route.aclose()
            raise
        self._route = route
        self._subscription = Subscription(
            # In a cluster what is published on one node is heard on all.
            lambda: random.choice(route.servers()).connect(),  # noqa: S311 - any will do
            {self._released: self._releases.wake, self._raised: self._feed.hear},
            self._hears,
            self._feed.down,
        )

    async def aclose(self) -> None:
        route, self._route = self._route, None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.aclose()
            self._releases.wake_all()
            self._feed.down(TierError("the tier is closed", tier=NAME, operation="follow", reason="closed"))
        if route is not None:
            await route.aclose()

    def _hears(self) -> None:
        self._releases.wake_all()
        self._feed.up()

    def suspect(self) -> None:
        """A reply was not what was asked for: no connection of now is used again."""
        if self._route is not None:
            for server in self._route.servers():
                server.distrust()

    @property
    def connections(self) -> int:
        """Connections open now, over all servers."""
        return sum(server.connections for server in self._route.servers()) if self._route else 0

    # -- records --------------------------------------------------------------------------------------

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `Tier`. In a cluster the entries of a node that does not answer count as absent."""
        route = self._opened("get_many")
        names = list(map(self._key, keys))
        limit = max(1, min(_READ_KEYS, int(_READ_BYTES / self._typical)))
        groups = [names] if len(names) == 1 else list(self._grouped(names, limit, _same))
        tasks = [Task(group[0], (b"MGET", *group)) for group in groups]
        replies = await route.run(tasks, self._silence, "get_many") if tasks else []
        if not self.address.cluster:
            # In the order of the keys. Written out: this is what a read under load spends its time in.
            envelopes = [
                value[HEAD:] if isinstance(value, bytes) and value.startswith(b"R") else None
                for group, reply in zip(groups, replies, strict=True)
                for value in as_many(reply, len(group), "get_many")
            ]
            self._learn_size([envelope for envelope in envelopes if envelope is not None])
            return envelopes
        found: dict[bytes, bytes] = {}
        for group, reply in zip(groups, replies, strict=True):
            if isinstance(reply, TierError):
                _log.debug("redis tier %s: a node did not answer: %s", self.address, reply.message)
                continue
            for name, value in zip(group, as_many(reply, len(group), "get_many"), strict=True):
                if isinstance(value, bytes) and value.startswith(b"R"):
                    found[name] = value[HEAD:]
        self._learn_size(found.values())
        return list(map(found.get, names))

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        route = self._opened("put_many")
        superseded = 0
        for window in parts(records, _WINDOW_BYTES):
            tasks = []
            for group in self._grouped(window, _WRITE_KEYS, lambda record: self._key(record.key)):
                for part in parts(group, _WRITE_BYTES):
                    keys = [self._key(record.key) for record in part]
                    values = [word for record in part for word in self._written(record)]
                    tasks.append(Task(keys[0], (b"EVALSHA", scripts.PUT, len(keys), *keys, *values)))
            joins = self._partitions.joins(window, self._clock())
            if joins and self.address.cluster:
                # Other nodes do not wait for one another, and a member must not be listed before its record.
                superseded += await self._put(route, tasks)
                await self._put(route, joins)
            else:
                superseded += await self._put(route, tasks, joins)
        return PutReport(len(records) - superseded, superseded)

    async def _put(self, route: Route, tasks: Sequence[Task], after: Sequence[Task] = ()) -> int:
        """Run tasks, then others in the same round trip; the sum of the first ones' replies."""
        replies = await route.run([*tasks, *after], self.write_budget, "put_many")
        counts = [number_of(reply, "put_many") for reply in replies]
        return sum(counts[: len(tasks)])

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        """As `Tier`; with a stamp, a tombstone stays for `TOMBSTONE_SECONDS`."""
        tombstone: Words = ()
        if stamp is not None:
            tombstone = (stored(b"T", *stamp, b""), int(TOMBSTONE_SECONDS * 1000))
        return await self._delete(keys, tombstone, "delete_many")

    async def _delete(self, keys: Sequence[bytes], tombstone: Words, operation: str) -> int:
        replies = await self._on_each(
            scripts.DELETE, keys, lambda key: (self._key(key),), tombstone, self.write_budget, operation
        )
        return sum(number_of(reply, operation) for _, reply in replies)

    async def purge(self, now: int, limit: int = 1000) -> int:
        """0: the server removes what has expired."""
        self._opened("purge")
        return 0

    async def clear(self) -> int:
        """As `Tier`: every record under the prefix, in steps of some hundred keys.

        Walks over all keys of the server (`SCAN`), whosever they are: on a large shared one that takes time.
        """
        route = self._opened("clear")
        deleted = 0
        for server in route.primaries():
            async for found in self._walk.keys(server, self.write_budget, "clear"):
                deleted += await self._delete(found, (), "clear")
            async for found in self._partition_walk.keys(server, self.write_budget, "clear"):
                for name in map(self._partitions.name, found):
                    await route.run([Task(name, (b"DEL", name))], self.write_budget, "clear")
        return deleted

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As `ScannableTier`, in two round trips; see `walk` for what a page and a cursor are."""
        servers = self._opened("scan").primaries()
        return await self._walk.page(servers, cursor, limit, self._closing, self.write_budget)

    async def members(
        self, partition: bytes, after: bytes | None = None, limit: int = 1000
    ) -> tuple[list[bytes], bytes | None]:
        """As `PartitionedTier`; those found gone are taken out."""
        route = self._opened("members")
        return await self._partitions.members(route, self.write_budget, partition, after, limit)

    async def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int:
        """As `ScannableTier`."""
        route = self._opened("discard_many")
        tasks = []
        for group in self._grouped(stamped, _WRITE_KEYS, lambda each: self._key(each[0])):
            keys = [self._key(key) for key, _, _ in group]
            stamps = [stamp_bytes(epoch, snap) for _, epoch, snap in group]
            tasks.append(Task(keys[0], (b"EVALSHA", scripts.DISCARD, len(keys), *keys, *stamps)))
        replies = await route.run(tasks, self.write_budget, "discard_many") if tasks else []
        return sum(number_of(reply, "discard_many") for reply in replies)

    # -- authority ------------------------------------------------------------------------------------

    async def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        """As `Authority`: one script, as durable as the server's `appendonly` makes it."""
        route = self._opened("raise_markers")
        return await self._clocks.raise_markers(route, self.write_budget, namespace, targets, rules, forget)

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        """As `Authority`: in a cluster one round trip to each node concerned, all at once."""
        return await self._clocks.changes(self._opened("changes"), self.write_budget, asked)

    # -- messages -------------------------------------------------------------------------------------

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        """As `Feed`. A connection that has died without a word is noticed within some four seconds."""
        subscription = self._listening("follow")
        await self._feed.follow(heard, listening=subscription.listening)

    async def tell(self, message: Message) -> None:
        """As `Bus`; clocks rooted in this tier are told of by `raise_markers`."""
        route = self._opened("tell")
        publish = (b"PUBLISH", self._raised, messages.encode(message))
        (reply,) = await route.run([Task(self._raised, publish)], self.budget, "tell")
        number_of(reply, "tell")

    # -- leases ---------------------------------------------------------------------------------------

    async def get_or_lease_many(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        self._listening("get_or_lease_many")

        def names(key: bytes) -> tuple[bytes, bytes]:
            return self._key(key), self._lease_key(key)

        answers: dict[bytes, tuple[bytes | None, bool]] = {}
        for group, reply in await self._on_each(
            scripts.LEASE, keys, names, (token, _milliseconds(seconds)), self._silence, "get_or_lease_many"
        ):
            for key, value in zip(group, as_many(reply, len(group), "get_or_lease_many"), strict=True):
                envelope = value[HEAD:] if isinstance(value, bytes) else None
                answers[key] = envelope, value == 1
        return [answers[key] for key in keys]

    async def lease_many(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        self._listening("lease_many")
        return await self._hold(keys, (token, _milliseconds(seconds), b"take"), "lease_many")

    async def renew_leases(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        return await self._hold(keys, (token, _milliseconds(seconds), b"renew"), "renew_leases")

    async def _hold(self, keys: Sequence[bytes], arguments: Words, operation: str) -> list[bool]:
        held: dict[bytes, bool] = {}
        for group, reply in await self._on_each(
            scripts.HOLD, keys, self._lease_names, arguments, self.write_budget, operation
        ):
            held.update(
                zip(group, (value == 1 for value in as_many(reply, len(group), operation)), strict=True)
            )
        return [held[key] for key in keys]

    async def release_leases(self, keys: Sequence[bytes], token: bytes) -> None:
        for _, reply in await self._on_each(
            scripts.RELEASE,
            keys,
            self._lease_names,
            (token, self._released, len(self._leases)),
            self.write_budget,
            "release_leases",
        ):
            number_of(reply, "release_leases")

    async def lease_released(self, key: bytes) -> None:
        """As `Leases`; returns as well when a release may have been missed (the connection was lost)."""
        self._listening("lease_released")
        await self._releases.wait(key)

    # -- keys and values ------------------------------------------------------------------------------

    def _opened(self, operation: str) -> Route:
        if self._route is None:
            raise TierError("the tier is not open", tier=NAME, operation=operation, reason="closed")
        return self._route

    def _listening(self, operation: str) -> Subscription:
        """The subscription, which is there soon if it is not yet."""
        self._opened(operation)
        assert self._subscription is not None  # noqa: S101 - made and dropped together with the route
        self._subscription.listen()
        return self._subscription

    async def _on_each(
        self,
        script: bytes,
        keys: Sequence[bytes],
        names: Callable[[bytes], tuple[bytes, ...]],
        arguments: Words,
        budget: float,
        operation: str,
    ) -> list[tuple[Sequence[bytes], Any]]:
        """Run a script over keys, some at once; each group of keys with its reply. `names` are the Redis keys
        of one, all in one slot."""
        route = self._opened(operation)
        groups = list(self._grouped(keys, _WRITE_KEYS, self._key))
        tasks = []
        for group in groups:
            named = [name for key in group for name in names(key)]
            tasks.append(Task(named[0], (b"EVALSHA", script, len(named), *named, *arguments)))
        replies = await route.run(tasks, budget, operation) if tasks else []
        return list(zip(groups, replies, strict=True))

    def _lease_names(self, key: bytes) -> tuple[bytes]:
        return (self._lease_key(key),)

    def _key(self, key: bytes) -> bytes:
        return self._records + _whole(key) + self._closing

    def _lease_key(self, key: bytes) -> bytes:
        return self._leases + key + self._closing

    def _grouped(self, items: Sequence[T], limit: int, name: Callable[[T], bytes]) -> Iterator[Sequence[T]]:
        """Items whose keys may be named in one command, at most `limit` at once, each in the order given."""
        route = self._opened("")
        if not self.address.cluster:
            yield from (items[start : start + limit] for start in range(0, len(items), limit))
            return
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(route.slot(name(item)), []).append(item)
        for group in groups.values():
            yield from (group[start : start + limit] for start in range(0, len(group), limit))

    def _written(self, record: StoredRecord) -> tuple[bytes, int]:
        return stored(b"R", record.epoch, record.snap, record.envelope), life(record, self._clock())

    def _learn_size(self, envelopes: Collection[bytes]) -> None:
        if envelopes:
            # Quickly up, slowly down: what is asked for too much at once may not come in time.
            mean = sum(map(len, envelopes)) / len(envelopes)
            self._typical = max(mean, 0.9 * self._typical + 0.1 * mean)


def _same(name: bytes) -> bytes:
    return name


def _whole(key: bytes) -> bytes:
    if len(key) != 32:
        raise ValueError(f"a fingerprint or a partition has 32 bytes, this one has {len(key)}")
    return key


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
