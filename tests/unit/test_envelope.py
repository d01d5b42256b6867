"""The wire form through the binding: fields, golden vectors, hostile bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast import _core
from tests.golden.make_envelope_vectors import (
    KEY,
    OTHER_KEY,
    RECORDS,
    checked,
    encode,
    opened,
    record,
    refused,
    vectors,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "envelope_v1.json"
FIELDS = [field for field in record() if field != "namespace"]
RING = _core.Keyring([KEY, OTHER_KEY])
TEXT = (
    b"The tide tables for the harbour are published by the office every quarter, and corrected monthly. " * 30
)


def encode_in_rust(fields: dict[str, Any], **form: Any) -> bytes:
    fields = {name: fields[name] for name in record()}
    return _core.encode_envelope(**(fields | {"namespace": fields["namespace"].decode()}), **form)


@pytest.mark.parametrize("name", list(RECORDS))
def test_the_decoder_reads_what_the_specification_says(name: str) -> None:
    fields = RECORDS[name]
    ring = RING if "key" in fields else None
    data = encode(fields)
    envelope, reason = _core.decode_envelope(data, fields["namespace"].decode(), fields["fingerprint"], ring)
    assert envelope is not None
    assert reason == ""
    assert {field: getattr(envelope, field) for field in FIELDS} == {f: fields[f] for f in FIELDS}
    assert envelope.namespace == fields["namespace"].decode()
    overhead = _core.SEALED_OVERHEAD if ring else _core.ENVELOPE_OVERHEAD
    stored = fields.get("frame", fields["payload"])
    assert len(data) == overhead + len(fields["namespace"] + fields["facts"] + stored)


@pytest.mark.parametrize("name", [name for name, fields in RECORDS.items() if "frame" not in fields])
def test_the_encoder_follows_the_specification(name: str) -> None:
    fields = RECORDS[name]
    if "key" not in fields:
        assert encode_in_rust(fields) == encode(fields)
        return
    data = encode_in_rust(fields, keyring=_core.Keyring([fields["key"]]))
    # The salt is random; all else is as in the vector, read with OpenSSL's AES-GCM.
    expected = encode(fields | {"salt": data[24:48]})
    assert data == expected
    assert opened(data, fields["key"], fields["fingerprint"], fields["namespace"]) == opened(
        encode(fields), fields["key"], fields["fingerprint"], fields["namespace"]
    )


def test_the_published_vectors_are_those_of_the_specification() -> None:
    assert json.loads(GOLDEN.read_text()) == vectors()


@pytest.mark.parametrize("name", list(refused()))
def test_what_is_no_record_is_none_and_a_reason(name: str) -> None:
    reason, data, keys = refused()[name]
    ring = _core.Keyring(keys) if keys else None
    assert _core.decode_envelope(data, "default", bytes(range(32)), ring) == (None, reason)
    assert _core.decode_entry(data, "default", bytes(range(32)), ring) == (None, reason)


def test_every_reason_has_a_vector() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "envelope.md").read_text()
    table = page.partition("## Reading")[2].partition("## ")[0]
    reasons = {reason for reason, _, _ in refused().values()}
    assert [reason for reason in reasons if f"`{reason}`" not in table] == []
    assert len(reasons) == 18


def test_plain_records_are_read_with_keys_only_when_that_is_said() -> None:
    data, who = encode(record()), ("default", bytes(range(32)))
    assert _core.decode_envelope(data, *who, RING) == (None, "unsealed")
    introducing = _core.Keyring([KEY], accept_plain=True)
    assert _core.decode_envelope(data, *who, introducing)[1] == ""
    assert _core.decode_envelope(encode_in_rust(record(), keyring=RING), *who, introducing)[1] == ""


def test_long_text_is_compressed_and_noise_and_short_text_are_not() -> None:
    noise = b"".join(bytes([byte * 167 % 256, byte * byte % 251]) for byte in range(256)) * 1
    for payload, smaller in ((TEXT, True), (TEXT[:400], False), (noise, False), (b"", False)):
        for form in ({"keyring": RING}, {}):
            fields = record(payload=payload)
            plain, data = encode_in_rust(fields, **form), encode_in_rust(fields, compress=True, **form)
            assert (len(data) < 0.88 * len(plain)) == smaller
            assert bool(data[6] & 1) == smaller
            envelope, _ = _core.decode_envelope(data, "default", bytes(range(32)), form.get("keyring"))
            assert envelope is not None
            assert envelope.payload == payload


def test_a_payload_beyond_the_limit_is_stored_as_it_is_and_read_again() -> None:
    for size, compressed in ((_core.MAX_UNPACKED, True), (_core.MAX_UNPACKED + 1, False)):
        data = encode_in_rust(record(payload=bytes(size)), compress=True)
        assert bool(data[6] & 1) == compressed
        envelope, reason = _core.decode_envelope(data, "default", bytes(range(32)))
        assert envelope is not None, reason
        assert len(envelope.payload) == size


def test_no_two_sealed_records_are_alike() -> None:
    sealed = {encode_in_rust(record(), keyring=RING) for _ in range(1000)}
    assert len({data[24:48] for data in sealed}) == len({data[48:] for data in sealed}) == 1000


@given(st.binary(max_size=300), st.text(max_size=5))
def test_no_bytes_raise(data: bytes, namespace: str) -> None:
    one = encode(record())
    for candidate in (data, checked(data), one[: len(data)], one + data, one[:8] + data):
        for ring in (None, RING, _core.Keyring([KEY], accept_plain=True)):
            envelope, reason = _core.decode_envelope(candidate, namespace, bytes(range(32)), ring)
            assert (envelope is None) == bool(reason)


def test_wrong_arguments_are_the_callers_mistakes() -> None:
    with pytest.raises(ValueError, match="32 bytes are needed, 31 were given"):
        _core.decode_envelope(b"", "", bytes(31))
    with pytest.raises(ValueError, match="kind: 3"):
        encode_in_rust(record(kind=3))
    with pytest.raises(ValueError, match="content_type: 5"):
        encode_in_rust(record(content_type=5))
    with pytest.raises(ValueError, match="shorter name"):
        encode_in_rust(record(namespace=b"x" * 65_536))
    with pytest.raises(OverflowError):
        encode_in_rust(record(cost=2**64))


@pytest.mark.parametrize(
    "form", [{}, {"compress": True}, {"keyring": RING}, {"compress": True, "keyring": RING}]
)
def test_large_records_pass_through(form: dict[str, Any]) -> None:
    fields = record(payload=TEXT * 400)
    data = encode_in_rust(fields, **form)
    envelope, _ = _core.decode_envelope(data, "default", bytes(range(32)), form.get("keyring"))
    assert envelope is not None
    assert envelope.payload == fields["payload"]
