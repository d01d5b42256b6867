"""The published vectors: the Rust core, the plain-Python reference and the file say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmcache_fast
from tests.golden.vector_form import revive
from tests.properties import reference_fingerprint as reference

FILE = json.loads((Path(__file__).parent / "fingerprint_v1.json").read_text())
VECTORS: list[dict[str, Any]] = FILE["vectors"]
BY_NAME = {vector["name"]: vector for vector in VECTORS}


def rust(request: object, nfc: bool = False, **options: Any) -> str:
    found: bytes = llmcache_fast.fingerprint(request, normalize="NFC" if nfc else None, **options)
    return found.hex()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    request, options = revive(vector["request"]), vector.get("options", {})
    assert reference.fingerprint(request, **options).hex() == vector["fingerprint"]
    assert rust(request, **options) == vector["fingerprint"]
    assert rust(request, **options) == vector["fingerprint"], "and again, from a warm memo"
    if "canonical" in vector:
        profile, nfc = options.get("profile", "generic"), options.get("nfc", False)
        assert reference.canonical_request(request, profile, nfc).hex() == vector["canonical"]


def test_the_file_is_of_this_format() -> None:
    assert FILE["format"] == 1
    assert len(VECTORS) >= 150
    assert len(BY_NAME) == len(VECTORS)
    tags = {bytes.fromhex(v["canonical"])[0] for v in VECTORS if "canonical" in v}
    nested = "".join(v["canonical"] for v in VECTORS if "canonical" in v)
    assert tags >= {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0A, 0x0B, 0x0D}
    for tag_and_length in ("0c01", "0980", "08ff01"):
        assert tag_and_length in nested


SAME = [
    ("integer 0", "whole float 0.0", "whole float -0.0"),
    ("integer 1", "whole float 1.0"),
    ("integer -9223372036854775808", "whole float -9.223372036854776e+18"),
    ("string, NFC e acute", "string, NFC e acute, NFC asked", "string, NFD e acute, NFC asked"),
    ("string, Hangul composed", "string, Hangul decomposed, NFC asked"),
    ("keys sorted, given sorted", "keys sorted, given reversed"),
    ("generic: plain chat request", "generic: transport fields"),
    ("generic: tool schema, one order", "generic: tool schema, other order"),
    ("openai.chat: plain chat request", "openai.chat: transport fields", "openai.chat: temperature 1.0",
     "openai.chat: temperature null", "openai.chat: all defaults spelled out",
     "openai.chat: null where null is absent", "openai.chat: prompt cache hints"),
    ("anthropic.messages: plain chat request", "anthropic.messages: temperature 1.0"),
]  # fmt: skip
DIFFERENT = [
    ("null", "false", "integer 0", "string, empty", "empty array", "empty mapping",
     "empty set", "null differs from absent"),
    ("integer 9223372036854775807", "whole float 9.223372036854776e+18"),
    ("string, NFC e acute", "string, NFD e acute"),
    ("string, ascii", "string, letter case counts"),
    ("string of 255 bytes", "string of 256 bytes", "string of 257 bytes"),
    ("array order counts, one way", "array order counts, the other way"),
    ("a small request", "another namespace", "empty namespace", "variant 0", "variant 1", "variant as text"),
    ("generic: plain chat request", "openai.chat: plain chat request",
     "openai.responses: plain chat request"),
    ("openai.chat: tool schema, one order", "openai.chat: tool schema, other order"),
    ("openai.chat: response schema, one order", "openai.chat: response schema, other order"),
    ("openai.responses: schemas, one order", "openai.responses: schemas, other order"),
    ("anthropic.messages: tool schema, one order", "anthropic.messages: tool schema, other order"),
    ("openai.chat: plain chat request", "openai.chat: temperature true is no number",
     "openai.chat: null where null counts", "openai.chat: user and metadata count"),
    ("anthropic.messages: plain chat request", "anthropic.messages: temperature null"),
    ("openai.responses: defaults", "openai.responses: store false counts"),
]  # fmt: skip


@pytest.mark.parametrize("names", SAME, ids=lambda names: names[0])
def test_vectors_that_must_be_equal(names: tuple[str, ...]) -> None:
    assert len({BY_NAME[name]["fingerprint"] for name in names}) == 1


@pytest.mark.parametrize("names", DIFFERENT, ids=lambda names: names[0])
def test_vectors_that_must_differ(names: tuple[str, ...]) -> None:
    assert len({BY_NAME[name]["fingerprint"] for name in names}) == len(names)


def test_every_vector_says_what_it_shows() -> None:
    """Vectors of one profile, namespace and variant have one fingerprint exactly when one canonical form."""
    forms: dict[tuple[Any, ...], set[str]] = {}
    for vector in VECTORS:
        if "canonical" in vector:
            options = vector.get("options", {})
            about = (
                options.get("profile"),
                options.get("namespace"),
                repr(options.get("variant")),
                vector["canonical"],
            )
            forms.setdefault(about, set()).add(vector["fingerprint"])
    assert all(len(found) == 1 for found in forms.values())
    assert len(set().union(*forms.values())) == len(forms)
