"""Flights: one running computation of a fingerprint, and everybody who waits for it.

A flight is a task of the cache's task group. Callers only wait, so no caller's cancellation can break
another's answer (I3), and at most one flight of a fingerprint can be joined at a time (I4).

    running -> done | failed | superseded | cancelling

A flight that is superseded or cancelled leaves the table in the same step; newcomers never join it.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, get_ident
from typing import Any, Literal, NamedTuple

import anyio
import anyio.abc
from anyio.abc import TaskStatus
from anyio.lowlevel import current_token

from llmcache_fast._core import Engine
from llmcache_fast._errors import (
    FlightCancelled,
    FlightDeadlineExceeded,
    ReentrancyError,
    WaitTimeoutError,
)
from llmcache_fast.actors.flight import Flight, own_exception

_current: ContextVar[Flight | None] = ContextVar("llmcache_fast_flight", default=None)
"""The flight whose computation this task belongs to."""


class FlightStatistics(NamedTuple):
    """Counts since the start."""

    running: int
    orphans: int
    """Running since their last waiter left."""
    background: int
    """Running to refresh what callers have in an old form."""
    waiting: int
    started: int
    joined: int
    failed: int
    cancelled: int
    deadlines: int
    superseded: int


class Flights:
    """The table of joinable flights of one event loop."""

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        *,
        deadline: float,
        on_abandon: Literal["finish", "cancel"],
        max_orphans: int,
        max_background: int,
    ) -> None:
        """`deadline` is in seconds from a flight's start; `max_orphans` flights may go on unwaited for, and
        `max_background` refresh what callers have in an old form."""
        self._tasks = tasks
        self._deadline = deadline
        self._on_abandon = on_abandon
        self._max_orphans = max_orphans
        self._max_background = max_background
        self._background = 0
        self._table: dict[bytes, Flight] = {}
        self._numbers = itertools.count(1)
        self._deadlines: dict[Flight, float] = {}
        """Of the flights still in time, oldest first: all have the same time, so none overtakes another."""
        self._wake = anyio.Event()
        self._running: set[Flight] = set()
        self._writes: set[Flight] = set()
        self.deciding = Lock()
        """Held from asking whether a value is superseded until it is stored: other threads supersede too."""
        self._orphans = 0
        self._counts = dict.fromkeys(
            ("started", "joined", "failed", "cancelled", "deadlines", "superseded"), 0
        )
        self._closed = False
        self._loop = current_token()
        self._thread = get_ident()

    def in_own_loop(self) -> bool:
        """Whether flights can be waited for here; other loops share the entries."""
        return bool(current_token() == self._loop)

    def in_own_thread(self) -> bool:
        """The same for half the price: a thread runs one event loop at a time."""
        return get_ident() == self._thread

    def get(self, key: bytes) -> Flight | None:
        """The flight of a fingerprint that may be joined."""
        return self._table.get(key)

    def start(
        self,
        key: bytes,
        namespace: str,
        targets: Sequence[int],
        tags: tuple[str, ...],
        run: Callable[[Flight], Awaitable[Any]],
    ) -> Flight:
        """Register a flight and start its task, without an await. `run` gives the value of `land`.

        The first of `targets` is the namespace's id.
        `run` may itself land the flight before it returns, and go on for a while.
        """
        if self._closed:
            raise FlightCancelled("the cache is closing")
        flight = Flight(key, namespace, targets[0], next(self._numbers), set(targets), tags)
        self._table[key] = flight
        self._running.add(flight)
        self._counts["started"] += 1
        self._deadlines[flight] = anyio.current_time() + self._deadline
        if len(self._deadlines) == 1:
            self._wake.set()
        self._tasks.start_soon(self._fly, flight, run)
        return flight

    def may_refresh(self) -> bool:
        """Whether one more flight may go on in the background."""
        return self._background < self._max_background

    def put_behind(self, flight: Flight) -> bool:
        """Let a flight go on in the background, if one more may: its callers have what is old."""
        if not self.may_refresh():
            return False
        flight.background = True
        self._background += 1
        return True

    async def join(self, flight: Flight, timeout: float | None = None) -> Any:
        """Wait for a flight's value.

        Raises:
            WaitTimeoutError: `timeout` seconds have passed; the flight goes on.
            ReentrancyError: the flight waits for the caller's own computation.
            Exception: what the computation raised, an instance of this waiter's own.
        """
        already = flight.landed
        if already:
            return self.outcome(flight)
        own = _current.get()
        if own is not None:
            _block(own, flight)
        self.adopt(flight)
        try:
            if timeout is None:
                await flight.done().wait()
            else:
                with anyio.move_on_after(timeout):
                    await flight.done().wait()
        finally:
            # Asked first: the last one to leave may end it, and got its own time-out nevertheless.
            in_time = flight.landed
            if own is not None:
                _unblock(own, flight)
            self.leave(flight)
        if not in_time:
            raise WaitTimeoutError(
                f"no answer within the caller's timeout of {timeout} s; the computation goes on"
            )
        return self.outcome(flight)

    @contextmanager
    def waiting(self, flight: Flight) -> Iterator[None]:
        """Inside, the computation that the caller belongs to, if any, waits for `flight`.

        Raises:
            ReentrancyError: the flight waits for that computation.
        """
        own = _current.get()
        if own is None or flight.landed:
            yield
            return
        _block(own, flight)
        try:
            yield
        finally:
            _unblock(own, flight)

    def adopt(self, flight: Flight) -> None:
        """Count one more waiter."""
        flight.waiters += 1
        if flight.orphan:
            flight.orphan = False
            self._orphans -= 1

    def leave(self, flight: Flight) -> None:
        """Count one waiter less. The last one to leave a running flight decides over it."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.landed:
            if self._on_abandon == "cancel" or self._orphans >= self._max_orphans:
                self.cancel(flight, FlightCancelled("nobody waited for the computation any more"))
            else:
                flight.orphan = True
                self._orphans += 1

    def within(self) -> bool:
        """Whether the caller belongs to a computation."""
        return _current.get() is not None

    def joined(self) -> None:
        """Count a caller that joined a running flight."""
        self._counts["joined"] += 1

    def cancel(self, flight: Flight, error: BaseException) -> None:
        """End a flight: it leaves the table, its waiters get `error`, its task is cancelled."""
        self._remove(flight)
        if flight.land(error=error):
            self._counts["cancelled"] += 1
        flight.scope.cancel()

    def supersede_flight(self, key: bytes) -> bool:
        """Take the flight of a fingerprint out, as `supersede` does; whether there was one."""
        flight = self._table.get(key)
        if flight is None:
            return False
        flight.superseded = True
        self._remove(flight)
        self._counts["superseded"] += 1
        return True

    def supersede(self, namespace: str, targets: set[int] | None, patterns: Sequence[str] = ()) -> int:
        """Take out all flights that an invalidation covers (`None`: the whole namespace); how many.

        Their waiters get the value, marked; it is not stored. So it is with values on their way to the store.
        """

        def is_current(flight: Flight) -> bool:
            if targets is None or not targets.isdisjoint(flight.targets):
                return False
            label = flight.label
            return label is None or not any(Engine._matches(pattern, label) for pattern in patterns)

        return self.supersede_where(namespace, is_current)

    def supersede_where(self, namespace: str, is_current: Callable[[Flight], bool]) -> int:
        """The same of all flights of a namespace that are not current."""
        covered = 0
        for flight in list(self._running):
            if flight.namespace == namespace and not flight.superseded and not is_current(flight):
                flight.superseded = True
                self._remove(flight)
                covered += 1
        self._counts["superseded"] += covered
        self._supersede_writes(lambda write: write.namespace == namespace and not is_current(write))
        return covered

    def supersede_writes(self, key: bytes) -> None:
        """A newer value is there than those on their way to the store (`writing`)."""
        self._supersede_writes(lambda write: write.key == key)

    def _supersede_writes(self, covers: Callable[[Flight], bool]) -> None:
        if self._writes:
            with self.deciding:
                for write in filter(covers, tuple(self._writes)):
                    write.superseded = True

    @contextmanager
    def writing(self, flight: Flight) -> Iterator[None]:
        """Inside, `flight` can be superseded: a value on its way to the store from a caller's own task, which
        may be in another thread. Nobody joins it."""
        self._writes.add(flight)
        try:
            yield
        finally:
            self._writes.discard(flight)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """The task that enforces deadlines: at its deadline a flight is cancelled *and* detached."""
        task_status.started()
        while True:
            self._wake = anyio.Event()
            now = anyio.current_time()
            timeout = None
            while self._deadlines:
                flight, deadline = next(iter(self._deadlines.items()))
                if deadline > now:
                    timeout = deadline - now
                    break
                self._end_in_time(flight)
            with anyio.move_on_after(timeout):
                await self._wake.wait()

    def _end_in_time(self, flight: Flight) -> None:
        del self._deadlines[flight]
        if flight.landed:
            # Its waiters have an answer; what goes on behind it ends here.
            self._remove(flight)
            flight.scope.cancel()
            return
        self._counts["deadlines"] += 1
        late = f"the computation did not end within its deadline of {self._deadline} s"
        self.cancel(flight, FlightDeadlineExceeded(late))

    def close(self) -> None:
        """End all flights; their waiters get `FlightCancelled`."""
        self._closed = True
        for flight in list(self._running):
            self.cancel(flight, FlightCancelled("the cache was closed while this was computed"))

    def statistics(self) -> FlightStatistics:
        return FlightStatistics(
            running=len(self._running),
            orphans=self._orphans,
            background=self._background,
            waiting=sum(flight.waiters for flight in self._running),
            **self._counts,
        )

    async def _fly(self, flight: Flight, run: Callable[[Flight], Awaitable[Any]]) -> None:
        _current.set(flight)
        cancelled = anyio.get_cancelled_exc_class()
        try:
            with flight.scope:
                if flight.landed:
                    return  # cancelled before it began: the provider is not asked
                try:
                    value = await run(flight)
                except cancelled:
                    # Ours, or the task group's: it must pass. Otherwise the computation itself raised it.
                    if flight.scope.cancel_called or anyio.current_effective_deadline() == -float("inf"):
                        raise
                    self._fail(flight, FlightCancelled("the computation raised a cancellation"))
                except (KeyboardInterrupt, SystemExit, GeneratorExit):
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is the waiters'
                    self._fail(flight, error)
                else:
                    self._remove(flight)
                    flight.land(value)
        finally:
            self._remove(flight)
            self._running.discard(flight)
            self._deadlines.pop(flight, None)
            self._background -= flight.background
            if flight.orphan:
                flight.orphan = False
                self._orphans -= 1
            if flight.land(error=FlightCancelled("the computation was cancelled")):
                self._counts["cancelled"] += 1

    def _fail(self, flight: Flight, error: BaseException) -> None:
        self._remove(flight)
        if flight.land(error=error):
            self._counts["failed"] += 1

    def _remove(self, flight: Flight) -> None:
        if self._table.get(flight.key) is flight:
            del self._table[flight.key]

    def outcome(self, flight: Flight) -> Any:
        """What a landed flight gives one waiter; its error is raised, an instance of the waiter's own."""
        if flight.error is not None:
            raise own_exception(flight.error)
        return flight.value


def _block(own: Flight, flight: Flight) -> None:
    """Note that `own`'s computation waits for `flight`."""
    if not own.landed and flight.reaches(own):
        raise ReentrancyError(
            "a computation waits for its own result; give the inner call another request, "
            "or call the provider directly"
        )
    own.blocked_on[flight] += 1


def _unblock(own: Flight, flight: Flight) -> None:
    # Several tasks of one computation may wait for the same flight.
    own.blocked_on[flight] -= 1
    if not own.blocked_on[flight]:
        del own.blocked_on[flight]
