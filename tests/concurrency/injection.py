"""Cancels at every await of a scenario, one run for each, and checks what must hold whatever was cancelled.

A scenario is a small program of callers around one request. Its *victim* is driven step by step; at its n-th
suspension something is cancelled, and the run goes on to its end. `explore` repeats this for n = 0, 1, 2, ...
until the victim has no n-th suspension, so no await is left out and none needs to be named.

What is checked after each run: no resurrection (I1), no lost waiter (I3), one flight at a time (I4), only
complete values stored (I5), no task, flight or waiter left behind, and a cache that still answers.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

import anyio
import anyio.lowlevel

from llmcache_fast import FlightCancelled, FlightDeadlineExceeded, LLMCache, Recorder
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights
from llmcache_fast.testing import ManualClock

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HANG = 20.0
"""Seconds after which a run counts as hanging; a run takes milliseconds."""

Mode = Literal["suspended", "woken", "program"]
"""`suspended`: cancelled while it waits. `woken`: what it waited for has just happened, and the cancellation
comes before it runs (asyncio only: on trio the first of the two wins). `program`: everything is cancelled."""


EXCUSES = {"computation": FlightCancelled, "flight": FlightDeadlineExceeded}
"""What waiters are told when it was not a caller that was hit."""


class InvariantBrokenError(AssertionError):
    """A promise of the cache did not hold."""


@types.coroutine
def stepped(
    coroutine: Coroutine[Any, Any, Any], on_suspend: Callable[[Any], None]
) -> Generator[Any, Any, Any]:
    """Run a coroutine as it is, with a call at each of its suspensions."""
    step: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731
    while True:
        try:
            yielded = step()
        except StopIteration as end:
            return end.value
        on_suspend(yielded)
        try:
            sent = yield yielded
        except BaseException as error:
            step = _bind(coroutine.throw, error)
        else:
            step = _bind(coroutine.send, sent)


def _bind(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


@dataclass
class Injection:
    """Acts at the n-th suspension of the victim."""

    victim: str
    point: int | None
    mode: Mode = "suspended"
    seen: int = 0
    fired: bool = False
    armed: bool = True

    def due(self) -> bool:
        if not self.armed:
            return False
        self.seen += 1
        self.fired = self.fired or self.seen - 1 == self.point
        return self.seen - 1 == self.point


@dataclass
class Outcome:
    """How one caller ended."""

    kind: Literal["value", "error", "cancelled"]
    value: Any = None


@dataclass
class World:
    """What happens outside of the cache, and what was seen of it."""

    cache: LLMCache
    clock: ManualClock
    injection: Injection
    program: anyio.CancelScope
    version: int = 0
    acknowledged: int = 0
    """The version at the last acknowledged invalidation: no later call may get an older one."""
    finished: set[int] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    pauses: int = 3
    failing: Exception | None = None

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.broken.append(what)

    async def compute(self) -> dict[str, int]:
        """The provider: answers with the version it saw when it was asked."""
        seen = self.version
        self.one_flight()
        try:
            for _ in range(self.pauses):
                await self.pause()
        finally:
            # A connection that is closed takes a while, also for who was cancelled.
            with anyio.CancelScope(shield=True):
                for _ in range(2):
                    await anyio.lowlevel.checkpoint()
        if self.failing is not None:
            raise self.failing
        self.finished.add(seen)
        return {"version": seen}

    async def pause(self) -> None:
        self.one_flight()
        if self.injection.victim == "computation" and self.injection.due():
            raise await stray_cancellation()
        await anyio.lowlevel.checkpoint()

    def one_flight(self) -> None:
        """I4: at most one flight of a fingerprint that is neither superseded nor cancelled."""
        running = [f for f in self.cache._flights._running if not f.superseded and not f.scope.cancel_called]
        keys = [flight.key for flight in running]
        self.expect(len(set(keys)) == len(keys), "I4: two flights of one fingerprint at a time")

    async def call(self, name: str, **options: Any) -> None:
        """A caller: asks, and notes how it ended."""
        since = self.acknowledged
        cut = self.injection.fired and self.injection.victim == "flight"

        async def ask() -> None:
            try:
                value = await self.cache.get_or_compute(REQUEST, self.compute, **options)
            except Exception as error:
                self.outcomes[name] = Outcome("error", error)
                self.expect(self.failing or not cut, f"I4: {name} joined a flight that had been cancelled")
            else:
                self.outcomes[name] = Outcome("value", value)
                self.expect(value["version"] >= since, f"I1: {name} got a value from before an invalidation")

        await self.act(name, ask)

    async def source(self, recorder: Recorder) -> None:
        """The provider, streaming: the version comes last, so that half an answer is none."""
        recorder.begin(b"head")
        seen = self.version
        for _ in range(self.pauses):
            await self.pause()
            recorder.write(b"...")
        recorder.write(str(seen).encode())
        await self.pause()
        self.finished.add(seen)
        recorder.commit()

    async def read(self, name: str, **options: Any) -> None:
        """A caller that reads a stream to its end."""
        since = self.acknowledged

        async def ask() -> None:
            try:
                async with await self.cache.stream(REQUEST, self.source, **options) as reader:
                    chunks = [chunk async for chunk in reader]
            except Exception as error:
                self.outcomes[name] = Outcome("error", error)
            else:
                self.outcomes[name] = Outcome("value", chunks)
                self.expect(len(chunks) == self.pauses + 1, f"{name} got {len(chunks)} chunks")
                self.expect(int(chunks[-1]) >= since, f"I1: {name} got a stream from before an invalidation")

        await self.act(name, ask)

    async def invalidate(self, name: str, **targets: Any) -> None:
        """Changes the world and says so."""

        async def ask() -> None:
            self.version += 1
            version = self.version
            await self.cache.invalidate(**targets)
            self.acknowledged = max(self.acknowledged, version)
            self.outcomes[name] = Outcome("value")

        await self.act(name, ask)

    async def act(self, name: str, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one actor; cancel it, if it is the victim and this is the point."""
        if self.injection.victim != name:
            try:
                await body()
            except anyio.get_cancelled_exc_class():
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                self.outcomes[name] = Outcome("cancelled")
            return
        if self.injection.mode == "woken":
            await self._act_woken(name, body)
            return
        with anyio.CancelScope() as scope:

            def cancel(_: Any) -> None:
                if self.injection.due():
                    (self.program if self.injection.mode == "program" else scope).cancel()

            await stepped(body(), cancel)
        if scope.cancelled_caught:
            self.outcomes[name] = Outcome("cancelled")

    async def _act_woken(self, name: str, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel_on_wake(yielded: Any) -> None:
            if self.injection.due():
                # Registered before the task's own wake-up, so the task is found done and marked.
                if yielded is None:
                    task.cancel()
                else:
                    yielded.add_done_callback(lambda _: task.cancel())

        try:
            await stepped(body(), cancel_on_wake)
            if self.injection.fired and task.cancelling():
                await anyio.lowlevel.checkpoint()
        except asyncio.CancelledError:
            task.uncancel()
            self.outcomes[name] = Outcome("cancelled")


async def stray_cancellation() -> BaseException:
    """A cancellation that belongs to no scope any more: what a computation with a bug may raise."""
    caught: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            caught.append(error)
            raise
    return caught[0]


@dataclass(frozen=True)
class Scenario:
    """Callers around one request, and who may be the victim."""

    name: str
    play: Callable[[World], Awaitable[None]]
    victims: tuple[str, ...]
    waiters: tuple[str, ...]
    """Callers that get a value unless they are the victim (or the computation is)."""
    options: dict[str, Any] = field(default_factory=dict)
    tiers: Callable[[ManualClock], list[Any]] = lambda _: []
    fails_with: type[Exception] | None = None
    """What the computation raises, when it is one that fails."""
    streams: bool = False
    """The callers read streams."""


def injected(flights: type[Flights], injection: Injection) -> type[Flights]:
    """`flights`, whose flights hit their deadline at the n-th await of the first flight."""

    class Injected(flights):  # type: ignore[misc, valid-type]
        def start(
            self, key: bytes, namespace: str, targets: Any, tags: Any, run: Callable[[Flight], Any]
        ) -> Flight:
            first = self._counts["started"] == 0

            def run_stepped(flight: Flight) -> Awaitable[Any]:
                def cut(_: Any) -> None:
                    if injection.due():
                        self.cancel(flight, FlightDeadlineExceeded("the deadline, in a test"))

                return stepped(run(flight), cut)

            stepping = injection.victim == "flight" and first
            started: Flight = super().start(key, namespace, targets, tags, run_stepped if stepping else run)
            return started

    return Injected


async def _run(scenario: Scenario, injection: Injection) -> None:
    before = {task.id for task in anyio.get_running_tasks()}
    clock = ManualClock()
    with anyio.fail_after(HANG), anyio.CancelScope() as program:
        options = {"jitter": 0.0, "negative_ttl": 0.0, **scenario.options}
        cache = LLMCache(clock=clock, tiers=scenario.tiers(clock), **options)
        world = World(cache, clock, injection, program)
        async with cache:
            await scenario.play(world)
            await anyio.wait_all_tasks_blocked()
            injection.armed = False
            _check_rest(world)
            if scenario.streams:
                await world.read("afterwards")
            else:
                _check_stored(world)
                await _check_usable(world)
    left = [task for task in anyio.get_running_tasks() if task.id not in before]
    world.expect(not left, f"{len(left)} tasks were left behind")
    if not (injection.fired and injection.mode == "program"):
        _check_outcomes(scenario, world)
    if world.broken:
        raise InvariantBrokenError(
            f"{scenario.name}: {injection.victim} hit at await {injection.point} ({injection.mode}): "
            + "; ".join(dict.fromkeys(world.broken))
        )


def _check_rest(world: World) -> None:
    flights = world.cache._flights
    statistics = flights.statistics()
    world.expect(statistics.running == 0, f"{statistics.running} flights are still running")
    world.expect(statistics.waiting == 0, f"{statistics.waiting} waiters were never counted out")
    world.expect(statistics.orphans == 0, f"{statistics.orphans} orphans were never counted out")
    world.expect(not flights._table, "a flight was left in the table")


def _check_stored(world: World) -> None:
    stored = world.cache.get_nowait(REQUEST)
    if stored is not None:
        world.expect(stored["version"] in world.finished, "I5: something is stored that was never computed")
        world.expect(stored["version"] >= world.acknowledged, "I1: what was invalidated is stored")


async def _check_usable(world: World) -> None:
    """The cache still answers, with nothing from before the last invalidation."""
    world.failing = None
    value = await world.cache.get_or_compute(REQUEST, world.compute)
    world.expect(value["version"] >= world.acknowledged, "I1: a later call got an invalidated value")


def _check_outcomes(scenario: Scenario, world: World) -> None:
    injection = world.injection
    for name in (*scenario.waiters, *(("afterwards",) if scenario.streams else ())):
        outcome = world.outcomes.get(name)
        if outcome is None or outcome.kind == "cancelled":
            own = outcome is not None and injection.fired and injection.victim == name
            world.expect(
                own, f"I3: {name} ended by no cancellation of its own" if outcome else f"I3: {name} is lost"
            )
        elif outcome.kind == "error" and type(outcome.value) is not scenario.fails_with:
            expected = EXCUSES.get(injection.victim) if injection.fired else None
            world.expect(
                expected is not None and isinstance(outcome.value, expected),
                f"I3: {name} got a {type(outcome.value).__name__} for another's cancellation",
            )


def explore(
    scenario: Scenario,
    victim: str,
    backend: str,
    *,
    mode: Mode = "suspended",
    flights: type[Flights] = Flights,
) -> int:
    """Hit the victim at each of its awaits, one run each; how many there are.

    Raises:
        InvariantBrokenError: at which await, and what did not hold.
    """
    for point in itertools.count():
        injection = Injection(victim, point, mode)
        with mock.patch("llmcache_fast._cache.Flights", injected(flights, injection)):
            try:
                anyio.run(_run, scenario, injection, backend=backend)
            except TimeoutError:
                raise InvariantBrokenError(
                    f"{scenario.name}: {victim} hit at await {point}: it hangs"
                ) from None
        if not injection.fired:
            return point
    raise AssertionError("unreachable")
