"""The contract every tier below memory keeps; `tests/contract` holds all implementations to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol


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

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """Delete what is there; how many were."""
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
