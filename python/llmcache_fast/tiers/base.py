"""The contract every tier below memory keeps; `tests/contract` holds all implementations to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from llmcache_fast import _entry
from llmcache_fast._usage import Usage

NEVER = _entry.NEVER


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
    """As `namespace`: tags, label, model and what else an entry says of itself."""


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


class Tier(Protocol):
    """A store of envelopes by fingerprint.

    Methods raise `TierError` (or a subclass) and nothing else. They may be called concurrently. A tier
    does not judge records: expiry, validity and identity are checked by the reader.
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


class Authority(Protocol):
    """A tier that can also root a namespace's invalidation clock and keep its markers.

    A *target* is the 64-bit number the core derives from a namespace and a tag, key, label prefix or the
    namespace itself; `namespace` is the one it derives from the namespace's name. Both are unsigned. A tier
    sees no text.
    """

    async def raise_markers(self, namespace: int, targets: Sequence[int]) -> tuple[int, int]:
        """Allocate the next seq of the namespace's clock, `max(last + 1, microseconds now)`, and raise the
        markers of all targets to it, in one durable step. Returns `(epoch, seq)`."""
        ...

    async def markers_since(self, namespace: int, seq: int) -> list[tuple[int, int]]:
        """`(target, seq)` of every marker of the namespace raised after `seq`, by any process, oldest first.

        Per namespace, because seqs of two clocks do not compare: a clock that ran ahead would hide the
        markers of the others.
        """
        ...

    async def epoch(self, namespace: int) -> tuple[int, int]:
        """`(epoch, last seq)` of the namespace's clock; made with a random epoch if it did not exist."""
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


class Connected(Protocol):
    """A tier with connections that may hand one caller another caller's reply."""

    def suspect(self) -> None:
        """A record was not what was asked for: use no connection of now again. Returns at once (I9)."""
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
