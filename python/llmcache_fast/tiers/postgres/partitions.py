"""Which records are of a partition, in the order of their arrival: written and listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmcache_fast.tiers.base import StoredRecord, arrival_of, cursor_at
from llmcache_fast.tiers.postgres import rows
from llmcache_fast.tiers.postgres.connections import Connection
from llmcache_fast.tiers.postgres.statements import Statements


def writing(sql: Statements, records: Sequence[StoredRecord], now: int | None) -> tuple[Any, ...]:
    """The statement that writes records of different keys, and its values."""
    values = (*rows.columns(records), now)
    if all(record.partition is None for record in records):
        return (sql.put, *values)
    return (sql.join, *values, [record.partition for record in records])


def since(after: bytes | None) -> int:
    """The arrival that a cursor stands behind; -1 at the start."""
    return -1 if after is None else arrival_of(after)


async def page(
    sql: Statements, partition: bytes, last: int, limit: int, connection: Connection
) -> tuple[list[bytes], bytes | None]:
    """As `PartitionedTier.members`; `last`: behind which arrival."""
    found = await connection.fetch(sql.members, partition, last, limit)
    last = found[-1][1] if found else last
    return [key for key, _ in found], None if last < 0 else cursor_at(last)
