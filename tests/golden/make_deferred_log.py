"""Makes `deferred_v1.log` from the specification alone: `docs/reference/deferred.md` written in Python.

It does not use the package. The file that is there never changes.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec

from tests.golden.make_envelope_vectors import encode

NAME = "5a" * 32


def line(*said: Any) -> bytes:
    """One line: what it says, in msgpack, in an envelope bound to the file's name, in base64."""
    envelope = encode(
        {
            "kind": 2,
            "content_type": 3,
            "epoch": 0,
            "snap": 0,
            "created": 0,
            "fresh_until": 0,
            "stale_until": 0,
            "compute_micros": 0,
            "cost": 0,
            "fingerprint": bytes.fromhex(NAME),
            "namespace": b"deferred invalidations",
            "facts": b"",
            "payload": msgspec.msgpack.encode(said),
        }
    )
    return base64.b64encode(envelope) + b"\n"


def golden() -> bytes:
    """Three lines: two namespaces, then one target of the first is delivered."""
    return b"".join(
        (
            b"llmcache-deferred 1 postgres\n",
            line(False, 1, "shop", [1, 2**64 - 1], [b"content/*/2024-*--"]),
            line(False, 1, "support-bot", [3], []),
            line(True, 1, "shop", [1], []),
        )
    )


if __name__ == "__main__":
    Path(__file__).with_name("deferred_v1.log").write_bytes(golden())
