"""The contract every tier below memory keeps; `tests/contract` holds all implementations to it."""

from __future__ import annotations

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


NEVER: int = 2**63 - 1
"""The absolute time of what never expires."""


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

    async def put_many(self, records: Sequence[StoredRecord]) -> None:
        """Store all, in one round trip; returns when they are as durable as the tier makes them."""
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
    namespace itself; a tier sees no text.
    """

    async def raise_markers(self, namespace: int, targets: Sequence[int]) -> tuple[int, int]:
        """Allocate the next seq of the namespace's clock, `max(last + 1, microseconds now)`, and raise the
        markers of all targets to it, in one durable step. Returns `(epoch, seq)`."""
        ...

    async def markers_since(self, seq: int) -> list[tuple[int, int]]:
        """`(target, seq)` of every marker raised after `seq`, by any process, oldest first."""
        ...

    async def epoch(self, namespace: int) -> tuple[int, int]:
        """`(epoch, last seq)` of the namespace's clock; made with a random epoch if it did not exist."""
        ...
