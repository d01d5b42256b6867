"""Entries: their wire form gives them back, and is never taken for another's (I9)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast import _core
from llmcache_fast._core import Encoded
from llmcache_fast._entry import (
    CONTENTS,
    NEVER,
    Entry,
    Facts,
    from_envelope,
    of_stored_form,
    pack_facts,
    stored_form,
    to_envelope,
    unpack_facts,
)
from llmcache_fast._usage import Usage

TIME = st.integers(0, NEVER)
U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FACTS = st.builds(
    Facts,
    tags=st.lists(TEXT, max_size=3).map(tuple),
    label=TEXT | st.none(),
    depends_on=st.lists(TEXT, max_size=3).map(tuple),
    model=TEXT | st.none(),
    usage=st.builds(Usage, st.integers(0, 2**40), st.integers(0, 2**40)) | st.none(),
    compute_micros=st.integers(0, 2**50),
)

VALUES = st.recursive(
    TEXT | st.integers(-(2**63), 2**64 - 1) | st.none(), lambda inner: st.lists(inner, max_size=4)
)
PAYLOADS: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=2000),
    "text": TEXT,
    "json": VALUES.map(msgspec.json.encode) | st.sampled_from([b"NaN", b'{"a":-Infinity}']),
    "msgpack": VALUES.map(msgspec.msgpack.encode),
    "stream": st.tuples(st.binary(max_size=9), st.lists(st.binary(max_size=9))).map(msgspec.msgpack.encode),
}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    content = draw(st.sampled_from(CONTENTS))
    payload: bytes | str = draw(PAYLOADS[content])
    return Entry(
        key=draw(st.binary(min_size=32, max_size=32)),
        namespace=draw(TEXT.filter(bool)),
        content=content,
        payload=payload,
        facts=draw(FACTS),
        created=draw(TIME),
        fresh_until=draw(TIME),
        stale_until=draw(TIME),
        epoch=draw(U64),
        snap=draw(U64),
        cost=draw(U64),
    )


@given(entries())
def test_the_wire_form_gives_the_entry_back(entry: Entry) -> None:
    assert from_envelope(to_envelope(entry), entry.namespace, entry.key) == (entry, "")


@given(entries())
def test_memory_holds_it_all(entry: Entry) -> None:
    assert of_stored_form(stored_form(entry)) == (entry.content, entry.payload)
    assert isinstance(stored_form(entry), Encoded) == (entry.content not in ("bytes", "text"))
    assert unpack_facts(pack_facts(entry.facts)) == entry.facts


def entry(**fields: Any) -> Entry:
    facts = Facts(tags=("t",))
    base = Entry(hashlib.sha256(b"k").digest(), "n", "text", "answer", facts, 1, 2, 3, 4, 5, 6)
    return base._replace(**fields)


def test_a_record_that_is_not_what_was_asked_for_is_nobodys() -> None:
    one = entry()
    wire = to_envelope(one)
    for namespace, key in (("other", one.key), (one.namespace, hashlib.sha256(b"other").digest())):
        found, reason = from_envelope(wire, namespace, key)
        assert found is None
        assert reason


@given(st.data())
def test_damaged_records_are_misses(data: st.DataObject) -> None:
    one = entry()
    wire = bytearray(to_envelope(one))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    found, reason = from_envelope(bytes(wire), one.namespace, one.key)
    assert found is None
    assert reason


@given(st.binary(max_size=400))
def test_hostile_bytes_raise_nothing(wire: bytes) -> None:
    found, reason = from_envelope(wire, "n", entry().key)
    assert found is None
    assert reason


@pytest.mark.parametrize(
    ("content", "payload"),
    [
        ("text", b"\xff\xfe"),
        ("json", b"{"),
        ("json", b""),
        ("json", b"[" * 100_000),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x91" * 100_000),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("stream", b"\x90"),
        ("stream", b"\x92\xc4\x00\x07"),
    ],
)
def test_a_payload_that_holds_no_value_is_a_miss(content: Any, payload: bytes) -> None:
    one = entry()
    wire = _core.encode_envelope(
        kind=0, content_type=CONTENTS.index(content), epoch=1, snap=1, created=1, fresh_until=2,
        stale_until=3, compute_micros=0, cost=0,
        fingerprint=one.key, namespace="n", facts=b"\x90", payload=payload,
    )  # fmt: skip
    assert from_envelope(wire, "n", one.key) == (None, "payload")
