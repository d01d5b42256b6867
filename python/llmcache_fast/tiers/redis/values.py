"""What is stored of a record: kind, stamp and envelope, how long, and how much of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmcache_fast.tiers.base import NEVER, StoredRecord

HEAD = 17
"""Bytes before the envelope: kind, epoch, snap. The scripts read them."""
LEAST_LIFE = 1000
"""Milliseconds a record is kept at least: whoever reads it may have another clock, and judges for himself."""


def stored(kind: bytes, epoch: int, snap: int, envelope: bytes) -> bytes:
    """`kind` is `R` for a record, `T` for a tombstone."""
    return b"".join((kind, stamp_bytes(epoch, snap), envelope))


def stamp_bytes(epoch: int, snap: int) -> bytes:
    """The 16 bytes after the kind."""
    return epoch.to_bytes(8) + snap.to_bytes(8)


def life(record: StoredRecord, now: int) -> int:
    """Milliseconds the server is to keep a record, 0 for ever.

    A span and no time of day: the server's clock and this machine's need not agree.
    """
    if record.stale_until >= NEVER:
        return 0
    return max(LEAST_LIFE, -(-(record.stale_until - now) // 1000))


def parts(records: Sequence[StoredRecord], limit: int) -> Iterator[list[StoredRecord]]:
    """Runs of records of about `limit` bytes."""
    part: list[StoredRecord] = []
    size = 0
    for record in records:
        part.append(record)
        size += len(record.envelope)
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part
