"""Doubles for tests: a tier in memory, one that fails to plan, embedders of both kinds, a clock that stands
still.

They are public: a program's own tests may use them, and `tests/contract` holds them to what real tiers do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.lowlevel

from llmcache_fast._core import Clock
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.semantic.embedder import Embedder
from llmcache_fast.tiers.base import (
    MAX_MARKERS,
    MAX_RULES,
    MAX_TOLD,
    Asked,
    Changes,
    Message,
    PutReport,
    Raised,
    StoredRecord,
    Tier,
)

T = TypeVar("T")

_START = 1_700_000_000_000_000


class ManualClock(Clock):
    """A clock in microseconds since 1970 that moves only when told; pass it as `clock`.

    It moves the lives of entries, `negative_ttl` and the pause after a failed refresh. Time-outs and
    deadlines run on the event loop's clock.
    """

    def __init__(self, now: int = _START) -> None:
        self.set(now)

    @property
    def now(self) -> int:
        """The time."""
        return self()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; of a negative number the monotonic clock takes no notice."""
        self._pass(round(seconds * 1_000_000))


class MemoryTier:
    """A tier, an authority, a bus and leases in a dict: the contract at its plainest.

    Nothing outlives `aclose`.
    """

    name = "memory-double"

    def __init__(self, *, max_record: int | None = None, clock: Callable[[], int] | None = None) -> None:
        self._clock = clock or ManualClock()
        self._max_record = max_record
        self._open = False
        self.records: dict[bytes, StoredRecord] = {}
        self._clocks: dict[int, tuple[int, int]] = {}
        self._markers: dict[int, dict[int, int]] = {}
        self._rules: dict[int, dict[bytes, int]] = {}
        self._followers: set[Callable[[Message | None], None]] = set()
        self._leases: dict[bytes, tuple[bytes, float]] = {}
        self._released: dict[bytes, anyio.Event] = {}

    async def open(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await self._enter("get_many")
        found = [self.records.get(key) for key in keys]
        return [record.envelope if record else None for record in found]

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        await self._enter("put_many")
        stored = superseded = refused = 0
        for record in records:
            there = self.records.get(record.key)
            if self._max_record is not None and len(record.envelope) > self._max_record:
                refused += 1
            elif there is not None and there.epoch == record.epoch and there.snap > record.snap:
                superseded += 1
            else:
                self.records[record.key] = record
                stored += 1
        return PutReport(stored, superseded, refused)

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        await self._enter("delete_many")
        return sum(self.records.pop(key, None) is not None for key in keys)

    async def purge(self, now: int, limit: int = 1000) -> int:
        await self._enter("purge")
        gone = [key for key, record in self.records.items() if record.stale_until <= min(now, NEVER - 1)]
        for key in gone[:limit]:
            del self.records[key]
        return len(gone[:limit])

    async def clear(self) -> int:
        await self._enter("clear")
        count = len(self.records)
        self.records.clear()
        return count

    async def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        await self._enter("raise_markers")
        epoch, last = self._clock_of(namespace)
        seq = max(last + 1, self._clock())
        self._clocks[namespace] = epoch, seq
        kept = self._rules.setdefault(namespace, {})
        for rule in forget:
            kept.pop(rule, None)
        kept.update(dict.fromkeys(rules, seq))
        markers = self._markers.setdefault(namespace, {})
        markers.update(dict.fromkeys(targets, seq))
        for table, most in ((markers, MAX_MARKERS), (kept, MAX_RULES)):
            self._halve(namespace, table, most)
        told = tuple(targets) if len(targets) <= MAX_TOLD and not rules else None
        self._tell_all(Message(namespace, epoch, last, seq, told))
        return Raised(epoch, seq, last)

    def _halve(self, namespace: int, table: dict[Any, int], most: int) -> None:
        if len(table) > most:
            oldest = sorted(table, key=table.__getitem__)[: len(table) // 2]
            youngest = max(table.pop(each) for each in oldest)
            markers = self._markers[namespace]
            markers[namespace] = max(markers.get(namespace, 0), youngest)

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        await self._enter("changes")
        return [self._changes(*each) for each in asked]

    def _changes(self, namespace: int, known: int, seen: int) -> Changes:
        epoch, seq = self._clock_of(namespace)
        if epoch == known and seq < seen:
            # Behind what was acknowledged: markers were lost with it.
            epoch = random.getrandbits(64)
            self._clocks[namespace] = epoch, seq
            self._markers.pop(namespace, None)
            self._rules.pop(namespace, None)
        since = seen if epoch == known else 0

        def after(table: dict[T, int]) -> list[tuple[T, int]]:
            return sorted((pair for pair in table.items() if pair[1] > since), key=lambda pair: pair[1])

        return Changes(
            epoch, seq, after(self._markers.get(namespace, {})), after(self._rules.get(namespace, {}))
        )

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        await self._enter("follow")
        self._followers.add(heard)
        try:
            heard(None)
            await anyio.sleep_forever()
        finally:
            self._followers.discard(heard)

    async def tell(self, message: Message) -> None:
        await self._enter("tell")
        self._tell_all(message)

    def _tell_all(self, message: Message) -> None:
        for heard in list(self._followers):
            heard(message)

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        await self._enter("scan")
        keys = sorted(key for key in self.records if key > (cursor or b""))[:limit]
        found = [(key, self.records[key].envelope) for key in keys]
        return found, keys[-1] if len(keys) == limit else None

    async def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int:
        await self._enter("discard_many")
        gone = [
            key
            for key, *stamp in stamped
            if key in self.records and [self.records[key].epoch, self.records[key].snap] == stamp
        ]
        for key in gone:
            del self.records[key]
        return len(gone)

    async def get_or_lease_many(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        await self._enter("get_or_lease_many")
        there = [self.records.get(key) for key in keys]
        return [
            (None, self._lease(key, token, seconds)) if record is None else (record.envelope, False)
            for key, record in zip(keys, there, strict=True)
        ]

    async def lease_many(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        await self._enter("lease_many")
        return [self._lease(key, token, seconds) for key in keys]

    async def renew_leases(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        await self._enter("renew_leases")
        return [self._owner(key) == token and self._lease(key, token, seconds) for key in keys]

    async def release_leases(self, keys: Sequence[bytes], token: bytes) -> None:
        await self._enter("release_leases")
        for key in keys:
            if self._owner(key) == token:
                del self._leases[key]
                self._released.pop(key, anyio.Event()).set()

    async def lease_released(self, key: bytes) -> None:
        await self._released.setdefault(key, anyio.Event()).wait()

    def _lease(self, key: bytes, token: bytes, seconds: float) -> bool:
        if self._owner(key) not in (None, token):
            return False
        self._leases[key] = token, anyio.current_time() + seconds
        return True

    def _owner(self, key: bytes) -> bytes | None:
        token, until = self._leases.get(key, (None, 0.0))
        return token if anyio.current_time() < until else None

    def _clock_of(self, namespace: int) -> tuple[int, int]:
        return self._clocks.setdefault(namespace, (random.getrandbits(64), self._clock()))

    async def _enter(self, operation: str) -> None:
        await anyio.lowlevel.checkpoint()
        if not self._open:
            raise TierError("the tier is not open", tier=self.name, operation=operation, reason="closed")


class Fault(NamedTuple):
    """What happens to one call of a `FaultyTier` or a `FaultyEmbedder`."""

    error: Exception | None = None
    """Raised, if given."""
    after: bool = False
    """The error comes after the work was done: the caller cannot know that it was."""
    hold: anyio.Event | None = None
    """The call starts only when this is set: a tier that hangs."""


Plan = Callable[[str, int], Fault | None]
"""The fault of the n-th call (from 0) of an operation, or None to let it pass."""


def fail_first(count: int, operation: str = "put_many", *, error: Exception | None = None) -> Plan:
    """The plan in which the first `count` calls of `operation` fail."""
    failure = error or TierError("planned", tier="faulty", operation=operation, reason="planned")

    def plan(name: str, number: int) -> Fault | None:
        return Fault(failure) if name == operation and number < count else None

    return plan


class FaultyTier:
    """`inner`, failing where `plan` says so. Counts its calls in `calls`."""

    name = "faulty"

    def __init__(self, inner: Tier, plan: Plan | None = None) -> None:
        self.inner = inner
        self.plan = plan
        self.calls: Counter[str] = Counter()

    async def open(self) -> None:
        await self._through("open", self.inner.open)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._through("get_many", self.inner.get_many, keys)

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        return await self._through("put_many", self.inner.put_many, records)

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        return await self._through("delete_many", self.inner.delete_many, keys, stamp)

    async def purge(self, now: int, limit: int = 1000) -> int:
        return await self._through("purge", self.inner.purge, now, limit)

    async def clear(self) -> int:
        return await self._through("clear", self.inner.clear)

    async def _through(self, operation: str, work: Callable[..., Awaitable[T]], *args: object) -> T:
        return await _faulty(self.plan, self.calls, operation, work, *args)


class FakeEmbedder:
    """Vectors you choose, and for all other texts some that depend on the text alone and are near to none.

        embedder = FakeEmbedder({"hello": [1, 0], "hi": [0.9, 0.1]}, dimension=2)

    Keeps what it was asked in `calls`.
    """

    name = "fake"

    def __init__(
        self,
        vectors: Mapping[str, Sequence[float]] | None = None,
        *,
        dimension: int = 384,
        version: str = "1",
    ) -> None:
        """`dimension` is that of all of its vectors, the chosen ones too."""
        self.dimension = dimension
        self.version = version
        self.calls: list[list[str]] = []
        self._vectors = dict(vectors or {})

    async def embed(self, texts: Sequence[str]) -> list[Sequence[float]]:
        self.calls.append(list(texts))
        await anyio.lowlevel.checkpoint()
        return [self._vectors.get(text) or self._drawn(text) for text in texts]

    def _drawn(self, text: str) -> list[float]:
        drawing = random.Random(text)  # noqa: S311 - reproducible on purpose
        return [drawing.gauss() for _ in range(self.dimension)]


class FaultyEmbedder:
    """`inner`, failing where `plan` says so of the operation `embed`. Counts its calls in `calls`."""

    def __init__(self, inner: Embedder, plan: Plan | None = None) -> None:
        self.inner = inner
        self.plan = plan
        self.calls: Counter[str] = Counter()
        self.name = inner.name
        self.version = inner.version
        self.dimension = inner.dimension

    async def embed(self, texts: Sequence[str]) -> Any:
        return await _faulty(self.plan, self.calls, "embed", self.inner.embed, texts)


async def _faulty(
    plan: Plan | None,
    calls: Counter[str],
    operation: str,
    work: Callable[..., Awaitable[T]],
    *args: object,
) -> T:
    number = calls[operation]
    calls[operation] += 1
    fault = (plan(operation, number) if plan else None) or Fault()
    if fault.hold is not None:
        await fault.hold.wait()
    if fault.error is not None and not fault.after:
        raise fault.error
    result = await work(*args)
    if fault.error is not None:
        raise fault.error
    return result
