"""The recorded head of a response."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast.integrations.wire.head import Head, decode_head, encode_head, live_headers, shared_headers

HEADERS = [
    (b"Content-Type", b"application/json"),
    (b"Content-Encoding", b"gzip"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Set-Cookie", b"a=1"),
    (b"Date", b"now"),
    (b"Retry-After", b"3"),
    (b"X-RateLimit-Remaining-Tokens", b"5"),
    (b"anthropic-ratelimit-requests-limit", b"5"),
    (b"x-request-id", b"r"),
]


def names(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    return {name.lower() for name, _ in headers}


def test_who_gets_which_header() -> None:
    live = live_headers(HEADERS)
    assert names(HEADERS) - names(live) == {b"content-encoding", b"transfer-encoding"}
    assert b"content-encoding" in names(live_headers(HEADERS, keep_framing=True))
    assert names(shared_headers(live, 200)) == {b"content-type", b"x-request-id"}
    assert names(live) - names(shared_headers(live, 429)) == {b"set-cookie"}


def test_round_trip() -> None:
    assert decode_head(encode_head(200, HEADERS)) == Head(1, 200, HEADERS)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_a_value_error(data: bytes) -> None:
    try:
        head = decode_head(data)
    except ValueError:
        return
    assert head == Head(1, head.status, head.headers)


def test_other_versions_and_impossible_statuses_are_refused() -> None:
    for head in (Head(2, 200, []), Head(1, 99, []), Head(1, 1000, [])):
        with pytest.raises(ValueError, match="not a recorded response head"):
            decode_head(msgspec.msgpack.encode(head))
