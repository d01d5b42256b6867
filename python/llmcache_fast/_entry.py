"""Entries and results: what is stored with its facts, and what a caller gets.

What belongs here: the values themselves and their wire form. What does not: deciding anything about them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from llmcache_fast import _core
from llmcache_fast._options import UNSET, Seconds, Unset
from llmcache_fast._usage import Usage

T = TypeVar("T")

Status: TypeAlias = Literal["hit", "stale", "miss", "joined", "bypass", "semantic"]
Content: TypeAlias = Literal["bytes", "text", "json", "msgpack", "stream"]

CONTENTS: tuple[Content, ...] = ("bytes", "text", "json", "msgpack", "stream")
"""In the order of their numbers in the envelope."""

NEVER: int = 2**63 - 1
"""The absolute time of what never expires."""

VALUE = 0
"""The envelope's kind of a stored response."""


class Computed(msgspec.Struct, Generic[T], frozen=True):
    """What a computation may return in place of its bare value, to decide after the fact.

    Each field but the first overrides what the call said; `tags` are added to the call's. `cost` is in
    micro-USD; without it, it is taken from `usage` and `model` by the cache's price table.
    """

    value: T
    ttl: Seconds | Unset | None = UNSET
    tags: tuple[str, ...] | list[str] = ()
    usage: Usage | None = None
    model: str | None = None
    cost: int | None = None
    store: bool = True


PARTITION = 32
SPACE = 16
"""Bytes of a facet's names."""


class Facet(msgspec.Struct, frozen=True, array_like=True):
    """What an entry can be found by when the same is asked in other words. It shows no text.

    Raises:
        ValueError: of another size than it says here.
    """

    partition: bytes
    """32 bytes: of the request without its last user text. Entries of two partitions never meet."""
    space: bytes
    """16 bytes: which embedder made the vector, at which precision. Vectors of two spaces do not compare."""
    text: str
    """The question."""
    vector: bytes
    """Of unit length, float16, little-endian; empty where the holder does without."""

    def __post_init__(self) -> None:
        if len(self.partition) != PARTITION or len(self.space) != SPACE or len(self.vector) % 2:
            raise ValueError("a facet has 32 bytes of partition, 16 of space and a vector of float16")

    def __repr__(self) -> str:
        return f"Facet(text of {len(self.text)} characters, vector of {len(self.vector) // 2})"


