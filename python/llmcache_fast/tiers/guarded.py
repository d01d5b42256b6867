"""A tier behind a guard: whatever the store does, a call costs its caller at most a budget of time (I6).

Each call runs in a task of its own. When the budget is over its caller goes on, and the task is left to
end: for `linger` seconds by itself, then it is cancelled; a driver that ignores even that costs one of
`max_abandoned` tasks and nobody's time. Only the read of one key by a tier that keeps the budget itself
(`Tier.keeps_budget`) is awaited as it is: a task costs such a read a third of its time. Each direction has a
breaker (`breaker`), which opens when calls fail *or are slow*, and a limit of calls at once (a bulkhead).

What belongs here: time, room and refusal. What does not: what is done when a tier comes back
(`actors.recovery`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeVar

import anyio

from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast._stats import GuardStats
from llmcache_fast.tiers.base import PutReport, Raised, StoredRecord, Tier
from llmcache_fast.tiers.breaker import Breaker, BreakerOptions, Outcome, Permit
from llmcache_fast.tiers.budget import to_wait
from llmcache_fast.tiers.detached import Detached
from llmcache_fast.tiers.lane import Lane
from llmcache_fast.tiers.signal import Running, Signal
from llmcache_fast.tiers.watch import Watch

_log = logging.getLogger("llmcache_fast.guarded")

T = TypeVar("T")

Direction = Literal["read", "write", "markers"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("read", "write", "markers")

READ_BUDGET: Final = 0.25
WRITE_BUDGET: Final = 1.0
"""Of a deletion or an invalidation: a caller waits for it, but wants it done rather than fast."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What a guard allows; durations in seconds."""

    read_budget: float | None = None
    """None: the tier's own `read_budget` or `budget`, or 0.25."""
    write_budget: float | None = None
    """For deletions and markers. None: the tier's own `write_budget`, or 1."""
    batch_budget: float = 2.0
    """For the write-behind buffer's batches, for cleaning and for pages of a partition: no caller waits for
    them."""
    walk_budget: float = 10.0
    """For the pages of a walk through all records. Longer: a walk that is slow is no outage to readers."""
    open_budget: float = 2.0
    close_budget: float = 2.0
    slow: float = 0.5
    """Share of the budget after which a good answer counts as slow."""
    concurrency: int = 64
    """Calls at once, of each direction."""
    max_waiting: int = 1024
    """Calls that wait for room, within their budgets; more are refused at once."""
    linger: float = 1.0
    """How long an abandoned call may go on before it is cancelled. Cancelling at once would drop the
    connections of a tier that is merely slow, and make it slower."""
    max_abandoned: int = 64
    """Abandoned calls that have not ended; while there are so many, no new call is made."""
    breaker: BreakerOptions = field(default_factory=BreakerOptions)

    def __post_init__(self) -> None:
        budgets = (self.read_budget or 1, self.write_budget or 1, self.batch_budget, self.walk_budget)
        if min(*budgets, self.open_budget, self.close_budget) <= 0 or self.linger < 0:
            raise ValueError("budgets must be above 0 seconds, and linger not below")
        if not 0 < self.slow < 1:
            raise ValueError("slow is a share of the budget: above 0, below 1")
        if min(self.concurrency, self.max_abandoned) < 1 or self.max_waiting < 0:
            raise ValueError("concurrency and max_abandoned must be at least 1, and max_waiting at least 0")


TICKS: Final = 5
"""Looks at how long calls have taken, in the smallest budget: in each, a busy event loop uses up one part."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call of the tier, under way or ended."""

    signal: Signal
    """Comes when the call ends, or when its budget does."""
    ended: bool = False
    result: Any = None
    error: Exception | None = None
    abandoned: bool = False
    task: Detached = field(init=False)


