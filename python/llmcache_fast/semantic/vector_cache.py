"""Vectors of texts seen before, within a bound in bytes: the least recently used goes first.

It knows digests of texts and no text. What does not belong here: making vectors (`embedding`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

OVERHEAD = 200
"""Bytes of an entry beside its vector: the digest, the heads of two objects, its places in dict and order.
`tracemalloc` on CPython 3.11 showed 173 to 191, of a thousand to thirty thousand entries."""


def digest_of(text: str) -> bytes:
    """The key of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class VectorCacheStatistics:
    """Counts of a vector cache since its start."""

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int
    """What they take, their overhead included."""


class VectorCache:
    """Vectors by the digest of their text. For one event loop: it has no lock."""

    def __init__(self, max_bytes: int) -> None:
        """0 keeps nothing."""
        if max_bytes < 0:
            raise ValueError("max_bytes must be 0 or more")
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()
        self._hits = self._misses = self._evictions = 0

    def get(self, key: bytes) -> bytes | None:
        """The vector, which is then the most recently used; None if there is none."""
        vector = self._vectors.get(key)
        if vector is None:
            self._misses += 1
            return None
        self._hits += 1
        self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: bytes) -> None:
        """Keep it, in place of the least recently used ones."""
        before = self._vectors.pop(key, None)
        if before is not None:
            self._bytes -= len(before) + OVERHEAD
        self._vectors[key] = vector
        self._bytes += len(vector) + OVERHEAD
        while self._bytes > self._max_bytes:
            _, dropped = self._vectors.popitem(last=False)
            self._bytes -= len(dropped) + OVERHEAD
            self._evictions += 1

    def forget(self, key: bytes) -> None:
        """Drop one, for its text was erased."""
        dropped = self._vectors.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped) + OVERHEAD

    def clear(self) -> None:
        """Drop them all."""
        self._vectors.clear()
        self._bytes = 0

    def statistics(self) -> VectorCacheStatistics:
        return VectorCacheStatistics(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            entries=len(self._vectors),
            bytes=self._bytes,
        )
