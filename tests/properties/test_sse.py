"""The scanner of server-sent events against a plain reading of the standard, over arbitrary cuts."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast.integrations.wire.sse import SseEvent, SseScanner

LINES = st.one_of(
    st.sampled_from(
        [b"", b"", b"data", b"data:", b"event: e", b"event:", b": comment", b"id: 1", b"retry: 5"]
    ),
    st.binary(max_size=12).map(lambda tail: b"data: " + re.sub(rb"[\r\n]", b".", tail)),
    st.binary(max_size=6).map(lambda line: re.sub(rb"[\r\n]", b".", line)),
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=25).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def whole(stream: bytes) -> list[SseEvent]:
    """The events of a complete stream, read the slow and obvious way."""
    events: list[SseEvent] = []
    name = b""
    data: list[bytes] = []
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines[:-1]:
        if line == b"":
            if data:
                events.append(SseEvent(name, b"\n".join(data)))
            name, data = b"", []
            continue
        match = re.fullmatch(rb"([^:]*):? ?(.*)", line, re.DOTALL)
        assert match is not None
        field, value = match.groups()
        if b":" not in line:
            field, value = line, b""
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + draw(STREAMS)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    return stream, [stream[a:b] for a, b in pairwise(edges)]


@given(cut_streams())
def test_any_cut_gives_the_events_of_the_whole(case: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = case
    scanner = SseScanner()
    assert [event for chunk in chunks for event in scanner.feed(chunk)] == whole(stream)


@given(cut_streams())
def test_byte_by_byte_gives_the_events_of_the_whole(case: tuple[bytes, list[bytes]]) -> None:
    stream, _ = case
    scanner = SseScanner()
    assert [event for n in range(len(stream)) for event in scanner.feed(stream[n : n + 1])] == whole(stream)


@given(cut_streams())
def test_an_event_is_out_as_soon_as_its_blank_line_is_in(case: tuple[bytes, list[bytes]]) -> None:
    stream, _ = case
    scanner = SseScanner()
    seen = 0
    for n in range(len(stream)):
        seen += len(scanner.feed(stream[n : n + 1]))
        # A CR ends its line by itself; whether an LF follows changes nothing about what came before.
        assert seen == len(whole(stream[: n + 1] if stream[n : n + 1] != b"\r" else stream[: n + 1] + b"\n"))


def test_finish_gives_the_event_without_its_blank_line() -> None:
    for tail in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r"):
        scanner = SseScanner()
        assert scanner.feed(b"data: a\n\n" + tail) == [SseEvent(b"", b"a")]
        assert scanner.finish() == [SseEvent(b"", b"[DONE]")]
        assert scanner.finish() == []


def test_an_endless_event_is_bounded_and_keep_alives_are_free() -> None:
    scanner = SseScanner(limit=100)
    for _ in range(1000):
        assert scanner.feed(b": keep-alive\n") == []
    kept = scanner.overflowed
    assert not kept
    for _ in range(20):
        scanner.feed(b"data: 12345")
    assert scanner.overflowed
    assert scanner.feed(b"\n\n") == []
