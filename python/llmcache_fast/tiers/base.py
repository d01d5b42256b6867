"""The contract every tier below memory keeps; `tests/contract` holds all implementations to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from llmcache_fast import _entry
from llmcache_fast._usage import Usage

NEVER = _entry.NEVER
MAX_MARKERS = 1 << 16
"""Markers an authority keeps of a namespace."""
MAX_MEMBERS = 100_000
"""Members of a partition that a tier remembers at least."""
MAX_RULES = 256
"""Rules an authority keeps of a namespace: each costs every judgement of a labelled entry older than it."""


class StoredRecord(NamedTuple):
    """One record on its way into a tier: the envelope and the few facts a store needs to manage it."""

    key: bytes
    """The 32-byte fingerprint."""
    envelope: bytes
    """The whole record, as `_core.encode_envelope` made it; a tier never looks inside."""
    epoch: int
    snap: int
    """The stamp. A record never replaces one of the same epoch with a newer snap."""
    stale_until: int
    """Absolute time after which the record may be deleted: microseconds since 1970, or `NEVER`."""
    cost: int
    """What computing it again costs, in micro-USD; 0 when unknown."""
    created: int = 0
    fresh_until: int = NEVER
    namespace: str | None = None
    """For tiers that can be searched; None where a key hides what is stored."""
    facts: _entry.Facts | None = None
    """As `namespace`: tags, label, model and what else an entry says of itself, but no facet."""
    partition: bytes | None = None
    """32 bytes that tell of which partition the record is, if it is of one: see `PartitionedTier`."""


class PutReport(NamedTuple):
    """What became of the records of one `put_many`."""

    stored: int
    """Now in the tier, as durable as the tier makes them."""
    superseded: int = 0
    """Not stored: a record of the same epoch and a newer snap is there."""
    refused: int = 0
    """Not stored: the tier never will, a record of that size for one. Trying again is useless."""


def clock_micros() -> int:
    """Microseconds since 1970, from the machine's clock: the default of every `clock` parameter."""
    return time.time_ns() // 1000


def cursor_at(arrival: int) -> bytes:
    """The cursor of a partition's followers behind a member that arrived at a number, 0 to 2^63 - 1."""
    return arrival.to_bytes(8)


def arrival_of(cursor: bytes) -> int:
    """The opposite of `cursor_at`.

    Raises:
        ValueError: it is no cursor.
    """
    if len(cursor) != 8 or cursor[0] > 0x7F:
        raise ValueError("after: give the cursor that `members` returned, or None")
    return int.from_bytes(cursor)


class Tier(Protocol):
    """A store of envelopes by fingerprint.

    Methods raise `TierError` (or a subclass) and nothing else. They may be called concurrently. A tier
    does not judge records: expiry, validity and identity are checked by the reader.

    A tier may have an attribute `keeps_budget`. If it is true, `get_many` of one key ends within the tier's
    `read_budget` of time in which the event loop was running, at once when it is cancelled, and a
    cancellation costs the tier next to nothing: callers then await it as it is.
    """

    name: str

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The envelope of each key, or None; one round trip for all."""
        ...

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        """Store all, in one round trip; returns when they are as durable as the tier makes them.

        Putting again what was put is harmless, so a caller that got an error may put all of it again.
        Of two records of one key in `records` the later counts as the later write.
        """
        ...

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        """Delete what is there; how many were.

        With `stamp`, `(epoch, seq)` of the invalidation that covers the keys, a shared tier leaves a short
        tombstone: until it expires, records of that epoch and an older snap count as superseded. A tier for
        which a late write costs nothing may do without, for the marker makes such a record harmless.
        """
        ...

    async def purge(self, now: int, limit: int = 1000) -> int:
        """Delete up to `limit` records whose `stale_until` has passed; how many were."""
        ...

    async def clear(self) -> int:
        """Delete every record (markers and clocks stay); how many were."""
        ...


class Raised(NamedTuple):
    """What an authority answers to an invalidation."""

    epoch: int
    seq: int
    """Allocated to it: the markers stand there now."""
    prev: int
    """The clock's value before. Who knows all markers up to it misses none by hearing of these."""


class Asked(NamedTuple):
    """What is known of a namespace's clock by one who asks what changed."""

    namespace: int
    epoch: int = 0
    seq: int = 0
    """Up to which all markers are known. Of no meaning when the epoch is another by now."""


class Changes(NamedTuple):
    """What an authority says of a namespace's clock."""

    epoch: int
    seq: int
    """The last one allocated."""
    markers: list[tuple[int, int]]
    """`(target, seq)` of every marker raised after what was asked, by any process, oldest first. All of them,
    when the epoch is another than the one asked with."""
    rules: Sequence[tuple[bytes, int]] = ()
    """The same of the rules: a pattern in the form the caller gave it."""


class Message(NamedTuple):
    """What a tier tells those who follow it, when markers are raised."""

    namespace: int
    epoch: int
    prev: int
    seq: int
    targets: tuple[int, ...] | None
    """None: too many to be told, or there is a rule; who hears it asks for the changes."""


MAX_TOLD = 256
"""Targets in one message; with more of them a message names none."""


