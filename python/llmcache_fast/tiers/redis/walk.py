"""Walking through the records of a tier, server by server, with `SCAN`: never a command that takes long."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis.links import Server
from llmcache_fast.tiers.redis.replies import NAME, accepted, unexpected
from llmcache_fast.tiers.redis.values import HEAD

_STEP = 500
_PAGE_BYTES = 4 << 20
"""Of envelopes in one page, about."""
_FIRST_GUESS = 64 << 10
"""Bytes of an envelope, before the first page tells."""


class Walk:
    """Pages of records; how many fit into one is learned from those before.

    A page may be empty, and not the last: on a server shared with others, their keys are walked over too. A
    cursor says on which of the servers the walk is and where there. With other servers than it began with a
    walk fails (`cluster`): a successor knows nothing of the cursor. Not noticed are a restart of
    a server and a move of slots between two of them; who may miss nothing begins anew then.
    """

    def __init__(self, prefix: bytes) -> None:
        """`prefix` begins the Redis keys of all records; the fingerprint follows."""
        self._prefix = prefix
        self._pattern = escaped(prefix) + b"*"
        self._typical = float(_FIRST_GUESS)

    async def keys(self, server: Server, budget: float, operation: str) -> AsyncIterator[list[bytes]]:
        """The fingerprints of all records of a server, some at a time."""
        cursor = b"0"
        while True:
            cursor, found = await self._step(server, cursor, _STEP, budget, operation)
            yield found
            if cursor == b"0":
                return

    async def _step(
        self, server: Server, cursor: bytes, count: int, budget: float, operation: str
    ) -> tuple[bytes, list[bytes]]:
        """Where to go on (`b"0"`: nowhere), and fingerprints: those among some `count` keys of the server."""
        command = (b"SCAN", cursor, b"MATCH", self._pattern, b"COUNT", count)
        (reply,) = await server.exchange([command], budget, operation)
        match accepted(reply, operation):
            case [bytes(cursor), list(names)]:
                pass
            case _:
                unexpected(operation)
        size = len(self._prefix)
        return cursor, [name[size : size + 32] for name in names]

    async def page(
        self, servers: Sequence[Server], cursor: bytes | None, limit: int, closing: bytes, budget: float
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As `ScannableTier.scan`."""
        servers = sorted(servers, key=lambda server: str(server.address))
        layout = hashlib.sha256(" ".join(str(server.address) for server in servers).encode()).digest()[:8]
        place, at = _read(cursor, layout, len(servers))
        server = servers[place]
        count = max(1, min(limit, int(_PAGE_BYTES / self._typical)))
        at, keys = await self._step(server, at, count, budget, "scan")
        # One command each: in a cluster those of one server are of many slots.
        reads = [(b"GET", self._prefix + key + closing) for key in keys]
        replies = await server.exchange(reads, budget, "scan") if reads else []
        found = [
            (key, value[HEAD:])
            for key, reply in zip(keys, replies, strict=True)
            if isinstance(value := accepted(reply, "scan"), bytes) and value.startswith(b"R")
        ]
        if found:
            mean = sum(len(envelope) for _, envelope in found) / len(found)
            self._typical = max(mean, 0.9 * self._typical + 0.1 * mean, 1.0)
        if at == b"0":
            place += 1
        return found, b"%b:%d:%b" % (layout, place, at) if place < len(servers) else None


def _read(cursor: bytes | None, layout: bytes, count: int) -> tuple[int, bytes]:
    if cursor is None:
        return 0, b"0"
    words: list[Any] = cursor[9:].split(b":")
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        raise ValueError("the cursor is none that scan gave")
    if cursor[:8] != layout or int(words[0]) >= count:
        _moved()
    return int(words[0]), words[1]


def _moved() -> NoReturn:
    raise TierError(
        "the servers are others than when the walk began: begin anew",
        tier=NAME,
        operation="scan",
        reason="cluster",
    )


def escaped(text: bytes) -> bytes:
    """As a pattern of `SCAN` that matches just this."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in text)
