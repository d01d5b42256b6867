"""Records as the columns of a statement, and the facts that can be searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llmcache_fast._entry import Facts
from llmcache_fast._usage import Usage
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres.numbers import capped, to_signed


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts without a column of their own, as they stand in the column `metadata`."""

    usage: dict[str, int] | None = None
    depends_on: tuple[str, ...] = ()
    compute_micros: int = 0


_encode = msgspec.json.Encoder().encode


def rounds(records: Sequence[StoredRecord]) -> Iterable[list[StoredRecord]]:
    """The records in as few lots as there are records of one key, each lot in the order of its keys.

    A statement can write a row only once; the later of two writes of a key comes in a later lot. Almost
    always there is one lot.
    """
    rest: Sequence[StoredRecord] = records
    while rest:
        lot: dict[bytes, StoredRecord] = {}
        again = [record for record in rest if lot.setdefault(record.key, record) is not record]
        yield [lot[key] for key in sorted(lot)]
        rest = again


def columns(records: Sequence[StoredRecord]) -> list[list[Any]]:
    """One list a column, as the statement `put` wants them."""
    given = [_row(record) for record in records]
    return [list(column) for column in zip(*given, strict=True)]


def _row(record: StoredRecord) -> tuple[Any, ...]:
    facts = record.facts
    shown: tuple[str | None, ...] = (None, None, None, None, None)
    if record.namespace is not None:
        shown = (_text(record.namespace), None, None, None, None)
        if facts is not None:
            shown = (
                shown[0],
                facts.label and _text(facts.label),
                facts.model and _text(facts.model),
                text_array(facts.tags) if facts.tags else None,
                _metadata(facts),
            )
    return (
        record.key,
        record.envelope,
        to_signed(record.epoch),
        to_signed(record.snap),
        capped(record.stale_until),
        capped(record.cost),
        capped(record.created),
        capped(record.fresh_until),
        *shown,
    )


def text_array(texts: Iterable[str]) -> str:
    """The literal of a text[]: an array of arrays of several lengths does not exist in Postgres."""
    quoted = (_text(text).replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


def _metadata(facts: Facts) -> str | None:
    if not (facts.usage or facts.depends_on or facts.compute_micros):
        return None
    usage: Usage | None = facts.usage
    found = Metadata(
        usage=msgspec.structs.asdict(usage) if usage else None,
        depends_on=tuple(map(_text, facts.depends_on)),
        compute_micros=facts.compute_micros,
    )
    return _encode(found).decode()


def _text(text: str) -> str:
    """Text as Postgres can hold it: without NUL and lone surrogates. The envelope has it as it was."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
