"""Where a server's reply ends: what lets the proxy drop, double and swap whole replies.

Each function takes the bytes that have arrived and returns the length of the first whole reply, or None while
it is not whole. They are for well-formed streams of real servers: what is malformed raises `ValueError`.
"""

from __future__ import annotations

_LINES = b"+-:_,#("  # one line each
_BULKS = b"$!="  # a length, then as many bytes
_LISTS = b"*~>"  # a count, then as many values
_PAIRS = b"%|"  # a count, then twice as many values; an attribute (|) is followed by what it is of
_DEPTH = 64


def resp_reply(data: bytes | bytearray) -> int | None:
    """One value of the Redis protocol, RESP2 or RESP3 (https://redis.io/docs/reference/protocol-spec/)."""
    return _resp(data, 0, 0)


def _resp(data: bytes | bytearray, start: int, depth: int) -> int | None:
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, head, end = data[start], data[start + 1 : line], line + 2
    if kind in _LINES:
        return end
    if depth > _DEPTH:
        raise ValueError("values nested too deeply")
    if kind in _BULKS:
        size = int(head)
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else None
    if kind not in _LISTS and kind not in _PAIRS:
        raise ValueError(f"no RESP value begins with {bytes([kind])!r}")
    count = max(int(head), 0) * (2 if kind in _PAIRS else 1) + (kind == ord("|"))
    for _ in range(count):
        after = _resp(data, end, depth + 1)
        if after is None:
            return None
        end = after
    return end


_LAST = b"ZTnGWHEA"


def postgres_reply(data: bytes | bytearray) -> int | None:
    """The messages of PostgreSQL's protocol 3 up to one after which the client has the turn.

    That is ReadyForQuery, a request for authentication, the start of a copy, a notification, and
    RowDescription, NoData or an error: a driver that prepares a statement with Flush waits for these. (Where
    ReadyForQuery follows them, that is a reply of its own.) The answer to an SSL request has a single byte.
    """
    if data[:1] in (b"S", b"N") and (len(data) == 1 or data[1:2] == b"\x16"):
        return 1
    start = 0
    while len(data) >= start + 5:
        kind, size = data[start], int.from_bytes(data[start + 1 : start + 5], "big")
        if size < 4:
            raise ValueError(f"a message of {size} bytes")
        end = start + 1 + size
        if end > len(data):
            return None
        wants_answer = kind == ord("R") and int.from_bytes(data[start + 5 : start + 9], "big") not in (0, 12)
        if kind in _LAST or wants_answer:
            return end
        start = end
    return None


def is_of_a_statement(reply: bytes) -> bool:
    """Whether a reply of PostgreSQL is all that a prepared statement gave (it begins with BindComplete).

    Only such a reply may be doubled or swapped with that of another connection: asyncpg 0.32 ends with a
    segmentation fault when it gets the answers of another's set-up of a connection or a statement, and that
    must not happen to the process of the tests.
    """
    return reply[:1] == b"2"