class Authority(Protocol):
    """A tier that can also root a namespace's invalidation clock and keep its markers.

    A *target* is the 64-bit number the core derives from a namespace and a tag, key, label prefix or the
    namespace itself; `namespace` is the one it derives from the namespace's name. Both are unsigned. A tier
    sees no text. A *rule* is a pattern of labels in bytes of the caller's making, 17 to 1,024 of them; a tier
    compares rules, and does not read them.
    """

    async def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        """Allocate the next seq of the namespace's clock, `max(last + 1, microseconds now)`, and raise the
        markers of all targets, and the rules, to it, in one durable step; those who follow are told in it.
        In the same step the rules `forget` go: targets among those raised cover what they covered.

        Markers are bounded to `MAX_MARKERS` of a namespace, rules to `MAX_RULES`, or some more for a
        while. Beyond it the older half goes, and the namespace's own marker is raised to the youngest that
        went: too strict, never too lax.
        """
        ...

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        """What changed in each of some namespaces, in one round trip. A clock that does not exist is made,
        with a random epoch. One that is behind what was asked, or what the tier has seen of it, has lost
        markers: it gets a new epoch.

        Per namespace, because seqs of two clocks do not compare: a clock that ran ahead would hide the
        markers of the others.
        """
        ...


class Feed(Protocol):
    """A tier that tells its followers when markers are raised, at it or elsewhere.

    Messages may be lost, doubled and late; those of one namespace that is rooted in the tier come in the
    order of their seqs. `prev` shows what was lost, and asking for `changes` mends it.
    """

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        """Call `heard` with each message, until cancelled; with None once, when from now on messages come.

        Raises:
            TierError: messages come no more: the connection was lost. Follow again.
        """
        ...


class Bus(Feed, Protocol):
    """A feed that also carries messages about clocks that are rooted in another tier."""

    async def tell(self, message: Message) -> None:
        """Tell the followers, one round trip."""
        ...


class ScannableTier(Tier, Protocol):
    """A tier that can be walked through."""

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """About `limit` records, `(key, envelope)`, and the cursor to go on with: None when all were given.

        A record that is there from the first call to the last is given at least once; others may be.
        """
        ...

    async def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int:
        """Delete each record, `(key, epoch, snap)`, that still has this stamp; how many were. What was put
        meanwhile stays, and no tombstone is left."""
        ...


class PartitionedTier(Tier, Protocol):
    """A tier that knows which records are of a partition: those that can answer one another's questions."""

    async def members(
        self, partition: bytes, after: bytes | None = None, limit: int = 1000
    ) -> tuple[list[bytes], bytes | None]:
        """Keys of a partition's records in the order of their arrival in the tier, at most `limit`, and a
        cursor: given as `after`, now or later, it brings what has arrived since. None as long as nothing has.
        When it comes back as it was given, that is all for now; a page may be short, and not the last.

        A record that is written again arrives again. Where `put_many` has returned, its records have arrived,
        and what is listed can be read. It may be gone, expired or replaced since: who reads it judges. A tier
        may forget all but the newest `MAX_MEMBERS` of a partition.
        """
        ...


class LeasingTier(Tier, Protocol):
    """A tier that can see to it that one process at a time computes a fingerprint.

    A lease is a hint: correctness never depends on it (I4). It ends by release or by time, whichever comes
    first, so an owner that crashed or stands still delays the others by no more than the lease. `token` names
    the owner; only it can renew or release.
    """

    async def get_or_lease_many(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        """`(envelope, held)` of each key, in one round trip: its envelope, or else whether `token` holds its
        lease now. `(None, False)` says that another owner computes it."""
        ...

    async def lease_many(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        """Whether `token` holds the lease of each key now, be the key there or not."""
        ...

    async def renew_leases(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        """Whether each lease is still held by `token`; if so, for `seconds` from now."""
        ...

    async def release_leases(self, keys: Sequence[bytes], token: bytes) -> None:
        """Give up the leases held by `token` and wake who waits for them."""
        ...

    async def lease_released(self, key: bytes) -> None:
        """Return when a release of `key` by any process is heard of; it may never be (cancel to stop)."""
        ...


class FoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a stored record. Times are microseconds since 1970, `cost` micro-USD, `size` bytes."""

    key: bytes
    namespace: str
    label: str | None
    tags: tuple[str, ...]
    model: str | None
    created: int
    fresh_until: int
    stale_until: int
    cost: int
    size: int
    """Of the envelope."""
    usage: Usage | None = None
    depends_on: tuple[str, ...] = ()
    compute_micros: int = 0
    epoch: int = 0
    snap: int = 0
    """The stamp. An invalidated record is found until it is overwritten or purged; the stamp tells it."""


class SearchPage(NamedTuple):
    """Some of what was found."""

    rows: list[FoundRecord]
    cursor: str | None
    """To be given for the next page; None when this was the last."""


class SearchableTier(Tier, Protocol):
    """A tier whose records can be found by their facts."""

    async def search(
        self,
        namespace: str,
        *,
        label: str | None = None,
        tags: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
        created_before: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SearchPage:
        """Records newest first: with all of `tags`, made between the times (microseconds since 1970).

        Raises:
            ConfigurationError: a condition that cannot be.
        """
        ...
