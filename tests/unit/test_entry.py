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
    Facet,
    Facts,
    examine,
    from_envelope,
    of_stored_form,
    pack_facts,
    stored_form,
    to_envelope,
    unpack_facts,
    unpack_for_memory,
    without_vector,
)
from llmcache_fast._usage import Usage
from tests.golden import make_envelope_vectors as golden
from tests.golden.make_envelope_vectors import RECORDS, encode

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
    semantic=st.none()
    | st.builds(
        Facet,
        partition=st.binary(min_size=32, max_size=32),
        space=st.binary(min_size=16, max_size=16),
        text=TEXT,
        vector=st.binary(max_size=40).map(lambda data: data * 2),
    ),
)
FACET = Facet(bytes(range(32)), bytes(range(16)), "a secret question", bytes(768))

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


@given(FACTS)
def test_memory_keeps_all_facts_but_the_vector(facts: Facts) -> None:
    kept = without_vector(facts)
    assert unpack_for_memory(pack_facts(facts)) == (kept, pack_facts(kept))
    if facts.semantic is None:
        assert kept is facts
    else:
        assert kept.semantic is not None
        assert kept.semantic.vector == b""
        assert kept.semantic.text == facts.semantic.text
        assert without_vector(kept) is kept


def test_facts_without_a_facet_are_packed_as_before_there_were_any() -> None:
    assert pack_facts(Facts()) == b""
    assert pack_facts(Facts(tags=("a",))) == msgspec.msgpack.encode([["a"], None, [], None, None, 0])
    six = msgspec.msgpack.encode([[], "label", [], "m", None, 7])
    assert unpack_facts(six) == Facts(label="label", model="m", compute_micros=7)
    assert pack_facts(unpack_facts(six)) == six
    # What a later version adds behind is not read.
    assert unpack_facts(msgspec.msgpack.encode([[], "label", [], "m", None, 7, None, 1])) == unpack_facts(six)


def test_a_facet_shows_no_text() -> None:
    facts = Facts(label="a", semantic=FACET)
    for shown in (repr(FACET), str(FACET), repr(facts), f"{facts}"):
        assert "secret" not in shown
        assert "\\x00" not in shown
    assert "Facet(text of 17 characters, vector of 384)" in repr(facts)


@pytest.mark.parametrize(
    ("partition", "space", "vector"),
    [
        (b"", bytes(16), b""),
        (bytes(31), bytes(16), b""),
        (bytes(32), bytes(17), b""),
        (bytes(32), bytes(16), b"odd"),
    ],
)
def test_a_facet_of_another_size_is_none(partition: bytes, space: bytes, vector: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes of partition"):
        Facet(partition, space, "text", vector)


GOOD = [bytes(32), bytes(16), "text", b"ab"]


@pytest.mark.parametrize(
    "facet",
    [
        [],
        GOOD[:3],
        [bytes(31), *GOOD[1:]],
        [*GOOD[:3], b"odd"],
        [*GOOD[:2], 7, b""],
        [*GOOD[:2], b"bytes", b""],
        {"partition": bytes(32)},
        "text",
        7,
    ],
)
def test_a_record_with_a_facet_that_is_none_is_no_record(facet: Any) -> None:
    data = _core.encode_envelope(
        kind=0,
        content_type=0,
        epoch=1,
        snap=1,
        created=1,
        fresh_until=NEVER,
        stale_until=NEVER,
        compute_micros=0,
        cost=0,
        fingerprint=bytes(32),
        namespace="n",
        facts=msgspec.msgpack.encode([[], None, [], None, None, 0, facet]),
        payload=b"x",
    )
    assert from_envelope(data, "n", bytes(32)) == (None, "facts")
    assert examine(data) == (None, "facts")


def test_the_golden_facet_is_read() -> None:
    for fields in (RECORDS["with a facet"], RECORDS["sealed, with a facet"]):
        sealed = "key" in fields
        keyring = _core.Keyring([fields["key"]], accept_plain=False) if sealed else None
        entry, reason = from_envelope(encode(fields), "default", fields["fingerprint"], keyring=keyring)
        assert reason == ""
        assert entry is not None
        facet = entry.facts.semantic
        assert facet is not None
        assert [facet.partition, facet.space, facet.text, facet.vector] == golden.FACET
        assert entry.facts == Facts(("doc:7",), "a/b", (), "m", None, 1500, facet)
        if not sealed:
            written = from_envelope(to_envelope(entry), "default", fields["fingerprint"])
            assert written == (entry, "")
