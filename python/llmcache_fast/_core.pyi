from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, final, overload

from llmcache_fast._entry import Computed

_T = TypeVar("_T")
_D = TypeVar("_D")

ENVELOPE_VERSION: int
ENVELOPE_OVERHEAD: int

@final
class DiskStore:
    def __new__(cls, path: str | Path, max_bytes: int, budget: float = 0.25) -> DiskStore: ...
    @property
    def path(self) -> Path: ...
    @property
    def created(self) -> bool: ...
    @property
    def set_aside(self) -> Path | None: ...
    @property
    def max_record(self) -> int: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def put_many(
        self, records: Sequence[tuple[bytes, bytes, int, int, int, int]], now: int
    ) -> tuple[int, int, int]: ...
    def delete_many(self, keys: Sequence[bytes]) -> int: ...
    def purge(self, now: int, limit: int) -> int: ...
    def clear(self) -> int: ...
    def vacuum(self) -> int: ...
    def raise_markers(self, namespace: int, targets: Sequence[int], now: int) -> tuple[int, int]: ...
    def markers_since(self, namespace: int, seq: int) -> list[tuple[int, int]]: ...
    def epoch(self, namespace: int, now: int) -> tuple[int, int]: ...
    def check(self) -> list[str]: ...
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None: ...

@final
class Envelope:
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
) -> bytes: ...
def decode_envelope(data: bytes, namespace: str, fingerprint: bytes) -> tuple[Envelope | None, str]: ...
def fingerprint(
    request: Any,
    namespace: str = "default",
    profile: str = "generic",
    variant: str | int | None = None,
    normalize: Literal["NFC"] | None = None,
) -> bytes: ...

class Clock:
    def __new__(cls, *_arguments: Any) -> Self: ...
    def __call__(self) -> int: ...
    def set(self, time: int) -> None: ...

@final
class Encoded:
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

class Engine:
    def __new__(cls, *_arguments: Any, **_options: Any) -> Self: ...
    def fingerprint(
        self,
        request: Any,
        *,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> bytes: ...
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
    ) -> Awaitable[_T | _D]: ...
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
    ) -> Awaitable[Any]: ...
    def get_nowait(
        self,
        request: Any,
        default: Any = None,
        *,
        type: Any = None,
        namespace: str | None = None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Any: ...
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
        **options: Any,
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
        **options: Any,
    ) -> Awaitable[_T]: ...
    def _configure(
        self,
        *,
        memory: int,
        namespace: str,
        profile: str,
        normalize: str | None,
        clock: Clock,
        epoch: int,
        options: frozenset[str],
        alone: bool,
    ) -> None: ...
    def _set_open(self, open: bool) -> None: ...  # noqa: A002 - the built module's name
    def _explain(self, request: Any, profile: str | None = None) -> list[tuple[str, str, str]]: ...
    def _memo(self) -> tuple[int, int]: ...
    def _clear_memo(self) -> None: ...
    def _insert(
        self,
        key: bytes,
        value: Any,
        *,
        namespace: str,
        tags: Sequence[str],
        label: str | None,
        versions: Sequence[str],
        facts: bytes,
        created: int,
        fresh_until: int,
        stale_until: int,
        cost: int,
        epoch: int,
        snap: int,
    ) -> str: ...
    def _view(self, key: bytes) -> View | None: ...
    def _peek(self, key: bytes) -> View | None: ...
    def _remove(self, key: bytes) -> bool: ...
    def _expire(self, key: bytes) -> bool: ...
    def _clear(self) -> int: ...
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
    def _raise(self, namespace: int, targets: Sequence[int], seq: int | None = None) -> int: ...
    def _valid(self, namespace: int, epoch: int, snap: int, targets: Sequence[int]) -> bool: ...
    def _shards(self) -> list[dict[str, int]]: ...
