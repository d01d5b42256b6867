"""The read actor of a tier: concurrent reads of all callers, in few round trips.

It never waits for a batch to fill: it takes what has arrived. While one batch is under way the next one
gathers, so batches grow with the load and a lone read pays no delay.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskStatus

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.budget import within

_log = logging.getLogger("llmcache_fast.reader")


T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Read(Generic[T]):
    """One key on its way, and everybody who waits for it."""

    key: bytes
    waiters: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    found: T | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """Counts of a read actor since its start."""

    waiting: int
    """Keys that wait for a batch to start."""
    reads: int
    """Calls of `get`."""
    keys: int
    """Keys asked of the tier; reads of one key that arrived together count once."""
    batches: int
    failures: int
    """Batches the tier failed."""


class BatchActor(Generic[T]):
    """Asks for single keys through a call of a tier that takes many.

    Two reads of one key share a slot only while it waits: a read never joins a round trip that started
    before it, so it sees every write and deletion that was complete when it was called.
    """

    def __init__(
        self,
        fetch: Callable[[list[bytes]], Awaitable[Sequence[T]]],
        tier: str,
        operation: str,
        *,
        max_batch: int = 256,
        concurrency: int = 2,
    ) -> None:
        """`fetch` is the call, of the operation and the tier so named; `max_batch` bounds one round trip in
        keys, `concurrency` the round trips under way."""
        if max_batch < 1 or concurrency < 1:
            raise ValueError("max_batch and concurrency must be at least 1")
        self._fetch = fetch
        self._tier = tier
        self._operation = operation
        self._max_batch = max_batch
        self._free = concurrency
        self._waiting: dict[bytes, _Read[T]] = {}
        self._under_way: set[_Read[T]] = set()
        self._wake = anyio.Event()
        self._closed = False
        self._reads = self._keys = self._batches = self._failures = 0

    async def get(self, key: bytes, budget: float | None = None) -> T:
        """What the call returns for `key`.

        Raises:
            TierError: the tier failed; an instance of the caller's own.
            TimeoutError: `budget` seconds passed (see `budget.within`).
        """
        if self._closed:
            raise self._closed_error()
        self._reads += 1
        read = self._waiting.get(key)
        if read is None:
            read = self._waiting[key] = _Read(key)
            self._wake.set()
        read.waiters += 1
        try:
            if budget is None:
                await read.done.wait()
            elif not await within(budget, read.done):
                raise TimeoutError
        finally:
            read.waiters -= 1
            if not read.waiters and self._waiting.get(key) is read:
                del self._waiting[key]
        if read.error is not None:
            raise self._own_error(read.error) from read.error
        return read.found  # type: ignore[return-value]  # set, for there is no error

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Those who still wait then get a `TierError`."""
        try:
            async with anyio.create_task_group() as group:
                task_status.started()
                while True:
                    await self._wake.wait()
                    while self._waiting and self._free:
                        batch = [
                            self._waiting.pop(key) for key in list(islice(self._waiting, self._max_batch))
                        ]
                        self._under_way.update(batch)
                        self._free -= 1
                        group.start_soon(self._read, batch)
                    self._wake = anyio.Event()
        finally:
            self._closed = True
            for read in [*self._under_way, *self._waiting.values()]:
                read.error = self._closed_error()
                read.done.set()
            self._under_way.clear()
            self._waiting.clear()

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            waiting=len(self._waiting),
            reads=self._reads,
            keys=self._keys,
            batches=self._batches,
            failures=self._failures,
        )

    async def _read(self, batch: list[_Read[T]]) -> None:
        self._batches += 1
        self._keys += len(batch)
        try:
            found = await self._fetch([read.key for read in batch])
            for read, value in zip(batch, found, strict=True):
                read.found = value
        except Exception as error:  # noqa: BLE001 - any failure must be handed on
            # Whatever it was, it must reach those who wait and must not end the actor.
            self._failures += 1
            if not isinstance(error, TierError):
                _log.error("reading the tier %s raised %s", self._tier, type(error).__name__)
            for read in batch:
                read.error = error
        # A cancellation passes: `run` tells those who wait.
        self._free += 1
        self._wake.set()
        self._under_way.difference_update(batch)
        for read in batch:
            read.done.set()

    def _own_error(self, error: Exception) -> TierError:
        if isinstance(error, TierError):
            return error.again()
        return TierError(
            f"the tier raised {type(error).__name__}",
            tier=self._tier,
            operation=self._operation,
            reason="bug",
        )

    def _closed_error(self) -> TierError:
        return TierError("the reader is closed", tier=self._tier, operation=self._operation, reason="closed")


class ReadActor(BatchActor[bytes | None]):
    """The read actor of a tier: `get` returns the tier's envelope of a key, or None."""

    def __init__(self, tier: Tier, *, max_batch: int = 256, concurrency: int = 2) -> None:
        super().__init__(tier.get_many, tier.name, "get_many", max_batch=max_batch, concurrency=concurrency)
