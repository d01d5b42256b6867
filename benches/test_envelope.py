"""Records of 2 KB: making and reading one, beside its parts called one by one from Python.

The parts are what a careful hand-made pipeline would call: msgspec for the fields, zstandard with kept
contexts, BLAKE3 for a checksum or the `cryptography` package's AES-256-GCM with a ready key and a fresh nonce
for a seal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches.figure import OURS, Figure, from_times
from benches.rounds import Contender, interleave, pedantic
from llmcache_fast._entry import Entry, Facts
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._usage import Usage
from llmcache_fast._wire import Wire

BASE = "sum of the parts"
SIZE = 2048
KEY = bytes(range(100, 132))
FORMS = {
    "plain": (False, False),
    "compressed": (True, False),
    "sealed": (False, True),
    "compressed and sealed": (True, True),
}
PROSE = (Path(__file__).parents[1] / "docs" / "explanation" / "design-decisions.md").read_text()


class Fields(msgspec.Struct, array_like=True):
    """What a record says of itself, as the hand-made pipeline packs it."""

    key: bytes
    namespace: str
    content: str
    payload: bytes
    facts: Facts
    created: int
    fresh_until: int
    stale_until: int
    epoch: int
    snap: int
    cost: int


def entries(count: int) -> list[Entry]:
    """Answers of 2 KB of prose, each another stretch of it."""
    facts = Facts(("doc:7", "user:42"), "content/blog", (), "gpt-5-mini", Usage(1200, 480), 1_500_000)
    found = []
    for number in range(count):
        start = number * 37 % (len(PROSE) - SIZE)
        payload = PROSE[start : start + SIZE].encode("ascii", "replace").decode()
        key = blake3(number.to_bytes(8, "little")).digest()
        found.append(Entry(key, "support-bot", "text", payload, facts, 1, 2, 3, 4, 5, 2100))
    return found


def parts(compress: bool, seal: bool) -> tuple[Callable[[Entry], bytes], Callable[[bytes, Entry], Any]]:
    """The hand-made pipeline, there and back."""
    pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Fields).decode
    squeeze, expand = zstandard.ZstdCompressor(level=1).compress, zstandard.ZstdDecompressor().decompress
    aead = AESGCM(KEY)

    def bound(entry: Entry) -> bytes:
        return entry.key + entry.epoch.to_bytes(8, "little") + entry.namespace.encode()

    def write(entry: Entry) -> bytes:
        assert isinstance(entry.payload, str)
        payload = entry.payload.encode()
        if compress:
            payload = squeeze(payload)
        data = pack(
            Fields(
                entry.key, entry.namespace, entry.content, payload, entry.facts, entry.created,
                entry.fresh_until, entry.stale_until, entry.epoch, entry.snap, entry.cost,
            )
        )  # fmt: skip
        if not seal:
            return data + blake3(data).digest()[:16]
        nonce = os.urandom(12)
        return nonce + aead.encrypt(nonce, data, bound(entry))

    def read(data: bytes, entry: Entry) -> Entry:
        if seal:
            data = aead.decrypt(data[:12], data[12:], bound(entry))
        else:
            data, checksum = data[:-16], data[-16:]
            assert blake3(data).digest()[:16] == checksum
        found = unpack(data)
        assert (found.key, found.namespace) == (entry.key, entry.namespace)
        payload = expand(found.payload) if compress else found.payload
        return Entry(
            found.key, found.namespace, found.content, payload.decode(), found.facts, found.created,
            found.fresh_until, found.stale_until, found.epoch, found.snap, found.cost,
        )  # fmt: skip

    return write, read


def contenders(form: str, work: str) -> dict[str, Contender]:
    """The hand-made pipeline and ours."""
    compress, seal = FORMS[form]
    write, read = parts(compress, seal)
    wire = Wire(Secrecy(KEY) if seal else None, compress=compress)
    own = entries(200)
    theirs = [write(entry) for entry in own]
    ours = [wire.record(entry).envelope for entry in own]
    for entry, their, our in zip(own, theirs, ours, strict=True):
        assert read(their, entry) == wire.entry(our, entry.namespace, entry.key)[0] == entry

    def repeated(items: list[Any]) -> Callable[[int], list[Any]]:
        return lambda size: [items[number % len(items)] for number in range(size)]

    def write_each(batch: list[Entry]) -> None:
        for entry in batch:
            write(entry)

    def record_each(batch: list[Entry]) -> None:
        for entry in batch:
            wire.record(entry)

    def read_each(batch: list[tuple[bytes, Entry]]) -> None:
        for data, entry in batch:
            read(data, entry)

    def entry_each(batch: list[tuple[bytes, Entry]]) -> None:
        for data, entry in batch:
            wire.entry(data, entry.namespace, entry.key)

    if work == "make":
        return {BASE: Contender(repeated(own), write_each), OURS: Contender(repeated(own), record_each)}
    return {
        BASE: Contender(repeated(list(zip(theirs, own, strict=True))), read_each),
        OURS: Contender(repeated(list(zip(ours, own, strict=True))), entry_each),
    }


def figures(rounds: int) -> Iterator[Figure]:
    for form, (compress, seal) in FORMS.items():
        for work in ("make", "read"):
            times = interleave(contenders(form, work), size=500, rounds=2 * rounds)
            wire = Wire(Secrecy(KEY) if seal else None, compress=compress)
            stored = sum(len(wire.record(entry).envelope) for entry in entries(200)) // 200
            yield from_times(
                f"{work} a record of {SIZE} bytes, {form}",
                times,
                BASE,
                target=1.3,
                notes=[f"{stored} bytes stored"],
            )


@pytest.mark.parametrize("name", [BASE, OURS])
@pytest.mark.parametrize("work", ["make", "read"])
@pytest.mark.parametrize("form", list(FORMS))
def test_envelope(benchmark: Any, form: str, work: str, name: str) -> None:
    pedantic(benchmark, contenders(form, work)[name], size=200)
