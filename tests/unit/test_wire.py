"""What tiers see of an entry, and what comes back from them."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from llmcache_fast import _core
from llmcache_fast._entry import CONTENTS, Entry, Facet, Facts
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._wire import INCIDENTS, PLAIN, Wire
from tests.golden.make_envelope_vectors import KEY, NAMED, OTHER_KEY, tier_key, tier_target

BLIND = bytes(range(10, 42))
PROMPTED = "The harbour office publishes the tide tables every quarter. " * 40
FACTS = Facts(tags=("doc:7",), label="content/harbour", model="m")
ENTRY = Entry(blake3(b"k").digest(), "support-bot", "text", PROMPTED, FACTS, 1, 2, 3, 4, 5, 6)


def shown(record: object) -> bytes:
    return msgspec.msgpack.encode(record)


def test_without_secrets_everything_is_itself() -> None:
    for wire in (PLAIN, Wire(), Wire(Secrecy(KEY))):
        assert wire.tier_key(ENTRY.key) is ENTRY.key
        assert wire.tier_target(7) == wire.target(7) == 7
        targets = [1, 2]
        assert wire.tier_targets(targets) is wire.targets(targets) is targets
    record = PLAIN.record(ENTRY)
    assert (record.namespace, record.facts) == ("support-bot", FACTS)
    assert (record.epoch, record.snap, record.stale_until, record.cost) == (4, 5, 3, 6)
    assert (record.created, record.fresh_until) == (1, 2)
    assert PLAIN.entry(record.envelope, "support-bot", ENTRY.key) == (ENTRY, "")


def test_compression_is_on_unless_it_is_not_wanted() -> None:
    compressed, plain = Wire().record(ENTRY), PLAIN.record(ENTRY)
    assert len(compressed.envelope) < len(plain.envelope) / 5
    # Either reads both.
    assert PLAIN.entry(compressed.envelope, "support-bot", ENTRY.key) == (ENTRY, "")
    assert Wire().entry(plain.envelope, "support-bot", ENTRY.key) == (ENTRY, "")


@pytest.mark.parametrize("compress", [False, True])
def test_a_sealed_record_shows_nothing_of_the_entry(compress: bool) -> None:
    wire = Wire(Secrecy(KEY, blinding=BLIND), compress=compress)
    record = wire.record(ENTRY)
    assert record.namespace is None
    assert record.facts is None
    everything = shown(record)
    for secret in (b"harbour", b"doc:7", b"support-bot", ENTRY.key, ENTRY.key[16:24]):
        assert secret not in everything
    assert wire.entry(record.envelope, "support-bot", ENTRY.key) == (ENTRY, "")
    # The same entry twice is not seen to be the same, but for its name and size.
    again = wire.record(ENTRY)
    assert again.key == record.key
    assert again.envelope[24:] != record.envelope[24:]


def test_searchable_shows_the_facts_alone() -> None:
    record = Wire(Secrecy(KEY, blinding=BLIND, searchable=True)).record(ENTRY)
    assert (record.namespace, record.facts) == ("support-bot", FACTS)
    assert b"tide tables" not in shown(record)
    assert ENTRY.key not in shown(record)


def test_rotation_without_downtime() -> None:
    """A new key reads everywhere, then writes, then the old one goes: nobody misses anything."""
    old = Wire(Secrecy({"old": KEY}))
    ready = Wire(Secrecy({"old": KEY, "new": OTHER_KEY}))
    moved = Wire(Secrecy({"old": KEY, "new": OTHER_KEY}, current="new"))
    new = Wire(Secrecy({"new": OTHER_KEY}))
    stages = [old, ready, moved, new]

    def reads(reader: Wire, writer: Wire) -> str:
        return reader.entry(writer.record(ENTRY).envelope, "support-bot", ENTRY.key)[1]

    for one, other in pairwise(stages):
        if (one, other) != (moved, new):
            assert reads(one, other) == reads(other, one) == ""
    # Dropped only when no process writes with the old one any more.
    assert reads(new, moved) == reads(moved, new) == ""
    assert reads(new, old) == reads(old, new) == "unknown_key"


def test_blinded_names_stay_when_keys_rotate() -> None:
    before = Wire(Secrecy({"old": KEY}, blinding=BLIND))
    after = Wire(Secrecy({"new": OTHER_KEY}, blinding=BLIND))
    assert before.tier_key(ENTRY.key) == after.tier_key(ENTRY.key) != ENTRY.key
    assert before.tier_target(7) == after.tier_target(7) != 7
    other = Wire(Secrecy(KEY, blinding=OTHER_KEY))
    assert other.tier_key(ENTRY.key) != before.tier_key(ENTRY.key)


def test_introduction_and_downgrade() -> None:
    plain, strict = PLAIN.record(ENTRY).envelope, Wire(Secrecy(KEY))
    introducing = Wire(Secrecy(KEY, accept_plain=True))
    sealed = introducing.record(ENTRY).envelope
    who = ("support-bot", ENTRY.key)
    assert introducing.entry(plain, *who) == introducing.entry(sealed, *who) == (ENTRY, "")
    assert strict.entry(plain, *who) == (None, "unsealed")
    assert strict.entry(sealed, *who) == (ENTRY, "")
    assert PLAIN.entry(sealed, *who) == (None, "no_key")


def test_records_of_other_questions_are_incidents() -> None:
    for wire in (PLAIN, Wire(Secrecy(KEY))):
        envelope = wire.record(ENTRY).envelope
        for namespace, key in (("other", ENTRY.key), ("support-bot", blake3(b"other").digest())):
            entry, reason = wire.entry(envelope, namespace, key)
            assert entry is None
            assert reason in INCIDENTS
    assert "checksum" not in INCIDENTS


@pytest.mark.parametrize("named", NAMED, ids=range(len(NAMED)))
def test_names_are_those_of_the_specification(named: dict[str, Any]) -> None:
    blinding = _core.Blinding(named["secret"])
    name, number = (
        tier_key(named["secret"], named["fingerprint"]),
        tier_target(named["secret"], named["target"]),
    )
    assert blinding.tier_key(named["fingerprint"]) == name
    assert blinding.tier_target(named["target"]) == number
    assert blinding.target(number) == named["target"]


def test_many_targets_go_there_and_back() -> None:
    wire = Wire(Secrecy(KEY, blinding=BLIND))
    for count in (0, 1, 63, 1000):
        targets = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(count)]
        blinded = wire.tier_targets(targets)
        assert list(wire.targets(blinded)) == targets
        assert len(set(blinded)) == count
        assert [wire.tier_target(target) for target in targets[:5]] == list(blinded)[:5]
        assert [wire.target(target) for target in blinded[:5]] == targets[:5]
    with pytest.raises(OverflowError):
        wire.tier_target(2**64)
    with pytest.raises(ValueError, match="32 bytes are needed, 3 were given"):
        wire.tier_key(b"abc")


@pytest.mark.parametrize(
    "facts",
    [
        b"\x93\x90\xc0" + b"\x91" * 100_000 + b"\xc0",  # nested without end
        b"\x91\xdd\xff\xff\xff\xff",  # four billion tags
        b"\xdf\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\xc1",
        b"\x91\x91\x07",
    ],
)
def test_facts_that_somebody_made_up_are_a_miss(facts: bytes) -> None:
    wire = _core.encode_envelope(
        kind=0, content_type=CONTENTS.index("bytes"), epoch=1, snap=1, created=1, fresh_until=2,
        stale_until=3, compute_micros=0, cost=0,
        fingerprint=ENTRY.key, namespace="n", facts=facts, payload=b"",
    )  # fmt: skip
    assert PLAIN.entry(wire, "n", ENTRY.key) == (None, "facts")


HOSTILE = """
import resource
from llmcache_fast._wire import PLAIN
from tests.golden.make_envelope_vectors import LARGEST, encode, record, refused, run

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmPeak")) << 10

