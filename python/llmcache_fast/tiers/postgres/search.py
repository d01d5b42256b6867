"""Searching what is stored by its facts: a bounded page of them, newest first, without the answers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmcache_fast._errors import ConfigurationError
from llmcache_fast._usage import Usage
from llmcache_fast.tiers.base import FoundRecord, SearchPage
from llmcache_fast.tiers.postgres.numbers import capped, to_unsigned
from llmcache_fast.tiers.postgres.rows import Metadata

MAX_LIMIT = 10_000


@dataclass(slots=True)
class Query:
    """A statement in the making."""

    where: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, condition: str, *values: Any) -> None:
        """`{0}`, `{1}` in the condition stand for the values."""
        first = len(self.values) + 1
        self.where.append(condition.format(*(f"${first + number}" for number in range(len(values)))))
        self.values.extend(values)


def query(
    schema: str,
    namespace: str,
    *,
    label: str | None,
    tags: Sequence[str] | None,
    model: str | None,
    created_after: int | None,
    created_before: int | None,
    limit: int,
    cursor: str | None,
    now: int | None,
) -> tuple[str, list[Any]]:
    """The statement and its values.

    Raises:
        ConfigurationError: a condition that cannot be.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ConfigurationError(f"limit is {limit}: give 1 to {MAX_LIMIT}")
    made = Query()
    made.add("namespace = {0} AND envelope IS NOT NULL", namespace)
    made.add(
        "stale_until > coalesce({0}::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)", now
    )
    if label is not None:
        _add_label(made, label)
    if tags:
        if isinstance(tags, str):
            raise ConfigurationError("tags: must be a list of strings, such as ['doc:7']")
        made.add("tags @> {0}::text[]", list(tags))
    if model is not None:
        made.add("model = {0}", model)
    if created_after is not None:
        made.add("created > {0}", capped(created_after))
    if created_before is not None:
        made.add("created < {0}", capped(created_before))
    if cursor is not None:
        made.add("(created, key) < ({0}, {1})", *_read_cursor(cursor))
    made.values.append(limit + 1)
    statement = (
        "SELECT key, namespace, label, tags, model, created, fresh_until, stale_until, cost, "
        "octet_length(envelope) AS size, metadata, epoch, snap "
        f'FROM "{schema}".records WHERE {" AND ".join(made.where)} '
        f"ORDER BY created DESC, key DESC LIMIT ${len(made.values)}"
    )
    return statement, made.values


def page(rows: Sequence[Any], limit: int) -> SearchPage:
    """The rows of the statement as they are handed out."""
    found = [_found(row) for row in rows[:limit]]
    more = len(rows) > limit
    return SearchPage(found, _write_cursor(found[-1]) if more else None)


def _add_label(made: Query, label: str) -> None:
    if label.endswith("/*") and "*" not in label[:-1]:
        # The column's order is that of the bytes, in which 0 follows the slash.
        made.add("label >= {0} AND label < {1}", label[:-1], label[:-2] + "0")
    elif "*" in label:
        raise ConfigurationError(f"label is {label!r}: give a path, or one that ends with /*")
    else:
        made.add("label = {0}", label)


def _found(row: Any) -> FoundRecord:
    metadata = msgspec.json.decode(row["metadata"], type=Metadata) if row["metadata"] else Metadata()
    return FoundRecord(
        key=row["key"],
        namespace=row["namespace"],
        label=row["label"],
        tags=tuple(row["tags"] or ()),
        model=row["model"],
        created=row["created"],
        fresh_until=row["fresh_until"],
        stale_until=row["stale_until"],
        cost=row["cost"],
        size=row["size"],
        usage=Usage(**metadata.usage) if metadata.usage else None,
        depends_on=metadata.depends_on,
        compute_micros=metadata.compute_micros,
        epoch=to_unsigned(row["epoch"]),
        snap=to_unsigned(row["snap"]),
    )


def _write_cursor(row: FoundRecord) -> str:
    return base64.urlsafe_b64encode(row.created.to_bytes(8, "big", signed=True) + row.key).decode()


def _read_cursor(cursor: str) -> tuple[int, bytes]:
    try:
        data = base64.urlsafe_b64decode(cursor)
    except ValueError:
        data = b""
    if len(data) != 40:
        raise ConfigurationError("cursor: give the one of an earlier page, whole")
    return int.from_bytes(data[:8], "big", signed=True), data[8:]
