"""Hostile bytes: whatever is done to a record, it is read as what was written or not at all."""

from __future__ import annotations

from typing import NamedTuple

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast._entry import Entry, Facts
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._wire import Wire

KEYS = {"one": bytes(range(100, 132)), "two": bytes(range(132, 164))}
TEXT = "The harbour office publishes the tide tables every quarter. " * 20


class Question(NamedTuple):
    """What a record can answer, and how it was written."""

    namespace: str
    number: int
    epoch: int
    key: str | None
    compress: bool

    def entry(self) -> Entry:
        fingerprint = blake3(f"{self.namespace}/{self.number}".encode()).digest()
        payload = f"{self.number} of {self.namespace}: {TEXT}"
        return Entry(fingerprint, self.namespace, "text", payload, Facts(("t",)), 1, 2, 3, self.epoch, 5, 6)

    def wire(self, *, accept_plain: bool = False) -> Wire:
        if self.key is None:
            return Wire(compress=self.compress)
        return Wire(Secrecy(KEYS, current=self.key, accept_plain=accept_plain), compress=self.compress)

    def record(self) -> bytes:
        return self.wire().record(self.entry()).envelope


questions = st.builds(
    Question,
    st.sampled_from(["a", "b", "ab", ""]),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([None, "one", "two"]),
    st.booleans(),
)


@st.composite
def damage(draw: st.DrawFn, record: bytes, other: bytes) -> bytes:
    """The record, cut, lengthened, changed, or with a stretch of another in it."""
    data = bytearray(record)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "cut", "add", "swap", "splice", "remove"])):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at:]
            case "add":
                data += draw(st.binary(min_size=1, max_size=20))
            case "swap":
                end = draw(st.integers(at, at + 120))
                data[at:end] = other[at:end]
            case "splice":
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case _:
                del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


@given(st.data(), questions, questions)
def test_damaged_and_mixed_records_are_misses(data: st.DataObject, one: Question, two: Question) -> None:
    records = [one.record(), two.record()]
    candidate = data.draw(damage(*records))
    for question in (one, two):
        asked = question.entry()
        for wire in (
            question.wire(),
            one._replace(key="one").wire(accept_plain=True),
            one._replace(key=None).wire(),
        ):
            entry, reason = wire.entry(candidate, asked.namespace, asked.key)
            if entry is None:
                assert reason
            else:
                assert candidate in records
                assert entry in (one.entry(), two.entry())
                assert (entry.key, entry.namespace) == (asked.key, asked.namespace)


@given(questions, questions)
def test_a_record_answers_its_own_question_alone(writer: Question, reader: Question) -> None:
    asked = reader.entry()
    entry, reason = reader.wire().entry(writer.record(), asked.namespace, asked.key)
    same = (writer.namespace, writer.number) == (reader.namespace, reader.number)
    sealed, keys = writer.key is not None, reader.key is not None
    if sealed != keys:
        assert (entry, reason) == (None, "no_key" if sealed else "unsealed")
    elif same:
        assert (entry, reason) == (writer.entry(), "")
    else:
        assert entry is None
        assert reason == "unauthentic" if sealed else reason in {"wrong_namespace", "wrong_fingerprint"}


@given(st.data(), questions.filter(lambda question: question.key is not None), st.integers(0, 3))
def test_no_field_in_clear_can_be_changed(data: st.DataObject, one: Question, field: int) -> None:
    """Flags, epoch, key id and salt stand in clear; the seal covers them."""
    start, end = [(6, 8), (8, 16), (16, 24), (24, 48)][field]
    record = one.record()
    value = data.draw(st.binary(min_size=end - start, max_size=end - start))
    changed = record[:start] + value + record[end:]
    asked = one.entry()
    entry, reason = one.wire().entry(changed, asked.namespace, asked.key)
    assert (entry is None) == (changed != record)
    if changed != record:
        assert reason in {"flags", "unsealed", "unknown_key", "unauthentic"}
