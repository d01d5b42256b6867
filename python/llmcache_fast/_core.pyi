from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer, disjoint_base

from llmcache_fast._entry import Computed
from llmcache_fast._errors import TierError
from llmcache_fast._options import Unset

__all__ = [
    "COLD_START_SCORE",
    "COSINE_FLOOR",
    "ENVELOPE_OVERHEAD",
    "ENVELOPE_VERSION",
    "FEATURES",
    "GUARDS",
    "MAX_UNPACKED",
    "SEALED_OVERHEAD",
    "Blinding",
    "Clock",
    "DeadLetters",
    "DiskStore",
    "Encoded",
    "Engine",
    "Envelope",
    "Journal",
    "Judgement",
    "Keyring",
    "Question",
    "VectorIndex",
    "VectorStatistics",
    "View",
    "canonical",
    "decode_entry",
    "decode_envelope",
    "encode_envelope",
    "examine_envelope",
    "fingerprint",
    "judge",
    "to_half",
]

_T = TypeVar("_T")
_D = TypeVar("_D")
_Seconds: TypeAlias = float | timedelta
_Extract: TypeAlias = Callable[[Any], tuple[str, Any] | None]
_Question: TypeAlias = tuple[str, Any] | Callable[[_Extract], tuple[str, Any] | None]

ENVELOPE_VERSION: int
ENVELOPE_OVERHEAD: int
SEALED_OVERHEAD: int
MAX_UNPACKED: int
COSINE_FLOOR: float
COLD_START_SCORE: float
FEATURES: tuple[str, ...]
GUARDS: tuple[str, ...]