class GuardedTier:
    """`inner`, a `Tier`, with every call bounded in time, number and patience.

    It has the methods of `Authority`, `LeasingTier` and `PartitionedTier` where `inner` has them. Each
    failure is a `TierError`; those of the guard itself are `TierUnavailableError` with the reason `timeout`
    (the budget is over), `open` (the breaker is; costs microseconds) or `abandoned`, and `TierError` with
    `busy`.

    A call that runs out of its budget may still be done, later: as with any lost reply.
    """

    def __init__(
        self,
        inner: Tier,
        options: GuardOptions | None = None,
        *,
        now: Callable[[], float] | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`now` is the breakers' clock, in seconds; the event loop's if None, as for budgets."""
        self.inner = inner
        self.name = inner.name
        self.options = options = options or GuardOptions()
        self._now = now
        self.now = now or anyio.current_time
        self._watch: Watch | None = None
        own = getattr(inner, "budget", READ_BUDGET)
        self.read_budget = _budget(options.read_budget, inner, "read_budget", own)
        self.write_budget = _budget(options.write_budget, inner, "write_budget", WRITE_BUDGET)
        self._lanes = {
            direction: Lane(
                inner.name,
                breaker=options.breaker,
                concurrency=options.concurrency,
                max_waiting=options.max_waiting,
                max_abandoned=options.max_abandoned,
                rng=rng,
            )
            for direction in DIRECTIONS
        }
        self._alarm = anyio.Event()
        self._opening: _Call | None = None
        read, write = self.read_budget, self.write_budget
        optional: tuple[tuple[str, Direction, float], ...] = (
            ("changes", "markers", write),
            ("tell", "markers", read),
            ("lease_many", "write", read),
            ("renew_leases", "write", write),
            ("release_leases", "write", write),
            ("members", "read", self.options.batch_budget),
            ("scan", "read", self.options.walk_budget),
            ("discard_many", "write", self.options.walk_budget),
        )
        for name, direction, budget in optional:
            if hasattr(inner, name):
                setattr(self, name, partial(self.call, direction, name, getattr(inner, name), budget=budget))
        if hasattr(inner, "get_or_lease_many"):
            look = partial(self._as_many, inner.get_or_lease_many)
            self.get_or_lease_many = partial(self.call, "read", "get_or_lease_many", look, budget=read)
        if hasattr(inner, "raise_markers"):
            self.raise_markers = self._raise_markers
        if hasattr(inner, "lease_released"):
            self.lease_released = partial(self._await, "lease_released", inner.lease_released)
        if hasattr(inner, "follow"):
            self.follow = partial(self._await, "follow", inner.follow)
        self.keeps_budget: bool = getattr(inner, "keeps_budget", False)
        """Whether the read of one key may be awaited as it is: see `Tier`."""
        self.suspect: Callable[[], None] = getattr(inner, "suspect", lambda: None)
        """Tell the tier that a reply was not what was asked for. A tier with connections has this method: it
        uses none of now again, and returns at once (I9)."""

    # -- life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the tier. One that takes longer than `open_budget` goes on opening; ask again later."""
        if self._opening is None:
            self._set_up()
            self._opening = self._start(self.inner.open)
        opening = self._opening
        if not await self._within(opening, self.options.open_budget):
            raise self._unavailable("open", f"did not open within {self.options.open_budget:g} s", "timeout")
        self._opening = None
        if isinstance(opening.error, ConfigurationError):
            raise opening.error
        if opening.error is not None:
            raise self._own_error("open", opening.error)

    def _set_up(self) -> Watch:
        """Know the event loop, which may be another one than the last time."""
        running, options = Running(), self.options
        budgets = (self.read_budget, self.write_budget, options.batch_budget, options.open_budget)
        self._running = running
        self._watch = watch = Watch(running, min(*budgets, options.close_budget) / TICKS)
        if self._now is None:
            self.now = running.now
        return watch

    async def aclose(self) -> None:
        """Cancel what is under way and abandoned, and close the tier, within `close_budget`."""
        opening, self._opening = self._opening, None
        abandoned = [call for lane in self._lanes.values() for call in lane.abandoned]
        for call in (*abandoned, opening):
            if isinstance(call, _Call):
                call.task.end_within(0)
        closing = self._start(self.inner.aclose)
        try:
            if not await self._within(closing, self.options.close_budget):
                text = f"did not close within {self.options.close_budget:g} s"
                raise self._unavailable("aclose", text, "timeout")
        finally:
            closing.task.end_within(0)
            watch, self._watch = self._watch, None
            if watch is not None:
                watch.close()
        if closing.error is not None:
            raise self._own_error("aclose", closing.error)

    # -- calls --------------------------------------------------------------------------------------

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        read = self.inner.get_many
        if self.keeps_budget and len(keys) == 1:
            return await self._read_as_it_is(keys)
        return await self.call("read", "get_many", self._as_many, read, keys, budget=self.read_budget)

    async def _as_many(
        self, read: Callable[..., Awaitable[list[T]]], keys: Sequence[bytes], *arguments: Any
    ) -> list[T]:
        """As many answers as there were keys, or an error."""
        found = await read(keys, *arguments)
        if len(found) != len(keys):
            raise self._mismatch(found, keys)
        return found

    def _mismatch(self, found: Sequence[object], keys: Sequence[bytes]) -> TierError:
        # Not to be told apart from the replies of somebody else.
        message = f"{len(found)} answers to {len(keys)} keys"
        return TierError(message, tier=self.name, operation="read", reason="mismatch")

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        budget = self.options.batch_budget
        return await self.call("write", "put_many", self.inner.put_many, records, budget=budget)

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        delete = self.inner.delete_many
        return await self.call("write", "delete_many", delete, keys, stamp, budget=self.write_budget)

    async def purge(self, now: int, limit: int = 1000) -> int:
        budget = self.options.batch_budget
        return await self.call("write", "purge", self.inner.purge, now, limit, budget=budget)

    async def clear(self) -> int:
        return await self.call("write", "clear", self.inner.clear, budget=self.options.batch_budget)

    async def call(
        self,
        direction: Direction,
        operation: str,
        work: Callable[..., Awaitable[T]],
        *arguments: Any,
        budget: float,
    ) -> T:
        """Await `work(*arguments)` under this guard, as one call of the direction; `operation` names it.

        Raises:
            TierError: what the tier raised, or why it was not asked or waited for.
        """
        watch = self._watch or self._set_up()
        lane = self._lanes[direction]
        permit, waited = await lane.enter(operation, budget, self.now)
        budget -= waited
        call = self._start(work, *arguments, lane=lane)
        outcome: Outcome = "unknown"
        started = watch.start(call.signal, to_wait(budget))
        try:
            if not call.ended:
                await call.signal.wait()
            late = watch.time() - started >= self.options.slow * budget
            if not call.ended:
                outcome = lane.timed_out()
                raise self._unavailable(operation, "no answer within the budget", "timeout")
            if call.error is not None:
                error = self._own_error(operation, call.error)
                outcome = lane.failed(error)
                raise error
            outcome = lane.answered(late=late)
            result: T = call.result
            return result
        finally:
            watch.stop(call.signal)
            if not call.ended:
                self._abandon(lane, call)
            self._ended(lane, permit, outcome)

    async def _read_as_it_is(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `call`, of a read that keeps its budget itself, whoever cancels it: without a task."""
        operation, budget = "get_many", self.read_budget
        watch = self._watch or self._set_up()
        lane = self._lanes["read"]
        permit, waited = await lane.enter(operation, budget, self.now)
        outcome: Outcome = "unknown"
        started = watch.start_timing() - waited
        try:
            found = await self.inner.get_many(keys)
            if len(found) != len(keys):
                raise self._mismatch(found, keys)
            outcome = lane.answered(late=watch.time() - started >= self.options.slow * budget)
        except Exception as error:
            own = self._own_error(operation, error)
            outcome = lane.failed(own)
            if own is error:
                raise
            raise own from None
        finally:
            watch.stop_timing()
            lane.leave()
            self._ended(lane, permit, outcome)
        return found

    async def _within(self, call: _Call, budget: float) -> bool:
        """Whether a call of no lane ends within its budget."""
        watch = self._watch or self._set_up()
        watch.start(call.signal, budget)
        try:
            if not call.signal.came:
                await call.signal.wait()
        finally:
            watch.stop(call.signal)
            if not call.ended:
                # The one that came is spent; whoever asks again waits for another.
                call.signal = self._running.signal()
        return call.ended

    async def _raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        inner: Any = self.inner
        work = partial(inner.raise_markers, namespace, targets, rules, forget=forget)
        return await self.call("markers", "raise_markers", work, budget=self.write_budget)

    async def _await(self, operation: str, work: Callable[..., Awaitable[None]], argument: Any) -> None:
        """Waits as long as its caller does, and is no call that a breaker could judge."""
        call = self._start(work, argument)
        try:
            await call.signal.wait()
        finally:
            call.task.end_within(0)
        if call.error is not None:
            raise self._own_error(operation, call.error)

    def _ended(self, lane: Lane, permit: Permit, outcome: Outcome) -> None:
        lane.breaker.ended(permit, outcome, self.now())
        if lane.breaker.state != "closed":
            self._alarm.set()

    def _start(self, work: Callable[..., Awaitable[Any]], *arguments: Any, lane: Lane | None = None) -> _Call:
        if self._watch is None:
            self._set_up()
        call = _Call(self._running.signal())
        call.task = Detached(partial(self._run, lane, call, work, arguments))
        return call

    async def _run(
        self, lane: Lane | None, call: _Call, work: Callable[..., Awaitable[Any]], arguments: Any
    ) -> None:
        try:
            call.result = await work(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            call.error = error
        except BaseException:
            # Cancelled by this guard, by the end of the event loop, or by the driver on its own account.
            call.error = TierError("the call was cancelled", tier=self.name, reason="cancelled")
            raise
        finally:
            call.ended = True
            call.signal.set()
            if lane is not None and call.abandoned:
                lane.came_late(call)
            elif lane is not None:
                lane.leave()

    def _abandon(self, lane: Lane, call: _Call) -> None:
        """Let the call go on without a caller."""
        call.abandoned = True
        lane.abandoned.add(call)
        lane.leave()
        call.task.end_within(self.options.linger)

    # -- state --------------------------------------------------------------------------------------

    def breaker(self, direction: Direction) -> Breaker:
        """The breaker of a direction; to look at."""
        return self._lanes[direction].breaker

    def disturbed(self) -> list[Direction]:
        """The directions whose breakers are not closed."""
        return [name for name, lane in self._lanes.items() if lane.breaker.state != "closed"]

    async def outage(self) -> None:
        """Wait until a breaker is not closed."""
        while not self.disturbed():
            self._alarm = anyio.Event()
            await self._alarm.wait()

    def statistics(self) -> dict[str, GuardStats]:
        """By direction; counts since the guard was made."""
        return {name: lane.statistics() for name, lane in self._lanes.items()}

    # -- errors -------------------------------------------------------------------------------------

    def _unavailable(self, operation: str, message: str, reason: str) -> TierUnavailableError:
        return TierUnavailableError(message, tier=self.name, operation=operation, reason=reason)

    def _own_error(self, operation: str, error: Exception) -> TierError:
        if isinstance(error, TierError):
            return error
        _log.error("the tier %s raised %s in %s", self.name, type(error).__name__, operation)
        return TierError(
            f"the tier raised {type(error).__name__}", tier=self.name, operation=operation, reason="bug"
        )


def _budget(given: float | None, inner: Tier, attribute: str, default: float) -> float:
    return float(getattr(inner, attribute, default)) if given is None else given
