"""Makes `envelope_v1.json` from the specification alone: `docs/reference/envelope.md` written in Python.

It does not use the package, so the vectors hold the Rust encoder to the specification, not to itself. Run
`python tests/golden/make_envelope_vectors.py` only to add vectors; those that are there never change.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import blake3

NEVER = 2**63 - 1


def encode(fields: dict[str, Any]) -> bytes:
    """The record of `fields`, as `docs/reference/envelope.md` says."""
    body = struct.pack(
        "<4sHHBBHIQQqqqQQQ32s",
        b"LCFE",
        1,
        0,
        fields["kind"],
        fields["content_type"],
        len(fields["namespace"]),
        len(fields["facts"]),
        fields["epoch"],
        fields["snap"],
        fields["created"],
        fields["fresh_until"],
        fields["stale_until"],
        fields["compute_micros"],
        fields["cost"],
        len(fields["payload"]),
        fields["fingerprint"],
    )
    return seal(body + fields["namespace"] + fields["facts"] + fields["payload"])


def seal(body: bytes) -> bytes:
    """`body` with its checksum behind it."""
    return body + blake3.blake3(body).digest()[:16]


def record(**changes: Any) -> dict[str, Any]:
    """The fields of a plain record, with some changed."""
    return {
        "kind": 0,
        "content_type": 0,
        "epoch": 1,
        "snap": 2,
        "created": 1_700_000_000_000_000,
        "fresh_until": 1_700_003_600_000_000,
        "stale_until": 1_700_007_200_000_000,
        "compute_micros": 1_500_000,
        "cost": 2_100,
        "namespace": b"default",
        "fingerprint": bytes(range(32)),
        "facts": b"\x80",
        "payload": b"hello",
    } | changes


RECORDS = {
    "plain": record(),
    "empty": record(namespace=b"", facts=b"", payload=b""),
    "never expires": record(fresh_until=NEVER, stale_until=NEVER),
    "largest numbers": record(epoch=2**64 - 1, snap=2**64 - 1, compute_micros=2**64 - 1, cost=2**64 - 1),
    "times before 1970": record(created=-1, fresh_until=-(2**63), stale_until=0),
    "negative, json": record(kind=1, content_type=2, payload=b'{"status":400}'),
    "tombstone": record(kind=2, payload=b""),
    "text in another script": record(
        content_type=1, namespace="équipe-日本".encode(), payload="こんにちは".encode()
    ),
    "msgpack": record(content_type=3, payload=b"\x81\xa1a\x01", facts=b"\x81\xa5label\xa1x"),
    "stream of some length": record(content_type=4, payload=bytes(range(256)) * 5, fingerprint=b"\xff" * 32),
}


def refused() -> dict[str, tuple[str, bytes]]:
    """Bytes that are no record, and the name of the reason."""
    plain = encode(record())

    def changed(at: int, value: int) -> bytes:
        body = bytearray(plain[:-16])
        body[at] = value
        return seal(bytes(body))

    return {
        "nothing": ("truncated", b""),
        "a header alone": ("truncated", plain[:112]),
        "without its last byte": ("truncated", plain[:-1]),
        "with one byte more": ("trailing", plain + b"\0"),
        "another magic": ("bad_magic", changed(0, 0x58)),
        "version 2": ("version", changed(4, 2)),
        "flag 0, reserved for compression": ("flags", changed(6, 1)),
        "flag 1, reserved for encryption": ("flags", changed(6, 2)),
        "kind 3": ("kind", changed(8, 3)),
        "content type 5": ("content_type", changed(9, 5)),
        "a namespace that is not UTF-8": ("namespace_text", changed(112, 0xFF)),
        "a payload of 2^64 - 1 bytes": ("truncated", seal(plain[:72] + b"\xff" * 8 + plain[80:-16])),
        "a changed payload": ("checksum", plain[:-17] + b"!" + plain[-16:]),
    }


def plain_text(fields: dict[str, Any]) -> dict[str, Any]:
    """Bytes as hex, numbers as they are."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}


def main() -> None:
    """Write the file, one vector a line."""
    lines = [
        json.dumps({"name": name, **plain_text(fields), "record": encode(fields).hex()})
        for name, fields in RECORDS.items()
    ]
    lines += [
        json.dumps({"name": name, "refused": reason, "bytes": data.hex()})
        for name, (reason, data) in refused().items()
    ]
    path = Path(__file__).with_name("envelope_v1.json")
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