@final
class DiskStore:
    """Records by fingerprint in one SQLite file, for `tiers.disk.DiskTier`. Blocking: call it in a thread.

    What a returned call wrote survives the death of the process. Errors are `TierError` and
    `TierUnavailableError`, with `reason`. Times are microseconds since 1970, sizes bytes, costs micro-USD.
    """

    def __new__(cls, path: str | Path, max_bytes: int, budget: float = 0.25) -> DiskStore: ...
    @property
    def path(self) -> Path: ...
    @property
    def created(self) -> bool: ...
    @property
    def set_aside(self) -> Path | None: ...
    @property
    def max_record(self) -> int: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The envelope of each 32-byte key, in order."""

    def put_many(
        self,
        records: Sequence[
            tuple[bytes, bytes, int, int, int, int] | tuple[bytes, bytes, int, int, int, int, bytes]
        ],
        now: int,
    ) -> tuple[int, int, int]:
        """Store `(key, envelope, epoch, snap, stale_until, cost)`s, some with a partition behind; counts of
        stored, superseded, refused."""

    def delete_many(self, keys: Sequence[bytes]) -> int: ...
    def purge(self, now: int, limit: int) -> int: ...
    def clear(self) -> int: ...
    def vacuum(self) -> int: ...
    def scrub(self) -> list[Path]:
        """Make what was deleted unreadable in the files; those set aside as damaged, which are left alone."""

    def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes],
        forget: Sequence[bytes],
        now: int,
    ) -> tuple[int, int, int]:
        """Epoch, seq, and the seq before. Those who follow are told."""

    def changes(
        self, asked: Sequence[tuple[int, int, int]], now: int
    ) -> list[tuple[int, int, list[tuple[int, int]], list[tuple[bytes, int]]]]:
        """`(epoch, seq, markers, rules)` of each namespace, since each `(namespace, epoch, seq)`."""

    def scan(self, after: int | None, limit: int) -> tuple[list[tuple[bytes, bytes]], int | None]:
        """`(key, envelope)`s, and where to go on."""

    def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int: ...
    def members(self, partition: bytes, after: int | None, limit: int) -> tuple[list[bytes], int | None]:
        """Keys of a partition that arrived after `after`, in that order; when the last of them did."""

    def check(self) -> list[str]: ...
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None: ...

@final
class VectorStatistics:
    """What a `VectorIndex` holds and did; `graphs` are partitions that are searched by walking a graph."""

    @property
    def vectors(self) -> int: ...
    @property
    def partitions(self) -> int: ...
    @property
    def graphs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def evicted(self) -> int: ...

@final
class VectorIndex:
    """Vectors of `dimension` numbers by partition and key (32 bytes each), nearest first, within `max_bytes`.

    A vector is a contiguous buffer of float32 or float16, little-endian, told apart by its bytes; only its
    direction counts. What is not one, or has no direction (zeros, NaN, infinity), raises `ValueError`, and an
    object that has no such numbers `TypeError`. A search sees its own partition alone. For room, partitions
    leave, least recently used first, and of the only one its oldest vectors. Methods detach from the
    interpreter and may be called by many threads; a forked child finds the index empty.
    """

    def __new__(cls, dimension: int, max_bytes: int) -> Self: ...
    @property
    def dimension(self) -> int: ...
    @property
    def used(self) -> int:
        """Bytes of memory that it takes."""

    def add(self, partition: bytes, key: bytes, vector: Buffer) -> bool:
        """Put a vector, in place of one of the same key; whether there was one. Up to a millisecond."""

    def remove(self, partition: bytes, key: bytes) -> bool: ...
    def drop_partition(self, partition: bytes) -> int: ...
    def search(
        self, partition: bytes, vector: Buffer, limit: int = 8, floor: float = ...
    ) -> list[tuple[bytes, float]]:
        """The `limit` (at most 256) nearest whose cosine is `floor` at least, `(key, cosine)`, best first."""

    def contains(self, partition: bytes, key: bytes) -> bool: ...
    def size(self, partition: bytes) -> int: ...
    def keys(self, partition: bytes) -> list[bytes]: ...
    def __len__(self) -> int: ...
    def clear(self) -> int: ...
    def statistics(self) -> VectorStatistics: ...
    def save(self, path: str | Path) -> None:
        """Write a snapshot, whole or not at all, in the clear, with mode 0600. Changes wait meanwhile."""

    @staticmethod
    def load(path: str | Path, max_bytes: int) -> VectorIndex:
        """The index of a snapshot but for what does not fit; `ValueError`: it is none, or damaged."""

_Fields: TypeAlias = tuple[bytes, bytes, int, int, int, int, int, int, str | None, bytes | None]

@final
class Journal:
    """One process's lane of a write-behind journal (`docs/reference/journal.md`).

    `append` and `done` touch memory alone; the others wait for the disk: call them in a thread. A record is
    durable when a `sync` called after its `append` returned its number, or a higher one, without an error.
    Errors are `TierError` and `TierUnavailableError`, with `reason`. A record is a `tiers.base.StoredRecord`
    whose facts are packed; `tiers` holds names of tiers, one a line, and bit n of a number stands for line n.
    """

    def __new__(cls, folder: str | Path, segment_bytes: int) -> Journal: ...
    @staticmethod
    def adopt(folder: str | Path, segment_bytes: int) -> tuple[list[Journal], list[TierError]]:
        """The lanes whose processes are gone, each given to one caller; the errors of unreadable ones."""

    @staticmethod
    def survey(folder: str | Path, own: Sequence[Path], matches: Callable[[bytes], bool]) -> int:
        """Of how many records in lanes of living processes, done or not, `matches(envelope)` is true; without
        those of the paths `own`. Reads all of their files: call it in a thread."""

    @property
    def path(self) -> Path: ...
    def append(self, record: tuple[Any, ...], facts: bytes | None, tiers: str) -> int: ...
    def done(self, sequences: Sequence[tuple[int, int]]) -> None: ...
    def sync(self) -> tuple[int, TierError | None]:
        """Write and sync what was appended: the last number of the group, and what went wrong with it."""

    def read(self, after: int, max_items: int, max_bytes: int) -> list[tuple[int, int, str, _Fields]]:
        """`(number, bits left, tiers, fields)` of synced records that are not done; empty: no more."""

    def compact(self) -> None:
        """Delete from the disk all that is done, by moving what is not."""

    def close(self) -> None: ...
    def leave(self) -> None: ...
    def recovery(self) -> dict[str, int]: ...
    def stats(self) -> dict[str, int]: ...

@final
class DeadLetters:
    """Records that a tier did not take, in two files of one folder, at most `max_bytes`. Blocking."""

    def __new__(cls, folder: str | Path, max_bytes: int) -> DeadLetters: ...
    def add(self, letters: Sequence[tuple[int, str, str, tuple[Any, ...], bytes | None]]) -> int:
        """Add `(at, reason, tier, record, packed facts)`s durably; how many older ones were given up."""

    def all(self) -> tuple[list[tuple[bytes, int, str, str, _Fields]], int]:
        """`(id, at, reason, tier, fields)`s, oldest first, and how many damaged places there were."""

    def remove(self, ids: Sequence[bytes]) -> int: ...

@final
class Envelope:
    """A decoded record; its fields are those of `docs/reference/envelope.md`."""

    @property
    def kind(self) -> int: ...
    @property
    def content_type(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def snap(self) -> int: ...
    @property
    def created(self) -> int: ...
    @property
    def fresh_until(self) -> int: ...
    @property
    def stale_until(self) -> int: ...
    @property
    def compute_micros(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def namespace(self) -> str: ...
    @property
    def facts(self) -> bytes: ...
    @property
    def payload(self) -> bytes: ...

def encode_envelope(
    *,
    kind: int,
    content_type: int,
    epoch: int,
    snap: int,
    created: int,
    fresh_until: int,
    stale_until: int,
    compute_micros: int,
    cost: int,
    fingerprint: bytes,
    namespace: str,
    facts: bytes,
    payload: bytes,
    compress: bool = False,
    keyring: Keyring | None = None,
) -> bytes:
    """The bytes of a record, format version 1. One copy of the payload and one pass over all of it.

    Raises:
        ValueError: a number or a length that the format cannot hold.
    """

def decode_entry(
    data: bytes, namespace: str, fingerprint: bytes, keyring: Keyring | None = None
) -> tuple[tuple[int, bytes | str, bytes, int, int, int, int, int, int] | None, str]:
    """As `decode_envelope`, of a stored response and without what its reader knows: content type, payload
    (text as `str`), packed facts, `created`, `fresh_until`, `stale_until`, epoch, snap, cost."""

def decode_envelope(
    data: bytes, namespace: str, fingerprint: bytes, keyring: Keyring | None = None
) -> tuple[Envelope | None, str]:
    """`(envelope, "")`, or `(None, reason)`. Raises nothing because of what `data` holds.

    Allocates the record's own size, and of a compressed payload what it declares, up to `MAX_UNPACKED`.
    """

def examine_envelope(
    data: bytes, keyring: Keyring | None = None
) -> tuple[tuple[bytes, str, bytes, int, int, int, int, int] | None, str]:
    """`((fingerprint, namespace, facts, epoch, snap, created, fresh_until, stale_until), "")`, or
    `(None, reason)`, of a record that is met on a walk through a tier. Never for an answer: nothing was
    asked, so nothing was compared. Raises nothing because of what `data` holds; unpacks nothing.
    """

@final
class Keyring:
    """Keys of 32 bytes that seal and open records; the first seals. It shows none of them.

    Raises:
        ValueError: no key, one twice, or one of another length.
    """

    def __new__(cls, keys: Sequence[bytes], *, accept_plain: bool = False) -> Keyring: ...
    @property
    def current_id(self) -> str: ...

@final
class Blinding:
    """What tiers see in place of fingerprints and invalidation targets, from a secret of 32 bytes.

    Raises:
        ValueError: a secret or a fingerprint of another length.
    """

    def __new__(cls, key: bytes) -> Blinding: ...
    def tier_key(self, fingerprint: bytes) -> bytes: ...
    def tier_target(self, target: int) -> int: ...
    def tier_targets(self, targets: Sequence[int]) -> list[int]: ...
    def target(self, blinded: int) -> int: ...
    def targets(self, blinded: Sequence[int]) -> list[int]: ...

def canonical(
    request: Any,
    namespace: str = "default",
    profile: str = "generic",
    variant: str | int | None = None,
    normalize: Literal["NFC"] | None = None,
) -> bytes: ...
def to_half(vector: Buffer) -> bytes:
    """A vector of float32 as float16 of length one, little-endian: how records keep it."""

def fingerprint(
    request: Any,
    namespace: str = "default",
    profile: str = "generic",
    variant: str | int | None = None,
    normalize: Literal["NFC"] | None = None,
) -> bytes:
    """The 32-byte fingerprint of a request, format version 1 (`docs/reference/fingerprint.md`).

    `cache.fingerprint(request)` gives the same for the cache's own namespace, profile and normalisation, and
    is faster for long requests: it remembers the digests of long strings that it saw before.

    Args:
        request: Any JSON-like value, dataclass, msgspec Struct or pydantic model. Exactly 32 `bytes` are
            taken as a ready fingerprint and returned.
        namespace: The wall the request stands behind.
        profile: The rules for its top-level fields: `generic`, `openai.chat`, `openai.responses` or
            `anthropic.messages`.
        variant: A string or 64-bit integer that asks for an independent sample.
        normalize: `"NFC"` to put all strings of the request into Unicode normalisation form C first.

    Raises:
        UnkeyableRequestError: the request has no canonical form; `path` says where, `reason` why.
        ValueError: an unknown profile or normalisation.
    """

@disjoint_base
class Clock:
    """Microseconds since 1970: the machine's, until a time is `set`.

    `monotonic` is of `CLOCK_BOOTTIME` where there is one: it is never moved back, and goes on while the
    machine is suspended.
    """

    def __new__(cls, *_arguments: Any) -> Self: ...
    # The interpreter sees no more of a call's parameters than this; there are none.
    def __call__(self, /, *args: Any, **kwargs: Any) -> int: ...
    def monotonic(self) -> int: ...
    def set(self, time: int) -> None: ...
    def _pass(self, micros: int) -> None: ...

@final
class Encoded:
    """An encoded value in memory, with what it takes to decode it."""

    def __new__(cls, payload: bytes, content: Any, kind: Any) -> Encoded: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def content(self) -> Any: ...
    @property
    def kind(self) -> Any: ...
    def __sizeof__(self) -> int: ...

@final
class View:
    """An entry in memory with its facts; times in microseconds since 1970, `cost` in micro-USD."""

    @property
    def value(self) -> Any: ...
    @property
    def created(self) -> int: ...
    @property
    def fresh_until(self) -> int: ...
    @property
    def stale_until(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def snap(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def facts(self) -> bytes: ...

@disjoint_base
class Engine:
    """The hot half of `LLMCache`: fingerprint, look-up in memory and validity in one call."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self: ...
    def fingerprint(
        self,
        request: Any,
        *,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> bytes:
        """The 32-byte fingerprint of a request under this cache's namespace, profile and normalisation.

        Works on a cache that is not open. Every method that takes a request also takes its fingerprint.
        Cost: about that of hashing the request's text, once; strings of 256 bytes and more that were met
        before, as the same object, are not read again.

        Raises:
            UnkeyableRequestError: the request has no canonical form; `path` says where, `reason` why.
            ValueError: an unknown profile.
        """

    @overload
    def get(
        self,
        request: Any,
        default: _D = ...,
        *,
        type: type[_T],
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Awaitable[_T | _D]:
        """The value of a request if it is fresh in any tier, else `default`. Awaitable.

        A hit in memory is one call, finished before it is awaited. A miss without lower tiers as well; with
        them, it costs one batched read of each, at most their time budget.

        Args:
            request: The request, or its 32-byte fingerprint.
            default: What is returned for an entry that is absent, stale, invalid, or not of `type`.
            type: The type of the value, as it was given when it was stored.
            namespace: In place of the cache's own.
            profile: In place of the cache's own.
            variant: As it was given when it was stored.

        Raises:
            CacheClosedError: the cache is not open.
            UnkeyableRequestError: the request has no canonical form.
        """

    @overload
    def get(
        self,
        request: Any,
        default: Any = None,
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Awaitable[Any]:
        """The value of a request if it is fresh in any tier, else `default`. Awaitable.

        A hit in memory is one call, finished before it is awaited. A miss without lower tiers as well; with
        them, it costs one batched read of each, at most their time budget.

        Args:
            request: The request, or its 32-byte fingerprint.
            default: What is returned for an entry that is absent, stale, invalid, or not of `type`.
            type: The type of the value, as it was given when it was stored.
            namespace: In place of the cache's own.
            profile: In place of the cache's own.
            variant: As it was given when it was stored.

        Raises:
            CacheClosedError: the cache is not open.
            UnkeyableRequestError: the request has no canonical form.
        """

    def get_nowait(
        self,
        request: Any,
        default: Any = None,
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Any:
        """The value of a request if it is fresh in memory, else `default`. No await, no lower tier.

        May be called from any thread and any event loop while the cache is open. Arguments and errors as
        for `get`.
        """

    @overload
    def get_or_compute(
        self,
        request: Any,
        compute: Callable[..., Awaitable[Computed[_T]]],
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        ttl: _Seconds | Unset | None = ...,
        stale_while_revalidate: _Seconds | Unset = ...,
        stale_if_error: _Seconds | Unset = ...,
        tags: Sequence[str] | Unset = ...,
        label: str | Unset | None = ...,
        depends_on: Sequence[str] | Unset = ...,
        timeout: _Seconds | Unset | None = ...,
        refresh: bool = ...,
        only_if_cached: bool = ...,
        store: bool = ...,
        semantic: bool | float = ...,
        question: _Question | None = ...,
    ) -> Awaitable[_T]: ...
    @overload
    def get_or_compute(
        self,
        request: Any,
        compute: Callable[..., Awaitable[_T]],
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
        ttl: _Seconds | Unset | None = ...,
        stale_while_revalidate: _Seconds | Unset = ...,
        stale_if_error: _Seconds | Unset = ...,
        tags: Sequence[str] | Unset = ...,
        label: str | Unset | None = ...,
        depends_on: Sequence[str] | Unset = ...,
        timeout: _Seconds | Unset | None = ...,
        refresh: bool = ...,
        only_if_cached: bool = ...,
        store: bool = ...,
        semantic: bool | float = ...,
        question: _Question | None = ...,
    ) -> Awaitable[_T]:
        """The value of a request: from a tier, a computation that is running, or `compute`. Awaitable.

        A hit in memory is one call, finished before it is awaited: the fingerprint and a fraction of a
        microsecond. Otherwise the caller joins the request's flight, or starts it: at most one computation
        of a request runs at a time (in the event loop that opened the cache), whoever is cancelled meanwhile.

        Args:
            request: The mapping you were about to send, or any value with a fingerprint.
            compute: An async callable without arguments, or with one: a context with `fingerprint` and
                `stale`, the value that is being replaced. It returns the value, or `Computed` with it.
            type: The type of the value: needed for dataclasses, msgspec Structs and pydantic models, so
                that a hit is one again.
            namespace: In place of the cache's own.
            profile: In place of the cache's own.
            variant: A string or integer that asks for an independent sample.
            ttl: Seconds the entry is fresh, in place of the cache's own; None: for ever, 0: not stored.
            stale_while_revalidate: Seconds after `ttl` in which an old value is returned at once.
            stale_if_error: Seconds after `ttl` in which an old value stands in for a failed computation.
            tags: By which the entry can be invalidated; at most 256 strings of 1 to 256 characters.
            label: A path by which it can be, such as `content/blog/ai`; at most 512 characters.
            depends_on: Names whose `bump_version` invalidates it.
            timeout: Seconds this caller waits; the computation goes on for the others.
            refresh: Compute even if there is an entry.
            only_if_cached: Never compute.
            store: False computes and does not keep.
            semantic: False asks for an exact answer, and what it stores has no vector: it is found exactly
                alone; a number asks for a semantic hit of at least that score.
            question: `(text, rest)` of a request that keeps its question elsewhere than the known protocols,
                or what gives it when it is needed; see `SemanticOptions.question`.

        Raises:
            Exception: what `compute` raised, an instance of this caller's own; a stale value may stand in.
            CacheClosedError: the cache is not open.
            UnkeyableRequestError: the request has no canonical form.
            ConfigurationError: an option that cannot work.
            TypeError: an unknown option.
            NotCachedError: `only_if_cached`, and nothing is.
            WaitTimeoutError: `timeout` passed; the computation goes on for the others.
            FlightDeadlineExceeded: the computation took longer than the cache's `deadline`.
            FlightCancelled: the computation was cancelled, or the cache was closed.
            ReentrancyError: the computation waits for its own result.
        """

    def _configure(
        self,
        *,
        memory: int,
        namespace: str,
        profile: str,
        normalize: str | None,
        clock: Clock,
        epoch: int,
        alone: bool,
        strict: bool = ...,
    ) -> None: ...
    def _set_open(self, open: bool) -> None: ...
    def _explain(self, request: Any, profile: str | None = None) -> list[tuple[str, str, str]]: ...
    def _memo(self) -> tuple[int, int]: ...
    def _clear_memo(self) -> None: ...
    def _insert(
        self,
        key: bytes,
        value: Any,
        namespace: str,
        facts: tuple[Sequence[str], str | None, Sequence[str], bytes] | None,
        created: int,
        fresh_until: int,
        stale_until: int,
        cost: int,
        epoch: int,
        snap: int,
    ) -> str: ...
    def _promote_many(
        self,
        found: list[tuple[bytes | None, str, bytes]],
        keyring: Keyring | None,
        unpack: Callable[[bytes], Any],
    ) -> list[bytes | str | None]: ...
    def _promote(
        self,
        data: bytes,
        namespace: str,
        key: bytes,
        keyring: Keyring | None,
        unpack: Callable[[bytes], tuple[Any, bytes]],
    ) -> bytes | str | None: ...
    def _view(self, key: bytes) -> View | None: ...
    def _peek(self, key: bytes) -> View | None: ...
    def _remove(self, key: bytes) -> bool: ...
    def _expire(self, key: bytes) -> bool: ...
    def _clear(self) -> int: ...
    def _reserve(self, bytes: int) -> None: ...  # noqa: A002
    @staticmethod
    def _namespace_id(namespace: str) -> int: ...
    @staticmethod
    def _named_targets(
        namespace: str,
        *,
        keys: Sequence[bytes] = ...,
        tags: Sequence[str] = ...,
        labels: Sequence[str] = ...,
        versions: Sequence[str] = ...,
    ) -> list[int]: ...
    @staticmethod
    def _entry_targets(
        namespace: str, key: bytes, tags: Sequence[str], label: str | None, versions: Sequence[str]
    ) -> list[int]: ...
    def _stamp(self, namespace: int) -> tuple[int, int]: ...
    def _adopt(self, namespace: int, epoch: int, snap: int) -> None: ...
    def _raise(
        self, namespace: int, targets: Sequence[int], seq: int | None = None, rules: Sequence[str] = ...
    ) -> int: ...
    def _raise_rules(self, namespace: int, rules: Sequence[str], seq: int) -> None: ...
    def _forget_rules(self, namespace: int, rules: Sequence[str]) -> None: ...
    def _defer(self, namespace: int, targets: Sequence[int], rules: Sequence[str] = ...) -> None: ...
    def _deliver(
        self, namespace: int, targets: Sequence[int], rules: Sequence[str], epoch: int, seq: int
    ) -> None: ...
    def _valid(
        self, namespace: int, epoch: int, snap: int, targets: Sequence[int], label: str | None = None
    ) -> bool: ...
    @staticmethod
    def _matches(rule: str, label: str) -> bool: ...
    def _matching(self, namespace: int, targets: Sequence[int], rules: Sequence[str]) -> tuple[int, int]: ...
    def _drop_invalid(self) -> int: ...
    def _vouch(self, until: int) -> None: ...
    def _shards(self) -> list[dict[str, int]]: ...

@final
class Question:
    """A question taken apart once, so that it can be judged against many. Any text will do."""

    def __new__(cls, text: str) -> Question: ...

@final
class Judgement:
    """What the guards and the verifier think of a pair of questions."""

    @property
    def vetoes(self) -> tuple[str, ...]:
        """The guards that object, of `GUARDS`. One is enough to reject."""

    @property
    def score(self) -> float:
        """How likely both ask the same, by the verifier alone: 0 to 1."""

    @property
    def features(self) -> list[float]:
        """As `FEATURES`."""

def judge(asked: Question, stored: Question, cosine: float) -> Judgement:
    """Judge whether `asked` may be answered with the answer to `stored`. Symmetric."""
