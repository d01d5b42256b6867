"""What tiers tell each other: one form for each message, and everything else is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llmcache_fast.tiers import messages
from llmcache_fast.tiers.base import MAX_TOLD, Message

WORD = st.integers(0, 2**64 - 1)
SEQS = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)).filter(lambda pair: pair[0] < pair[1])
MESSAGES = st.builds(
    lambda namespace, epoch, seqs, targets: Message(namespace, epoch, seqs[0], seqs[1], targets),
    *(WORD, WORD, SEQS, st.none() | st.lists(WORD, max_size=20).map(tuple)),
)
EXAMPLE = Message(7, 2**64 - 1, 9, 10, (1, 2**63))
BYTES = b"1:0000000000000007:ffffffffffffffff:9:10:00000000000000018000000000000000"


def bent(message: Message, place: int, put: bytes) -> bytes:
    """The bytes of a message with a part of them replaced."""
    data = messages.encode(message)
    place %= len(data)
    return data[:place] + put + data[place + len(put) :]


ODD = st.binary(min_size=1, max_size=3) | st.sampled_from([b"*", b":", b"0", b"+", b" ", b"_", b"A", b"\n"])
HOSTILE = st.binary(max_size=200) | st.builds(bent, MESSAGES, st.integers(0, 500), ODD)


def test_the_form_is_the_one_written_down() -> None:
    assert messages.encode(EXAMPLE) == BYTES
    assert messages.encode(EXAMPLE._replace(targets=None)) == BYTES[:41] + b"*"
    assert messages.encode(EXAMPLE._replace(targets=())) == BYTES[:41]


def test_what_is_too_much_is_not_told() -> None:
    most = tuple(range(MAX_TOLD))
    longest = messages.encode(Message(0, 0, 2**63 - 2, 2**63 - 1, most))
    assert len(longest) < 8000, "PostgreSQL takes no longer notification"
    assert messages.decode(longest) == Message(0, 0, 2**63 - 2, 2**63 - 1, most)
    assert messages.told((*most, 1)) == messages.told([1], [b"a rule"]) == messages.UNTOLD
    assert messages.decode(longest + b"0" * 16) is None


@given(MESSAGES)
def test_a_message_comes_back(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def has_one_form(decode: Callable[[bytes], Message | None], payload: bytes) -> bool:
    """Whether the bytes are no message, or just those of the message."""
    found = decode(payload)
    return found is None or messages.encode(found) == payload


@given(HOSTILE)
def test_a_message_has_one_form(payload: bytes) -> None:
    assert has_one_form(messages.decode, payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        BYTES + b"\n",
        BYTES[:-1],
        BYTES.upper(),
        BYTES.replace(b"1:", b"2:", 1),
        BYTES.replace(b":9:", b":09:"),
        BYTES.replace(b":9:", b":10:"),
        BYTES.replace(b":9:", b":-1:"),
        BYTES.replace(b":10:", b":9223372036854775808:"),
        BYTES.replace(b":10:", b":1_0:"),
        BYTES[:41] + b"**",
        BYTES.replace(b":9:", ":\N{ARABIC-INDIC DIGIT NINE}:".encode()),
        bytes(1 << 20),
    ],
)
def test_what_is_no_message_is_none(payload: bytes) -> None:
    assert messages.decode(payload) is None


def lax(payload: bytes) -> Message | None:
    """A decoder with a planted bug: it takes numbers as `int` does."""
    try:
        _, namespace, epoch, prev, seq, named = payload.split(b":")
        message = Message(int(namespace, 16), int(epoch, 16), int(prev), int(seq), None)
    except ValueError:
        return None
    return message if named == b"*" else None


def test_the_search_notices_a_decoder_that_takes_more() -> None:
    @given(HOSTILE)
    @settings(max_examples=2_000, phases=[Phase.generate])
    def search(payload: bytes) -> None:
        assert has_one_form(lax, payload)

    with pytest.raises(AssertionError):
        search()
