"""The read actor of a tier: concurrent reads of all callers, in few round trips.

It never waits for a batch to fill: it takes what has arrived. While one batch is under way the next one
gathers, so batches grow with the load and a lone read pays no delay: when nothing is under way, and the tier
keeps the budget itself (`Tier.keeps_budget`), it is the caller who asks the tier.

What is to be done with each answer is done for a whole batch at once where callers `join`:
benches/test_redis.py has what that spares.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
from anyio.abc import TaskStatus

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.budget import to_wait
from llmcache_fast.tiers.signal import Running, Signal

_log = logging.getLogger("llmcache_fast.reader")


T = TypeVar("T")
G = TypeVar("G")


class Untaken(NamedTuple):
    """An answer that `take` made nothing of, or why there is none."""

    answered: bool
    found: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Batch(Generic[T]):
    """Keys that go in one round trip, and everybody who waits for them."""

    budget: float | None
    left: float
    """Seconds its waiters will go on waiting, as of the last look."""
    looked: float
    done: Signal
    """Comes with the answer, or when they have waited long enough."""
    reads: dict[bytes, int] = field(default_factory=dict)
    """By key, how many wait for it."""
    joined: list[tuple[Any, bytes, Any]] = field(default_factory=list)
    """Futures of those who get what `take` makes of the answers, their keys, and what they gave with them."""
    vetted: Any = None
    """For which `join` said that it may be joined."""
    started: bool = False
    answered: bool = False
    found: Mapping[bytes, T] = field(default_factory=dict)
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


_TICK = 0.01
"""Seconds between two looks at how long batches have waited. One timer for all: with a timer and an event for
each caller a read cost 34 us of processor time under load, without them 6 (benches/test_redis.py)."""
_TIMER = 0.001
"""Seconds to which event loops round their timers, up."""


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
        alone: float = math.inf,
    ) -> None:
        """`fetch` is the call, of the operation and the tier so named; `max_batch` bounds one round trip in
        keys, `concurrency` the round trips under way.

        `alone` is the seconds within which a `fetch` of one key ends, whoever cancels it: a read with such a
        budget that finds nothing under way is then its caller's own, beside `concurrency` others.
        """
        if max_batch < 1 or concurrency < 1:
            raise ValueError("max_batch and concurrency must be at least 1")
        self._fetch = fetch
        self._tier = tier
        self._operation = operation
        self._max_batch = max_batch
        self._concurrency = concurrency
        self._queue: deque[_Batch[T]] = deque()
        self._gathering: _Batch[T] | None = None
        """The batch that newcomers join: the last of the queue, until it is taken, full or a tick old."""
        self._under_way: set[_Batch[T]] = set()
        self._alone = alone
        self._is_alone = False
        """Whether a caller asks the tier just now."""
        self._idle: list[Signal] = []
        """One of each worker that has nothing to do."""
        self._timed: set[_Batch[T]] = set()
        self._ticking: Signal | None = None
        """While there is nothing to time."""
        self._running: Running | None = None
        self._make: Callable[[], Any] | None = None
        """Makes a future for one who joins; None while nobody can."""
        self.take: Callable[[list[tuple[T, Any]]], list[Any]] = _untaken
        """What becomes of answers and of what those who joined gave with their keys: a result for each.
        `Untaken` is one they have to see to themselves."""
        self._closed = False
        self._reads = self._keys = self._batches = self._failures = 0

    async def get(self, key: bytes, budget: float | None = None) -> T:
        """What the call returns for `key`.

        Raises:
            TierError: the tier failed; an instance of the caller's own.
            TimeoutError: `budget` seconds passed, less a reserve and give or take a hundredth, in which the
                event loop was running: of one long round of the loop, two hundredths count.
        """
        if self._closed:
            raise self._closed_error()
        self._reads += 1
        if budget is not None and budget >= self._alone and self._is_idle():
            return await self._get_alone(key)
        batch = self._gathering
        if batch is None or batch.budget != budget:
            batch = self._begin(budget)
        reads = batch.reads
        reads[key] = reads.get(key, 0) + 1
        if len(reads) >= self._max_batch:
            self._gathering = None
        try:
            await batch.done.wait()
        except BaseException:
            self._leave(batch, key)
            raise
        if not batch.answered:
            if batch.error is None:
                raise TimeoutError
            raise self._own_error(batch.error) from batch.error
        return batch.found[key]

    def join(
        self, key: bytes, budget: float, item: Any, group: G, vet: Callable[[G], bool]
    ) -> Awaitable[Any] | None:
        """As `get`, of what `take` makes of the answer, and of `item`: an `Untaken` in place of an error.

        None, and nothing done, where `get` is the better way, or the event loop has no futures. `vet` says
        whether those of a `group` may read now; it is asked once for those who join a batch one after the
        other.
        """
        batch = self._gathering
        if batch is None or batch.vetted != group or batch.budget != budget:
            if self._make is None or (budget >= self._alone and self._is_idle()) or not vet(group):
                return None
            if batch is None or batch.budget != budget:
                batch = self._begin(budget)
            batch.vetted = group
        self._reads += 1
        reads = batch.reads
        reads[key] = reads.get(key, 0) + 1
        if len(reads) >= self._max_batch:
            self._gathering = None
        future: Awaitable[Any] = self._make()  # type: ignore[misc]  # there is one while a batch gathers
        batch.joined.append((future, key, item))
        return future

    def _leave(self, batch: _Batch[T], key: bytes) -> None:
        batch.reads[key] -= 1
        if not batch.reads[key] and not batch.started:
            del batch.reads[key]

    def _is_idle(self) -> bool:
        return not (self._is_alone or self._queue or self._under_way)

    async def _get_alone(self, key: bytes) -> T:
        # Nobody joins it, so nobody but its caller is concerned by a cancellation.
        self._is_alone = True
        self._batches += 1
        self._keys += 1
        try:
            (found,) = await self._fetch([key])
        except Exception as error:
            raise self._own_error(self._failed(error)) from error
        finally:
            self._is_alone = False
        return found

    def _begin(self, budget: float | None) -> _Batch[T]:
        if self._running is None:
            self._running = Running()
        left = math.inf if budget is None else to_wait(budget)
        batch: _Batch[T] = _Batch(budget, left, self._running.now(), self._running.signal())
        self._gathering = batch
        self._queue.append(batch)
        if budget is not None:
            self._timed.add(batch)
            if self._ticking is not None:
                self._ticking.set()
                self._ticking = None
        if self._idle:
            # It runs when all that is ready now has run: whoever asks meanwhile is in the batch.
            self._idle.pop().set()
        return batch

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Those who still wait then get a `TierError`."""
        self._running = Running()
        self._make = self._running.future
        try:
            async with anyio.create_task_group() as group:
                for _ in range(self._concurrency):
                    group.start_soon(self._work)
                group.start_soon(self._tick)
                task_status.started()
        finally:
            self._closed = True
            self._make = self._gathering = None
            for batch in [*self._under_way, *self._queue]:
                batch.error = self._closed_error()
                self._end(batch)
            self._under_way.clear()
            self._queue.clear()
            self._timed.clear()

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            waiting=sum(len(batch.reads) for batch in self._queue),
            reads=self._reads,
            keys=self._keys,
            batches=self._batches,
            failures=self._failures,
        )

    async def _work(self) -> None:
        while True:
            while not self._queue:
                assert self._running is not None  # noqa: S101 - set by `run`
                idle = self._running.signal()
                self._idle.append(idle)
                await idle.wait()
            batch = self._queue.popleft()
            if batch is self._gathering:
                self._gathering = None
            if batch.joined:
                self._let_go(batch)
            if batch.reads and not batch.done.came:
                await self._serve(batch)
            self._timed.discard(batch)

    async def _tick(self) -> None:
        assert self._running is not None  # noqa: S101 - set by `run`
        now = self._running.now
        while True:
            if not self._timed:
                self._ticking = ticking = self._running.signal()
                await ticking.wait()
            left = min((batch.left for batch in self._timed), default=0.0)
            await anyio.sleep(max(min(left, _TICK) - _TIMER / 2, 0.0))
            # Who comes now has a budget of their own.
            self._gathering = None
            for batch in list(self._timed):
                batch.left -= min(now() - batch.looked, 2 * _TICK)
                batch.looked = now()
                if batch.left <= _TIMER:
                    self._timed.discard(batch)
                    self._end(batch)

    async def _serve(self, batch: _Batch[T]) -> None:
        batch.started = True
        self._under_way.add(batch)
        self._batches += 1
        self._keys += len(batch.reads)
        try:
            keys = list(batch.reads)
            batch.found = dict(zip(keys, await self._fetch(keys), strict=True))
            batch.answered = True
        except Exception as error:  # noqa: BLE001 - any failure must be handed on
            # Whatever it was, it must reach those who wait and must not end the actor.
            batch.error = self._failed(error)
        # A cancellation passes: `run` tells those who wait.
        self._under_way.discard(batch)
        self._end(batch)

    def _let_go(self, batch: _Batch[T]) -> None:
        """Of those who joined a batch that is to start, forget who was cancelled."""
        for future, key, _ in batch.joined:
            if future.done():
                self._leave(batch, key)

    def _end(self, batch: _Batch[T]) -> None:
        """Nobody waits for the batch any longer."""
        batch.done.set()
        joined, batch.joined = batch.joined, []
        # Those who were cancelled want nothing to be done.
        joined = [one for one in joined if not one[0].done()]
        if not joined:
            return
        results: list[Any]
        if batch.answered:
            found = batch.found
            try:
                results = self.take([(found[key], item) for _, key, item in joined])
            except Exception as defect:  # noqa: BLE001 - any failure must be handed on
                results = [Untaken(False, None, self._own_error(self._failed(defect)))] * len(joined)
        else:
            error = TimeoutError() if batch.error is None else self._own_error(batch.error)
            results = [Untaken(False, None, error)] * len(joined)
        for (future, _, _), result in zip(joined, results, strict=True):
            future.set_result(result)

    def _failed(self, error: Exception) -> Exception:
        self._failures += 1
        if not isinstance(error, TierError):
            _log.error("reading the tier %s raised %s", self._tier, type(error).__name__)
        return error

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


def _untaken(found: list[tuple[Any, Any]]) -> list[Any]:
    return [Untaken(True, each) for each, _ in found]


class ReadActor(BatchActor[bytes | None]):
    """The read actor of a tier: `get` returns the tier's envelope of a key, or None."""

    def __init__(self, tier: Tier, *, max_batch: int = 256, concurrency: int = 2) -> None:
        keeps_budget = getattr(tier, "keeps_budget", False)
        super().__init__(
            tier.get_many,
            tier.name,
            "get_many",
            max_batch=max_batch,
            concurrency=concurrency,
            alone=getattr(tier, "read_budget", math.inf) if keeps_budget else math.inf,
        )
