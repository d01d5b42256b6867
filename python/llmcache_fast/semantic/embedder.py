"""What an embedder is, which vectors may be compared, and what a vector must be.

Inside the package a vector is `bytes`: little-endian float32 of unit length, so a product of two is their
cosine. What does not belong here: asking an embedder (`embedding`), and any library for arrays.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from llmcache_fast._errors import ConfigurationError, EmbeddingError

MAX_DIMENSION = 65_536

_NEAR = 1e-4
"""A vector this near to unit length is left as it came. The index keeps halves, which are coarser."""
_FORMATS = {"e": 2, "f": 4, "d": 8}


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of texts. Texts that mean the same should get vectors that point the same way."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def version(self) -> str:
        """Which of that name. Another text whenever the same text may get another vector."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    async def embed(self, texts: Sequence[str]) -> Any:
        """A vector for each text, in their order: a buffer of floats of the shape `[len(texts), dimension]`
        (a numpy array, say) or a sequence of sequences of floats. Their length does not matter.

        A text that cannot have one gets zeros. Any exception means that none of them got one.
        """
        ...


def space_of(embedder: Embedder) -> bytes:
    """16 bytes that name the space its vectors are in: those of different spaces are never compared.

    An embedder may say by an attribute `precision` how exactly it computes (`float32` if it has none): an
    8-bit model and its original are two spaces.

    Raises:
        ConfigurationError: it is no embedder.
    """
    check(embedder)
    digest = hashlib.blake2b(digest_size=16, person=b"llmcache.space")
    precision = str(getattr(embedder, "precision", "float32"))
    for part in (embedder.name, embedder.version, str(embedder.dimension), precision):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def check(embedder: Embedder) -> None:
    """Raise a `ConfigurationError` unless it has what an embedder needs."""
    kind = type(embedder).__name__
    for field in ("name", "version"):
        value = getattr(embedder, field, None)
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{kind}.{field}: must be a text that is not empty")
    dimension = getattr(embedder, "dimension", None)
    if type(dimension) is not int or not 1 <= dimension <= MAX_DIMENSION:
        raise ConfigurationError(f"{kind}.dimension: must be an integer from 1 to {MAX_DIMENSION}")
    if not callable(getattr(embedder, "embed", None)):
        raise ConfigurationError(f"{kind}.embed: must be an async method that takes a list of texts")


def vectors_of(result: Any, count: int, embedder: Embedder) -> list[bytes | None]:
    """The vectors in what `embed` returned for `count` texts; None for one that is no direction: zeros, a NaN
    or an infinity among them.

    Raises:
        EmbeddingError: `invalid`: other texts may have got these vectors, for their number or their dimension
            is wrong, or they are no floats.
    """
    if not count:
        return []  # an empty array may have any shape
    rows = _rows_of_buffer(result, count, embedder)
    if rows is None:
        rows = _rows_of_sequence(result, count, embedder)
    return [_direction(row, embedder.dimension) for row in rows]


def _rows_of_buffer(result: Any, count: int, embedder: Embedder) -> list[bytes] | None:
    try:
        view = memoryview(result)
    except TypeError:
        return None
    shape = (count, embedder.dimension)
    if view.shape != shape:
        raise _invalid(embedder, f"returned an array of the shape {view.shape}, not {shape}")
    packed = _packed(view, embedder)
    size = 4 * embedder.dimension
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def _rows_of_sequence(result: Any, count: int, embedder: Embedder) -> list[bytes]:
    try:
        rows = list(result)
    except TypeError:
        raise _invalid(embedder, f"returned {type(result).__name__}, not an array of floats") from None
    if len(rows) != count:
        raise _invalid(embedder, f"returned {len(rows)} vectors for {count} texts")
    return [_row(row, embedder) for row in rows]


def _row(row: Any, embedder: Embedder) -> bytes:
    try:
        packed = _packed(memoryview(row), embedder)
    except TypeError:
        try:
            values = [float(value) for value in row]
        except (TypeError, ValueError, OverflowError):
            text = f"returned a vector of the type {type(row).__name__}, not of floats"
            raise _invalid(embedder, text) from None
        packed = _as_floats(values)
    if len(packed) != 4 * embedder.dimension:
        text = f"returned a vector of {len(packed) // 4} numbers, not {embedder.dimension}"
        raise _invalid(embedder, text)
    return packed


def _packed(view: memoryview, embedder: Embedder) -> bytes:
    """Its numbers as little-endian float32."""
    order, code = (view.format[0], view.format[1:]) if len(view.format) == 2 else ("=", view.format)
    if code not in _FORMATS:
        text = f"returned numbers of the type {view.format!r}, not floats of 2, 4 or 8 bytes"
        raise _invalid(embedder, text)
    order = "=" if order == "@" else order
    raw = view.tobytes()
    count = len(raw) // _FORMATS[code]
    if code == "f" and struct.pack(f"{order}f", 1.0) == struct.pack("<f", 1.0):
        return raw
    return _as_floats(struct.unpack(f"{order}{count}{code}", raw))


def _as_floats(values: Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError:  # what no float32 holds is as good as infinite
        return struct.pack(f"<{len(values)}f", *[math.inf] * len(values))


def _direction(packed: bytes, dimension: int) -> bytes | None:
    values = struct.unpack(f"<{dimension}f", packed)
    length = math.hypot(*values)
    if not 0.0 < length < math.inf:  # a NaN is neither
        return None
    if abs(length - 1.0) <= _NEAR:
        return packed
    return struct.pack(f"<{dimension}f", *[value / length for value in values])


def _invalid(embedder: Embedder, text: str) -> EmbeddingError:
    return EmbeddingError(f"it {text}", embedder=embedder.name, reason="invalid")
