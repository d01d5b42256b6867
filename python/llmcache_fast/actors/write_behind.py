"""The write-behind buffer of a tier: answers do not wait for stores, and a slow store costs bounded memory.

What it holds is lost with the process; `writers` puts a journal in front of it. Records are stamped, so a
late write is harmless: it is filtered wherever it lands.
"""

from __future__ import annotations

import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import count
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskStatus

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.cheapest import Cheapest
from llmcache_fast.actors.pending import ITEM_OVERHEAD, Pending, is_newer
from llmcache_fast.actors.write_report import Outcome, WriteReport, WriteStatistics
from llmcache_fast.tiers.base import StoredRecord, Tier, clock_micros

__all__ = ["WriteBehind", "WriteReport", "WriteStatistics"]

_log = logging.getLogger("llmcache_fast.write_behind")

Ended: TypeAlias = Callable[[Any, StoredRecord, Outcome, str], None]
"""Called with a record's receipt, the record, how its write ended, and the reason of a failure or nothing."""


Hopeless: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when there is no use in going on writing to a tier."""


class WriteBehind:
    """One pending write per fingerprint, bounded in items and bytes, drained in batches by `run`."""

    def __init__(
        self,
        tier: Tier,
        *,
        max_bytes: int = 64 << 20,
        max_items: int = 50_000,
        batch_items: int = 512,
        batch_bytes: int = 4 << 20,
        attempts: int = 6,
        backoff: float = 0.1,
        max_backoff: float = 10.0,
        clock: Callable[[], int] = clock_micros,
        rng: Callable[[], float] = random.random,
        ended: Ended | None = None,
    ) -> None:
        """A record that fails by itself is tried `attempts` times, `backoff * 2**n` seconds apart (at most
        `max_backoff`, less up to a half of jitter), then counted lost. Failures of the tier as a whole are no
        attempts: records wait for its return, until they expire, are shed or the buffer is closed. `ended` is
        told once of every record that came with a receipt.
        """
        if min(max_bytes, max_items, batch_items, batch_bytes, attempts) < 1:
            raise ValueError("max_bytes, max_items, batch_items, batch_bytes and attempts must be at least 1")
        self._tier = tier
        self._max_bytes, self._max_items = max_bytes, max_items
        self._batch_bytes, self._batch_items = batch_bytes, batch_items
        self._attempts, self._backoff, self._max_backoff = attempts, backoff, max_backoff
        self._clock, self._rng = clock, rng
        self._ended = ended

        self._items: dict[bytes, Pending] = {}  # in order of arrival; first is the oldest
        self.holds: Callable[[bytes], bool] = self._items.__contains__
        """Whether `get` has something for a key."""
        self._writing: dict[bytes, Pending] = {}
        self._ready: deque[Pending] = deque()
        self._delayed: list[tuple[float, int, Pending]] = []
        self._cheapest: Cheapest[Pending] = Cheapest(self._sheddable)
        self._bytes = 0
        self._number = 0
        self._pause_until = 0.0
        self._rate: float | None = None
        self._failures = 0
        self._batch_limit = batch_items
        self._wake = anyio.Event()
        self._progress = anyio.Event()
        self._running = False
        self._closed = False
        self._abandoned = False
        self._counts: Counter[str] = Counter()
        self._ties = count()

    # -- callers' side ------------------------------------------------------------------------------

    async def room(self, key: bytes, size: int, share: float = 1.0) -> None:
        """Wait until an envelope of `size` bytes would leave the buffer at most `share` full or be alone in
        it, or it is closed."""
        while not (self._closed or self.fits(key, size, share) or not self._items):
            await self._progress.wait()

    def put_nowait(self, record: StoredRecord, receipt: Any = None) -> bool:
        """Buffer a record; whether it was taken. For lack of room the lowest dollars per byte are shed."""
        counts = self._counts
        counts["offered"] += 1
        old = self._items.get(record.key)
        item = Pending(record, self._number if old is None else old.number, receipt)
        if self._closed:
            self._count(lost=1, lost_cost=record.cost)
            self._tell(item, "closed")
            return False
        newest = old or self._writing.get(record.key)
        if newest is not None and is_newer(newest.record, record):
            counts["superseded"] += 1
            self._tell(item, "superseded")
            return False
        self._number += old is None
        if not self._make_room(item, old):
            self._tell(item, "shed")
            return False
        if old is not None:
            self._bytes -= old.size
            counts["replaced"] += 1
            self._tell(old, "replaced")
        # Assigning to a key that is there keeps its place, so the first item stays the oldest.
        self._items[record.key] = item
        self._bytes += item.size
        self._ready.append(item)
        self._remember_worth(item)
        self._wake.set()
        return True

    def get(self, key: bytes) -> bytes | None:
        """The newest buffered envelope of `key`. Readers ask this before they ask the tier."""
        item = self._items.get(key)
        return None if item is None else item.record.envelope

    def receipt(self, key: bytes) -> Any:
        """What came with the newest buffered record of `key`, or None."""
        item = self._items.get(key)
        return None if item is None else item.receipt

    def drop(self, keys: Iterable[bytes]) -> int:
        """Forget the pending writes of `keys`; how many there were.

        A write that is under way cannot be recalled: it is no longer returned by `get`, and `settled`
        waits for its end.
        """
        return sum(self._discard(key) for key in keys)

    def drop_where(self, predicate: Callable[[StoredRecord], bool]) -> int:
        """Forget the pending writes whose record fulfils `predicate`; how many there were."""
        return self.drop([key for key, item in self._items.items() if predicate(item.record)])

    def pace(self, start: float, rate: float | None = None) -> None:
        """Write nothing before `start` (of the event loop's clock; `inf`: until told otherwise), and then at
        most `rate` records a second until the buffer is empty."""
        self._pause_until, self._rate = start, rate
        self._wake.set()

    def records(self) -> list[StoredRecord]:
        """What is buffered."""
        return [item.record for item in self._items.values()]

    async def settled(self, keys: Iterable[bytes] | None = None) -> None:
        """Wait until no write of `keys`, or no write at all, that was under way at the call still is.

        After `drop` and this, a deletion in the tier is not undone by a write that came late.
        """
        wanted = list(self._writing) if keys is None else keys
        pending = [(key, self._writing[key]) for key in wanted if key in self._writing]
        while any(self._writing.get(key) is item for key, item in pending):
            await self._progress.wait()

    async def flush(self, timeout: float | None = None) -> WriteReport:
        """Wait until all that is buffered now is written or given up, `timeout` seconds at most."""
        before, last = self._counts.copy(), self._number
        with anyio.move_on_after(timeout):
            while self._items and next(iter(self._items.values())).number < last:
                await self._progress.wait()
        return self._report(before)

    async def aclose(self, timeout: float | None = 10.0, hopeless: Hopeless | None = None) -> WriteReport:
        """Take no more, drain under a shielded deadline of `timeout` seconds, and report.

        It is given up earlier when `hopeless` returns.
        """
        before = self._counts.copy()
        self._closed = True
        self._rate = None
        self._wake.set()
        self._notify()
        with anyio.move_on_after(timeout, shield=True):
            async with anyio.create_task_group() as draining:
                if hopeless is not None:
                    draining.start_soon(_give_up, draining.cancel_scope, hopeless)
                if not self._running:
                    await self._drain_all()
                while self._running:
                    await self._progress.wait()
                draining.cancel_scope.cancel()
        report = self._report(before)
        self._abandoned = True
        for item in list(self._items.values()):
            # A write that is under way may still succeed; it counts when it ends.
            if not (self._running and item.writing):
                self._count(lost=1, lost_cost=item.record.cost)
                self._forget(item, "closed")
        self._wake.set()
        if report.remaining:
            _log.warning(
                "closing: %d records for tier %s were not written in time", report.remaining, self._tier.name
            )
        return report

    def statistics(self) -> WriteStatistics:
        return WriteStatistics(items=len(self._items), bytes=self._bytes, **self._counts)

    # -- the task's side ----------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Drain until `aclose`; start it once, in a task group that outlives the callers."""
        if self._running:
            raise RuntimeError("the write-behind task runs already")
        self._running = True
        try:
            task_status.started()
            await self._drain_all(forever=True)
        finally:
            # Cancelled: what was taken out for writing waits again, so that `aclose` can still write it.
            self._running = False
            for item in self._writing.values():
                item.writing = False
                if self._items.get(item.record.key) is item:
                    self._ready.append(item)
            self._writing.clear()
            self._notify()

    async def _drain_all(self, *, forever: bool = False) -> None:
        while self._items or (forever and not self._closed):
            self._wake = anyio.Event()
            batch = self._take_batch()
            if batch:
                await self._write(batch)
                continue
            due = self._next_due()
            if due is None:
                await self._wake.wait()
            else:
                with anyio.move_on_after(max(0.0, due - anyio.current_time())):
                    await self._wake.wait()

    def _take_batch(self) -> list[Pending]:
        """What has arrived and is due, marked as being written."""
        now = anyio.current_time()
        if now < self._pause_until:
            return []
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        batch: list[Pending] = []
        size = 0
        wall = self._clock()
        while self._ready and len(batch) < self._batch_limit and (not batch or size < self._batch_bytes):
            item = self._ready.popleft()
            if self._items.get(item.record.key) is not item:
                continue  # dropped, shed or replaced since it was queued
            if item.record.stale_until <= wall:
                self._count(expired=1)
                self._forget(item, "expired")
                continue
            item.writing = True
            self._writing[item.record.key] = item
            batch.append(item)
            size += item.size
        return batch

    def _next_due(self) -> float | None:
        due = self._delayed[0][0] if self._delayed else None
        if self._ready:
            due = 0.0
        return None if due is None else max(due, self._pause_until)

    async def _write(self, batch: list[Pending]) -> None:
        """Write a batch. If it fails because of one record, write the others and put that one off."""
        error = await self._attempt(batch)
        while error is not None:
            if isinstance(error, TierUnavailableError) or getattr(error, "reason", "") == "busy":
                self._outage(batch)
                break
            if len(batch) == 1:
                self._failed(batch[0], error)
                break
            # One bad record leaves one half good. Two bad halves are the tier's failure, or hold a bad record
            # each: smaller batches after the pause tell, for in a batch of one the record itself is to blame.
            first, second = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            first_error, second_error = await self._attempt(first), await self._attempt(second)
            if first_error is not None and second_error is not None:
                self._batch_limit = max(1, len(batch) // 4)
                self._outage(batch)
                break
            batch, error = (first, first_error) if first_error is not None else (second, second_error)
        self._notify()

    async def _attempt(self, batch: list[Pending]) -> Exception | None:
        self._count(batches=1)
        try:
            report = await self._tier.put_many([item.record for item in batch])
            refused = await self._refused(batch) if report.refused else []
        except Exception as error:  # noqa: BLE001 - any failure must be handed on
            # Whatever it was, it must not end the task: the buffer would fill for ever.
            if not isinstance(error, TierError):
                _log.error("writing to the tier %s raised %s", self._tier.name, type(error).__name__)
            return error
        self._failures = 0
        self._batch_limit = min(2 * self._batch_limit, self._batch_items)
        lost = sum(item.record.cost for item in refused)
        self._count(written=report.stored, superseded=report.superseded, lost=report.refused, lost_cost=lost)
        for item in batch:
            del self._writing[item.record.key]
            self._forget(item, "refused" if item in refused else "stored")
        if self._rate is not None:
            pause = anyio.current_time() + len(batch) / self._rate
            self._pause_until = max(self._pause_until, pause)
            self._rate = self._rate if self._items else None
        return None

    async def _refused(self, batch: list[Pending]) -> list[Pending]:
        """Which of a batch the tier refuses: a report only says how many. Putting again is harmless."""
        if len(batch) == 1:
            return batch
        refused = []
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            if (await self._tier.put_many([item.record for item in half])).refused:
                refused += await self._refused(half)
        return refused

    def _outage(self, batch: list[Pending]) -> None:
        """The tier itself fails: try nothing for a while, new records included."""
        self._failures += 1
        pause = anyio.current_time() + self._delay(self._failures)
        self._pause_until = max(self._pause_until, pause)
        # In front of those that came later, in their order: the first batch after the pause is the oldest.
        self._ready.extendleft(reversed([item for item in batch if self._returns(item)]))

    def _failed(self, item: Pending, error: Exception) -> None:
        """The record itself fails: the others go on, it is tried again later."""
        if not self._returns(item):
            return
        item.attempts += 1
        if item.attempts < self._attempts:
            due = anyio.current_time() + self._delay(item.attempts)
            heapq.heappush(self._delayed, (due, next(self._ties), item))
            return
        reason = getattr(error, "reason", "") or type(error).__name__
        self._count(lost=1, lost_cost=item.record.cost)
        self._forget(item, "given_up", reason)
        _log.warning(
            "tier %s: gave up writing a record after %d attempts (%s)",
            self._tier.name,
            self._attempts,
            reason,
        )

    def _returns(self, item: Pending) -> bool:
        """Put an item whose write failed back among the pending, unless it is no longer wanted."""
        del self._writing[item.record.key]
        item.writing = False
        if self._items.get(item.record.key) is not item:
            return False  # a newer one took its place, or it was dropped, while this one was failing
        if self._abandoned:
            self._count(lost=1, lost_cost=item.record.cost)
            self._forget(item, "closed")
            return False
        self._count(retries=1)
        self._remember_worth(item)
        return True

    def _delay(self, attempts: int) -> float:
        full = min(self._backoff * 2.0 ** min(attempts - 1, 60), self._max_backoff)
        return full * (1 - self._rng() / 2)

    # -- bookkeeping --------------------------------------------------------------------------------

    def fits(self, key: bytes, size: int, share: float = 1.0) -> bool:
        """Whether an envelope of `size` bytes would leave the buffer at most `share` full, so that nothing
        need be shed."""
        old = self._items.get(key)
        items = len(self._items) + (old is None)
        full = self._bytes + size + ITEM_OVERHEAD - (old.size if old else 0)
        return items <= self._max_items * share and full <= self._max_bytes * share

    def _make_room(self, item: Pending, old: Pending | None) -> bool:
        """Shed the lowest dollars per byte until `item` fits, `item` itself if it is the lowest."""
        while not self.fits(item.record.key, len(item.record.envelope)):
            # What is being written cannot be shed; it is remembered again if the write fails.
            cheapest = self._cheapest.pop(
                lambda other: (
                    self._items.get(other.record.key) is other and not other.writing and other is not old
                )
            )
            if cheapest is None or cheapest.worth >= item.worth:
                for kept in (cheapest, old):
                    if kept is not None:
                        self._remember_worth(kept)
                self._count(shed=1, shed_cost=item.record.cost)
                return False
            self._count(shed=1, shed_cost=cheapest.record.cost)
            self._forget(cheapest, "shed")
        return True

    def _sheddable(self) -> Iterator[tuple[float, Pending]]:
        return ((item.worth, item) for item in self._items.values() if not item.writing)

    def _remember_worth(self, item: Pending) -> None:
        self._cheapest.add(item.worth, item, len(self._items))

    def _discard(self, key: bytes) -> bool:
        item = self._items.get(key)
        if item is None:
            return False
        self._count(dropped=1)
        self._forget(item, "dropped")
        self._notify()
        return True

    def _forget(self, item: Pending, outcome: Outcome, reason: str = "") -> None:
        """The item's end; one that was dropped or replaced while it was being written has ended before."""
        if self._items.get(item.record.key) is item:
            del self._items[item.record.key]
            self._bytes -= item.size
            self._tell(item, outcome, reason)

    def _tell(self, item: Pending, outcome: Outcome, reason: str = "") -> None:
        if self._ended is not None and item.receipt is not None:
            self._ended(item.receipt, item.record, outcome, reason)

    def _notify(self) -> None:
        self._progress.set()
        self._progress = anyio.Event()

    def _report(self, before: Counter[str]) -> WriteReport:
        during = {name: self._counts[name] - before[name] for name in ("written", "shed", "lost")}
        return WriteReport(**during, remaining=len(self._items))

    def _count(self, **counts: int) -> None:
        self._counts.update(counts)


async def _give_up(draining: anyio.CancelScope, hopeless: Hopeless) -> None:
    await hopeless()
    draining.cancel()