sizes = (2**17 + 1, LARGEST, 2**32 - 1)
bombs = [encode(record(size=size, frame=run(b"a", 131072, declared=size))) for size in sizes]
# A window of 2 TiB, and of 128 MiB, for a frame of five bytes.
bombs += [
    encode(record(frame=b"\\x28\\xb5\\x2f\\xfd\\x80" + window + b"\\5\\0\\0\\0\\x29\\0\\0hello"))
    for window in (b"\\xf8", b"\\x88")
]
bombs += [data for _, data, _ in refused().values()]
PLAIN.entry(encode(record()), "default", bytes(range(32)))
before = peak()
for data in bombs * 3:
    entry, reason = PLAIN.entry(data, "default", bytes(range(32)))
    assert (entry is None) == bool(reason)
print(peak() - before)
"""


def test_hostile_records_take_no_more_of_the_process_than_the_limit() -> None:
    """Of the whole process, zstd's own memory included."""
    ran = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < _core.MAX_UNPACKED + (8 << 20)


FACET = Facet(blake3(b"p").digest(), bytes(16), "When is the harbour closed?", bytes(range(64)))
ASKED = ENTRY._replace(facts=msgspec.structs.replace(FACTS, semantic=FACET))


def test_a_record_tells_its_partition_and_nothing_else_of_the_facet() -> None:
    record = PLAIN.record(ASKED)
    assert record.partition == FACET.partition
    assert record.facts == FACTS
    assert PLAIN.entry(record.envelope, "support-bot", ENTRY.key) == (ASKED, "")
    assert PLAIN.record(ENTRY).partition is None


def test_a_sealed_facet_shows_nothing() -> None:
    wire = Wire(Secrecy(KEY, blinding=BLIND), compress=False)
    record = wire.record(ASKED)
    assert record.partition == wire.tier_key(FACET.partition) == tier_key(BLIND, FACET.partition)
    everything = shown(record)
    for secret in (b"harbour", FACET.partition, FACET.vector, FACET.vector[:16], ENTRY.key):
        assert secret not in everything
    assert wire.entry(record.envelope, "support-bot", ENTRY.key) == (ASKED, "")
    # Bound to namespace and fingerprint, as all of the record is.
    assert wire.entry(record.envelope, "other", ENTRY.key) == (None, "unauthentic")
    assert wire.entry(record.envelope, "support-bot", bytes(32)) == (None, "unauthentic")