class Facts(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The facts of an entry that no decision on the hit path needs; packed beside it in every tier."""

    tags: tuple[str, ...] = ()
    label: str | None = None
    depends_on: tuple[str, ...] = ()
    model: str | None = None
    usage: Usage | None = None
    compute_micros: int = 0
    semantic: Facet | None = None


class Entry(NamedTuple):
    """A stored response. Times are microseconds since 1970."""

    key: bytes
    namespace: str
    content: Content
    payload: bytes | str
    facts: Facts
    created: int
    fresh_until: int
    stale_until: int
    epoch: int
    snap: int
    cost: int


Stage: TypeAlias = Literal["guards", "verifier", "budget", "judge", "blocked", "accepted"]
"""The stage at which it was decided. `guards`: a difference that changes what is asked; `verifier`: too
unlike; `budget`: like enough, but not shown to be safe yet; `judge`: the judge refused; `blocked`:
reported as wrong."""


class SemanticMatch(msgspec.Struct, frozen=True, kw_only=True):
    """The stored question that came nearest to being the same, and what was thought of it. Holds no text."""

    served: bool
    """Whether its answer is the value of this result."""
    stage: Stage
    cosine: float
    """Of the two texts' vectors, -1 to 1."""
    score: float
    """How likely both ask the same, by the verifier: 0 to 1."""
    guards: tuple[str, ...] = ()
    """The guards that objected; `llmcache_fast._core.GUARDS` are all of them."""
    fingerprint: bytes
    """Of the entry it belongs to."""
    namespace: str
    partition: bytes
    pair: bytes
    """What names the two questions, whichever of them was asked."""


class CacheResult(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A value with where it came from."""

    value: T
    status: Status
    """`hit`, `stale`, `miss` (computed for this call), `joined` (another's computation), `bypass`,
    `semantic` (the answer to another request that asks the same)."""
    tier: str | None = None
    """`memory`, `disk`, ... for what was found; None for what was computed."""
    fingerprint: bytes
    age: float = 0.0
    """Seconds since the value was computed."""
    saved: float = 0.0
    """USD that this call did not cost; 0 when unknown, and for a miss."""
    superseded: bool = False
    """An invalidation came while this was computed: the value was not stored."""
    unverified: bool = False
    """The authority was not heard for longer than `coherence_lease`: another process may have invalidated
    what was found. Never of what was computed for the call."""
    model: str | None = None
    usage: Usage | None = None
    tags: tuple[str, ...] = ()
    semantic: SemanticMatch | None = None
    """The nearest stored question, if one was looked for and found: served, or why not."""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What an invalidation would cover: entries that could be served now."""

    memory: int = 0
    buffered: int = 0
    tiers: dict[str, int] = {}
    unreadable: int = 0
    unfinished: dict[str, str] = {}
    """By tier why the count is a part of the truth."""


class Invalidation(msgspec.Struct, frozen=True, kw_only=True):
    """What an invalidation did."""

    seq: int
    """The namespace's clock after it."""
    deferred: bool = False
    """The authority could not be told yet: it holds in this process, and is delivered later."""
    superseded: int = 0
    """Running computations whose values will not be stored."""
    covered: Coverage | None = None
    """Of a dry run: what it would cover. Nothing was invalidated."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did, in entries or writes that were deleted."""

    seq: int
    """The namespace's clock after the invalidation."""
    deferred: bool = False
    """The authority could not be told yet: the invalidation holds in this process, and is delivered later."""
    superseded: int = 0
    """Running computations whose values will not be stored."""
    memory: int = 0
    buffered: int = 0
    """Writes on their way to a tier."""
    journal: int = 0
    """Writes that the journal alone held."""
    dead_letters: int = 0
    tiers: dict[str, int] = {}
    unreadable: int = 0
    """Records met that could not be judged, such as those sealed by a key that is not in the ring. They are
    left, and nobody without the key can read them either."""
    elsewhere: int = 0
    """Records in the journals of other living processes that share the folder: they forget them themselves,
    within a minute or two of hearing of the invalidation. Until then, erasing again counts them again."""
    unfinished: dict[str, str] = {}
    """By place why not all of it could be looked at."""

    @property
    def finished(self) -> bool:
        """Whether every place was looked at to its end, and no living process holds any of it in its journal.
        If not, nothing of it is answered any more all the same: erase again later."""
        return not (self.unfinished or self.elsewhere or self.deferred)


_NOT_OURS = (ValueError, RecursionError)
"""What decoders raise at bytes that somebody made up; the last at what is nested without end."""
_encode_facts = msgspec.msgpack.Encoder().encode
_NOTHING = Facts()
_NO_FACTS = _encode_facts(_NOTHING)
_decode_facts = msgspec.msgpack.Decoder(Facts).decode
_decode_json = msgspec.json.Decoder().decode
_SIX = b"\x96"
"""How MessagePack begins an array of six."""


def _read_json(payload: bytes) -> None:
    try:
        _decode_json(payload)
    except msgspec.DecodeError:
        json.loads(payload)  # pydantic may be told to write NaN and infinities, which this reads


_READ: dict[str, Callable[[bytes], Any]] = {
    "json": _read_json,
    "msgpack": msgspec.msgpack.Decoder().decode,
    "stream": msgspec.msgpack.Decoder(tuple[bytes, list[bytes]]).decode,
}


def pack_facts(facts: Facts) -> bytes:
    """The packed form, as it stands in envelopes; nothing at all for facts that say nothing."""
    if facts is _NOTHING:
        return b""
    packed = _encode_facts(facts)
    if facts.semantic is not None:
        return packed
    # As it was before there were facets: the encoder writes the nil at the end of an array.
    return b"" if packed == _NO_FACTS else _SIX + packed[1:-1]


def unpack_facts(packed: bytes) -> Facts:
    """The facts of a packed form.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _decode_facts(packed) if packed else _NOTHING


def without_vector(facts: Facts) -> Facts:
    """The facts as memory keeps them: a vector is in the index, and not there twice."""
    facet = facts.semantic
    if facet is None or not facet.vector:
        return facts
    return msgspec.structs.replace(facts, semantic=msgspec.structs.replace(facet, vector=b""))


def unpack_for_memory(packed: bytes) -> tuple[Facts, bytes]:
    """The facts of a packed form, and the packed form that memory keeps.

    Raises:
        msgspec.DecodeError: it is none.
    """
    facts = unpack_facts(packed)
    kept = without_vector(facts)
    return kept, packed if kept is facts else pack_facts(kept)


def to_envelope(entry: Entry, *, compress: bool = False, keyring: _core.Keyring | None = None) -> bytes:
    """The entry's wire form (`docs/reference/envelope.md`), sealed if there are keys.

    Raises:
        ValueError: a part that does not fit: 64 KiB of namespace, 4 GiB of payload.
    """
    payload = entry.payload.encode() if isinstance(entry.payload, str) else entry.payload
    return _core.encode_envelope(
        kind=VALUE,
        content_type=CONTENTS.index(entry.content),
        epoch=entry.epoch,
        snap=entry.snap,
        created=entry.created,
        fresh_until=entry.fresh_until,
        stale_until=entry.stale_until,
        compute_micros=entry.facts.compute_micros,
        cost=entry.cost,
        fingerprint=entry.key,
        namespace=entry.namespace,
        facts=pack_facts(entry.facts),
        payload=payload,
        compress=compress,
        keyring=keyring,
    )


def from_envelope(
    data: bytes, namespace: str, key: bytes, *, keyring: _core.Keyring | None = None
) -> tuple[Entry | None, str]:
    """The entry of a wire form, or None and why not. Hostile bytes raise nothing (I9)."""
    parts, reason = _core.decode_entry(data, namespace, key, keyring)
    if parts is None:
        return None, reason
    number, payload, packed, created, fresh_until, stale_until, epoch, snap, cost = parts
    content = CONTENTS[number]
    try:
        facts = unpack_facts(packed)
    except _NOT_OURS:
        return None, "facts"
    try:
        # Who can write to a store can make up a record that is whole and holds no value: seen here, it is a
        # miss; seen by the caller it would be an exception.
        if isinstance(payload, bytes) and content != "bytes":
            _READ[content](payload)
    except _NOT_OURS:
        return None, "payload"
    # By position: every read of a lower tier comes by here, and names cost it a microsecond.
    return (
        Entry(
            key,
            namespace,
            content,
            payload,
            facts,
            created,
            fresh_until,
            stale_until,
            epoch,
            snap,
            cost,
        ),
        "",
    )


class Seen(NamedTuple):
    """What a record says of itself to one who walks through a tier. Times are microseconds since 1970."""

    key: bytes
    """The fingerprint, whatever the tier calls it."""
    namespace: str
    facts: Facts
    epoch: int
    snap: int
    created: int
    fresh_until: int
    stale_until: int


def examine(data: bytes, *, keyring: _core.Keyring | None = None) -> tuple[Seen | None, str]:
    """The facts of a wire form that was met and not asked for, or None and why not; never for an answer (I9).

    Plain records are read whatever the keys. Hostile bytes raise nothing. Cost: a hash over the record, or
    its decryption; no payload is unpacked.
    """
    found, reason = _core.examine_envelope(data, keyring)
    if found is None:
        return None, reason
    key, namespace, packed, *numbers = found
    try:
        return Seen(key, namespace, unpack_facts(packed), *numbers), ""
    except _NOT_OURS:
        return None, "facts"


def stored_form(entry: Entry) -> Any:
    """What L1 holds for the entry: the payload itself where a caller gets it as it is."""
    payload = entry.payload
    if entry.content in ("bytes", "text") or isinstance(payload, str):
        return payload
    return _core.Encoded(payload, entry.content, "value")


def of_stored_form(value: Any) -> tuple[Content, bytes | str]:
    """Content type and payload of what L1 holds."""
    if isinstance(value, _core.Encoded):
        return value.content, value.payload
    return ("text" if isinstance(value, str) else "bytes"), value
