"""Makes `envelope_v1.json` from the specification alone: `docs/reference/envelope.md` written in Python.

It does not use the package, so the vectors hold the Rust encoder to the specification, not to itself: BLAKE3
is the `blake3` package's, AES-256-GCM is OpenSSL's, zstd frames are written by hand. Run
`python tests/golden/make_envelope_vectors.py` only to add vectors; those that are there never change.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NEVER = 2**63 - 1
COMPRESSED, SEALED = 1, 2

KEY = bytes(range(100, 132))
OTHER_KEY = bytes(range(132, 164))
SALT = bytes(range(200, 224))
SEALING = "llmcache_fast 2026-11-24 sealing of stored records, version 1"
KEY_ID = "llmcache_fast 2026-11-24 id of a key, version 1"
NAMES = "llmcache_fast 2026-11-24 blinded names of entries, version 1"
TARGETS = "llmcache_fast 2026-11-24 blinded invalidation targets, version 1"


def encode(fields: dict[str, Any]) -> bytes:
    """The record of `fields`, as `docs/reference/envelope.md` says."""
    stored = fields.get("frame", fields["payload"])
    key, salt = fields.get("key"), fields.get("salt")
    flags = (COMPRESSED if "frame" in fields else 0) | (0 if key is None else SEALED)
    prefix = struct.pack("<4sHHQ", b"LCFE", 1, flags, fields["epoch"])
    body = struct.pack(
        "<BBHIQqqqQQII32s",
        fields["kind"],
        fields["content_type"],
        len(fields["namespace"]),
        len(fields["facts"]),
        fields["snap"],
        fields["created"],
        fields["fresh_until"],
        fields["stale_until"],
        fields["compute_micros"],
        fields["cost"],
        len(stored),
        fields.get("size", len(fields["payload"])),
        fields["fingerprint"],
    )
    body += fields["namespace"] + fields["facts"] + stored
    if key is None or salt is None:
        return checked(prefix + body)
    return sealed(prefix, body, key, salt, fields["fingerprint"], fields["namespace"])


def checked(record: bytes) -> bytes:
    """`record` with its checksum behind it."""
    return record + blake3.blake3(record).digest()[:16]


def sealed(
    prefix: bytes, body: bytes, key: bytes, salt: bytes, fingerprint: bytes, namespace: bytes
) -> bytes:
    """The sealed record of a prefix and a body."""
    clear = prefix + blake3.blake3(key, derive_key_context=KEY_ID).digest()[:8] + salt
    return clear + cipher(key, salt).encrypt(bytes(12), body, clear + fingerprint + namespace)


def opened(record: bytes, key: bytes, fingerprint: bytes, namespace: bytes) -> bytes:
    """The body of a sealed record."""
    return cipher(key, record[24:48]).decrypt(bytes(12), record[48:], record[:48] + fingerprint + namespace)


def cipher(key: bytes, salt: bytes) -> AESGCM:
    """Of one record."""
    sealing = blake3.blake3(key, derive_key_context=SEALING).digest()
    return AESGCM(blake3.blake3(salt, key=sealing).digest())


def tier_key(secret: bytes, fingerprint: bytes) -> bytes:
    """The blinded name of an entry."""
    return blake3.blake3(fingerprint, key=blake3.blake3(secret, derive_key_context=NAMES).digest()).digest()


def tier_target(secret: bytes, target: int) -> int:
    """The blinded number of an invalidation target."""
    key = blake3.blake3(secret, derive_key_context=TARGETS).digest()
    left, right = target & 0xFFFFFFFF, target >> 32
    for number in range(8):
        scrambled = blake3.blake3(bytes([number]) + right.to_bytes(4, "little"), key=key).digest()
        left, right = right, left ^ int.from_bytes(scrambled[:4], "little")
    return left | right << 32


def frame(payload: bytes, *, declared: int | None = None) -> bytes:
    """A zstd frame (RFC 8878) of one block that is stored as it is."""
    size = len(payload) if declared is None else declared
    head = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", size)  # one segment, 4 bytes of size
    return head + (len(payload) << 3 | 1).to_bytes(3, "little") + payload


def run(byte: bytes, length: int, *, declared: int | None = None) -> bytes:
    """A zstd frame of one byte, repeated: blocks of 128 KiB at the most, each 4 bytes."""
    blocks = []
    for start in range(0, length, 128 << 10):
        count = min(128 << 10, length - start)
        last = start + count == length
        blocks.append((count << 3 | 2 | last).to_bytes(3, "little") + byte)
    size = length if declared is None else declared
    return b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", size) + b"".join(blocks)


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


def packed(word: bytes | str | int | list[Any] | None) -> bytes:
    """MessagePack, of what facts are made of."""
    if word is None:
        return b"\xc0"
    if isinstance(word, int):
        return b"\xcd" + word.to_bytes(2)
    if isinstance(word, list):
        return bytes([0x90 | len(word)]) + b"".join(map(packed, word))
    if isinstance(word, str):
        return b"\xd9" + bytes([len(word.encode())]) + word.encode()
    return b"\xc4" + bytes([len(word)]) + word


VECTOR = struct.pack("<4e", 0.5, -0.5, 0.5, 0.5)
FACET = [bytes(range(32, 64)), bytes(range(64, 80)), "Wann kocht Wasser auf 2000 m Höhe?", VECTOR]
FACTS_OF = packed([["doc:7"], "a/b", [], "m", None, 1500, FACET])
"""Tags, label, versions it depends on, model, usage, compute time, facet."""

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
    "compressed, a block as it is": record(payload=b"hello", frame=frame(b"hello")),
    "compressed, a run": record(payload=b"a" * 3000, frame=run(b"a", 3000)),
    "sealed": record(key=KEY, salt=SALT),
    "sealed, empty": record(key=KEY, salt=SALT, namespace=b"", facts=b"", payload=b""),
    "sealed with another key": record(key=OTHER_KEY, salt=SALT),
    "sealed, text in another script": record(
        key=KEY, salt=SALT, content_type=1, namespace="équipe-日本".encode(), payload="こんにちは".encode()
    ),
    "sealed and compressed": record(key=KEY, salt=SALT, payload=b"a" * 3000, frame=run(b"a", 3000)),
    "with a facet": record(facts=FACTS_OF),
    "sealed, with a facet": record(key=KEY, salt=SALT, facts=FACTS_OF),
}

LARGEST = 64 << 20


def refused() -> dict[str, tuple[str, bytes, list[bytes]]]:
    """Bytes that are no record to a reader of these keys, and the name of the reason."""
    plain, closed = encode(record()), encode(RECORDS["sealed"])
    body = plain[16:-16]
    who = (bytes(range(32)), b"default")

    def changed(at: int, value: int) -> bytes:
        return checked(plain[:at] + bytes([value]) + plain[at + 1 : -16])

    def closed_changed(at: int, value: int) -> bytes:
        """Changed inside, by somebody who has the key."""
        altered = body[:at] + bytes([value]) + body[at + 1 :]
        return sealed(closed[:16], altered, KEY, SALT, *who)

    plain_cases = {
        "nothing": ("truncated", b""),
        "a header alone": ("truncated", plain[:112]),
        "without its last byte": ("truncated", plain[:-1]),
        "with one byte more": ("trailing", plain + b"\0"),
        "another magic": ("bad_magic", changed(0, 0x58)),
        "version 2": ("version", changed(4, 2)),
        "flag 2": ("flags", changed(6, 4)),
        "flag 15": ("flags", changed(7, 0x80)),
        "kind 3": ("kind", changed(16, 3)),
        "content type 5": ("content_type", changed(17, 5)),
        "a namespace that is not UTF-8": ("namespace_text", changed(112, 0xFF)),
        "a payload of 2^32 - 1 bytes": ("truncated", checked(plain[:72] + b"\xff" * 4 + plain[76:-16])),
        "a changed payload": ("checksum", plain[:-17] + b"!" + plain[-16:]),
        "a changed epoch": ("checksum", plain[:8] + b"\7" + plain[9:]),
        "another namespace": ("wrong_namespace", encode(record(namespace=b"other"))),
        "another fingerprint": ("wrong_fingerprint", encode(record(fingerprint=bytes(32)))),
        "not compressed, two lengths": ("size", encode(record(size=6))),
        "called compressed": ("frame", changed(6, 1)),
        "a frame cut short": ("frame", encode(record(frame=frame(b"hello")[:-1]))),
        "a frame that says more than it has": (
            "frame",
            encode(record(size=6, frame=frame(b"hello", declared=6))),
        ),
        "a frame that has more than it says": (
            "frame",
            encode(record(size=4, frame=frame(b"hello", declared=4))),
        ),
        "a frame of another size than the record": ("frame", encode(record(size=4, frame=frame(b"hello")))),
        "a frame that does not say its size": (
            "frame",
            encode(record(frame=b"\x28\xb5\x2f\xfd\x00\x58" + frame(b"hello")[9:])),
        ),
        "a frame one byte beyond the limit": (
            "too_large",
            encode(record(size=LARGEST + 1, frame=run(b"a", LARGEST + 1))),
        ),
        "a frame that says 2^32 - 1": (
            "too_large",
            encode(record(size=2**32 - 1, frame=run(b"a", 4, declared=2**32 - 1))),
        ),
        "a frame with bytes behind it": ("frame", encode(record(frame=frame(b"hello") + b"\0"))),
        "sealed, and no key": ("no_key", closed),
    }
    sealed_cases = {
        "not sealed, and it must be": ("unsealed", plain),
        "sealed, and said not to be": ("unsealed", closed[:6] + b"\0" + closed[7:]),
        "an unknown key": ("unknown_key", encode(RECORDS["sealed with another key"])),
        "a changed key id": ("unknown_key", closed[:16] + b"\0" + closed[17:]),
        "sealed, a prefix alone": ("truncated", closed[:16]),
        "sealed, shorter than a tag": ("truncated", closed[:63]),
        "sealed, without its last byte": ("unauthentic", closed[:-1]),
        "sealed, with one byte more": ("unauthentic", closed + b"\0"),
        "sealed, a changed epoch": ("unauthentic", closed[:8] + b"\7" + closed[9:]),
        "sealed, a changed salt": ("unauthentic", closed[:24] + b"\0" + closed[25:]),
        "sealed, a changed body": ("unauthentic", closed[:48] + bytes([closed[48] ^ 1]) + closed[49:]),
        "sealed, a changed tag": ("unauthentic", closed[:-1] + bytes([closed[-1] ^ 1])),
        "sealed, called compressed": ("unauthentic", closed[:6] + b"\3" + closed[7:]),
        "sealed, for another namespace": (
            "unauthentic",
            encode(record(key=KEY, salt=SALT, namespace=b"other")),
        ),
        "sealed, for another fingerprint": (
            "unauthentic",
            encode(record(key=KEY, salt=SALT, fingerprint=bytes(32))),
        ),
        "sealed, lengths that end early": ("trailing", closed_changed(56, 4)),
        "sealed, lengths that go beyond": ("truncated", closed_changed(56, 6)),
        "sealed, kind 3": ("kind", closed_changed(0, 3)),
        "sealed, another fingerprint inside": ("wrong_fingerprint", closed_changed(64, 1)),
        "sealed, another namespace inside": ("wrong_namespace", closed_changed(96, 0x44)),
        "sealed, a body too short": ("truncated", sealed(closed[:16], body[:40], KEY, SALT, *who)),
    }
    return {name: (reason, data, []) for name, (reason, data) in plain_cases.items()} | {
        name: (reason, data, [KEY]) for name, (reason, data) in sealed_cases.items()
    }


NAMED: list[dict[str, Any]] = [
    {"secret": secret, "fingerprint": fingerprint, "target": target}
    for secret, fingerprint, target in (
        (KEY, bytes(32), 0),
        (KEY, bytes(range(32)), 1),
        (KEY, b"\xff" * 32, 2**64 - 1),
        (OTHER_KEY, bytes(range(32)), 1),
        (OTHER_KEY, bytes(range(1, 33)), 0x0123456789ABCDEF),
    )
]


def plain_text(fields: dict[str, Any]) -> dict[str, Any]:
    """Bytes as hex, numbers as they are."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}


def vectors() -> list[dict[str, Any]]:
    """All of them, in the order of the file."""
    return [
        *(
            {"name": name, **plain_text(fields), "record": encode(fields).hex()}
            for name, fields in RECORDS.items()
        ),
        *(
            {"name": name, "refused": reason, "keys": [key.hex() for key in keys], "bytes": data.hex()}
            for name, (reason, data, keys) in refused().items()
        ),
        *(
            plain_text(named)
            | {
                "tier_key": tier_key(named["secret"], named["fingerprint"]).hex(),
                "tier_target": tier_target(named["secret"], named["target"]),
            }
            for named in NAMED
        ),
    ]


def main() -> None:
    """Write the file, one vector a line."""
    path = Path(__file__).with_name("envelope_v1.json")
    path.write_text("[\n" + ",\n".join(json.dumps(vector) for vector in vectors()) + "\n]\n")


if __name__ == "__main__":
    main()
