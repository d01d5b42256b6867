"""The head of a recorded response: status and the headers worth replaying, as bytes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Facts about one connection, not about the response (RFC 9110, section 7.6.1)."""

FRAMING = frozenset({b"content-encoding", b"content-length"})
"""What no longer holds once the body has been decoded."""

OF_THE_MOMENT = frozenset(
    {
        b"age",
        b"alt-svc",
        b"cf-cache-status",
        b"cf-ray",
        b"date",
        b"nel",
        b"openai-processing-ms",
        b"report-to",
        b"retry-after",
        b"server-timing",
        b"set-cookie",
        b"strict-transport-security",
        b"x-envoy-upstream-service-time",
        b"x-should-retry",
    }
)
"""What was true of the first call alone."""

_RATE_LIMITS = (b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit", b"x-llmcache")


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Status and headers of a response, as every reader but the first gets them."""

    version: int
    status: int
    headers: Headers


def live_headers(headers: Iterable[tuple[bytes, bytes]], *, keep_framing: bool = False) -> Headers:
    """The headers for the caller whose request went upstream: all but those of the connection."""
    dropped = HOP_BY_HOP if keep_framing else HOP_BY_HOP | FRAMING
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def shared_headers(headers: Headers, status: int) -> Headers:
    """The headers for everyone else. An error keeps what tells a client when to come back."""
    if status != 200:
        return [(name, value) for name, value in headers if name.lower() != b"set-cookie"]
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in OF_THE_MOMENT and not name.lower().startswith(_RATE_LIMITS)
    ]


def encode_head(status: int, headers: Headers) -> bytes:
    """The head as bytes."""
    return _ENCODER.encode(Head(1, status, headers))


def decode_head(data: bytes) -> Head:
    """The head from bytes; ValueError (of msgspec) when they are not one, or of another version."""
    head = _DECODER.decode(data)
    if head.version != 1 or not 100 <= head.status <= 599:
        raise ValueError("not a recorded response head of version 1")
    return head


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Head)
