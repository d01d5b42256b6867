"""The wire form through the binding: fields, golden vectors, hostile bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast import _core
from tests.golden.make_envelope_vectors import RECORDS, encode, plain_text, record, refused, seal

GOLDEN = Path(__file__).parents[1] / "golden" / "envelope_v1.json"
FIELDS = [field for field in record() if field != "namespace"]


def encode_in_rust(fields: dict[str, Any]) -> bytes:
    return _core.encode_envelope(**(fields | {"namespace": fields["namespace"].decode()}))


@pytest.mark.parametrize("name", list(RECORDS))
def test_the_encoder_follows_the_specification_and_the_decoder_reads_it(name: str) -> None:
    fields = RECORDS[name]
    data = encode_in_rust(fields)
    assert data == encode(fields)
    envelope, reason = _core.decode_envelope(data, fields["namespace"].decode(), fields["fingerprint"])
    assert envelope is not None
    assert reason == ""
    assert {field: getattr(envelope, field) for field in FIELDS} == {f: fields[f] for f in FIELDS}
    assert envelope.namespace == fields["namespace"].decode()
    assert len(data) == _core.ENVELOPE_OVERHEAD + sum(
        len(fields[f]) for f in ("namespace", "facts", "payload")
    )


def test_the_published_vectors_are_those_of_the_specification() -> None:
    expected = [
        {"name": name, **plain_text(fields), "record": encode(fields).hex()}
        for name, fields in RECORDS.items()
    ] + [{"name": name, "refused": reason, "bytes": data.hex()} for name, (reason, data) in refused().items()]
    assert json.loads(GOLDEN.read_text()) == expected


@pytest.mark.parametrize("name", list(refused()))
def test_what_is_no_record_is_none_and_a_reason(name: str) -> None:
    reason, data = refused()[name]
    assert _core.decode_envelope(data, "default", bytes(range(32))) == (None, reason)


def test_records_of_other_questions_are_incidents_with_names_of_their_own() -> None:
    data = encode(record())
    assert _core.decode_envelope(data, "other", bytes(range(32))) == (None, "wrong_namespace")
    assert _core.decode_envelope(data, "default", bytes(32)) == (None, "wrong_fingerprint")


@given(st.binary(max_size=300), st.text(max_size=5))
def test_no_bytes_raise(data: bytes, namespace: str) -> None:
    for candidate in (data, seal(data), encode(record())[: len(data)], encode(record()) + data):
        envelope, reason = _core.decode_envelope(candidate, namespace, bytes(range(32)))
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


def test_large_records_pass_through() -> None:
    fields = record(payload=bytes(1 << 20))
    data = encode_in_rust(fields)
    envelope, _ = _core.decode_envelope(data, "default", bytes(range(32)))
    assert envelope is not None
    assert envelope.payload == fields["payload"]
