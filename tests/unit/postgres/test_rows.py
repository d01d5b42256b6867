"""Records as columns: what a record says and hides, and text that Postgres cannot hold."""

from __future__ import annotations

from typing import Any

import msgspec

from llmcache_fast._entry import NEVER, Facts
from llmcache_fast._usage import Usage
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres.numbers import LARGEST, capped, to_signed, to_unsigned
from llmcache_fast.tiers.postgres.rows import columns, rounds, text_array


def record(key: bytes, **fields: Any) -> StoredRecord:
    return StoredRecord(key, b"e", 1, 1, NEVER, 7)._replace(**fields)


def test_unsigned_numbers_pass_through_bigint_and_back() -> None:
    for number in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        signed = to_signed(number)
        assert -(2**63) <= signed < 2**63
        assert to_unsigned(signed) == number


def test_what_is_beyond_a_bigint_is_its_largest() -> None:
    assert [capped(n) for n in (-5, 7, 2**63, 2**64)] == [-5, 7, LARGEST, LARGEST]


def test_repeated_keys_come_in_later_rounds_in_their_order() -> None:
    a1, a2, a3 = (record(b"a", snap=n) for n in (1, 2, 3))
    b = record(b"b")
    assert list(rounds([b, a1, a2, a3])) == [[a1, b], [a2], [a3]]
    assert list(rounds([])) == []


def test_a_record_that_hides_its_facts_has_none_in_columns() -> None:
    hidden = columns([record(b"a", facts=Facts(tags=("t",), label="l", model="m"))])
    assert hidden[8:] == [[None]] * 5
    shown = columns([record(b"a", namespace="n", facts=Facts())])
    assert shown[8:] == [["n"], [None], [None], [None], [None]]


def test_facts_without_a_column_are_json() -> None:
    facts = Facts(usage=Usage(10, 2), depends_on=("prices",), compute_micros=5)
    (metadata,) = columns([record(b"a", namespace="n", facts=facts)])[12]
    assert msgspec.json.decode(metadata) == {
        "usage": {"input_tokens": 10, "output_tokens": 2, "cached_input_tokens": 0, "cache_write_tokens": 0},
        "depends_on": ["prices"],
        "compute_micros": 5,
    }


def test_text_that_postgres_cannot_hold_is_marked_as_lost() -> None:
    assert text_array(["a\0b", "\ud800", 'q"\\', "{,}"]) == '{"a\ufffdb","?","q\\"\\\\","{,}"}'
