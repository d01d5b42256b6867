"""Cancellation at every await: of callers, computations, flights and the whole program; and planted bugs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import FlightCancelled
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights
from llmcache_fast.testing import ManualClock, MemoryTier
from tests.concurrency.injection import (
    REQUEST,
    InvariantBrokenError,
    Mode,
    Scenario,
    World,
    explore,
    stray_cancellation,
)

CALLERS = ("leader", "second", "third", "late")
TRICKLING = tuple(f"caller {n}" for n in range(12))


async def burst(world: World) -> None:
    """Three callers of one missing request, and one after them."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.call, "leader")
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.call, "second")
        tasks.start_soon(world.call, "third")
    await world.call("late")


async def trickle(world: World) -> None:
    """Callers that come one after the other."""
    async with anyio.create_task_group() as tasks:
        for name in TRICKLING:
            tasks.start_soon(world.call, name)
            await anyio.lowlevel.checkpoint()


async def gap(world: World) -> None:
    """The second caller comes when the first may be gone."""
    world.pauses = 12
    async with anyio.create_task_group() as tasks:
        for name in ("leader", "second"):
            tasks.start_soon(world.call, name)
            for _ in range(4):
                await anyio.lowlevel.checkpoint()


async def invalidated(world: World, **targets: Any) -> None:
    """The world changes while the request is computed."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(world.call, "leader", tags=["t"], label="a/b", depends_on=["v"]))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(world.call, "second", tags=["t"]))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(world.invalidate, "invalidator", **targets))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.call, "third")
    await world.call("late")


async def stale(world: World) -> None:
    """The entry is stale, and computed anew behind the callers."""
    await world.cache.set(REQUEST, {"version": 0}, ttl=1, stale_while_revalidate=1000)
    world.finished.add(0)
    world.clock.advance(2)
    async with anyio.create_task_group() as tasks:
        for name in ("leader", "second", "third"):
            tasks.start_soon(partial(world.call, name, stale_while_revalidate=1000))
            await anyio.lowlevel.checkpoint()
    await partial(world.call, "late", stale_while_revalidate=1000)()


async def stale_and_invalidated(world: World) -> None:
    await world.cache.set(REQUEST, {"version": 0}, ttl=1, stale_while_revalidate=1000, tags=["t"])
    world.finished.add(0)
    world.clock.advance(2)
    again = partial(world.call, stale_while_revalidate=1000, tags=["t"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(again, "leader")
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(world.invalidate, "invalidator", tags=["t"]))
        tasks.start_soon(again, "second")
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(again, "third")
    await again("late")


async def failing(world: World) -> None:
    world.failing = ValueError("the provider said no")
    await burst(world)


async def impatient(world: World) -> None:
    """Callers with a timeout of their own that does not end."""
    async with anyio.create_task_group() as tasks:
        for name in ("leader", "second", "third"):
            tasks.start_soon(partial(world.call, name, timeout=1000))
    await world.call("late")


async def refreshed(world: World) -> None:
    """A caller that will not have what is running."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.call, "leader")
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(world.call, "second", refresh=True))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.call, "third")
    await world.call("late")


async def streamed(world: World) -> None:
    """Readers of one stream that come one after the other, some when it runs already."""
    async with anyio.create_task_group() as tasks:
        for name in ("leader", "second", "third"):
            tasks.start_soon(world.read, name)
            await anyio.lowlevel.checkpoint()
    await world.read("late")


async def streamed_and_invalidated(world: World) -> None:
    async with anyio.create_task_group() as tasks:
        for name in ("leader", "second"):
            tasks.start_soon(partial(world.read, name, tags=["t"]))
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(world.invalidate, "invalidator", tags=["t"]))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.read, "third")
    await world.read("late")


def no_tier(_: ManualClock) -> list[Any]:
    return []


def tier(clock: ManualClock) -> list[Any]:
    return [MemoryTier(clock=clock)]


BURST = Scenario("burst", burst, ("leader", "second", "late", "computation", "flight"), CALLERS)
ABANDONED = Scenario(
    "abandoned", burst, ("leader", "second", "computation"), CALLERS, {"on_abandon": "cancel"}
)
INVALIDATED = Scenario(
    "invalidated by tag",
    partial(invalidated, tags=["t"]),
    ("leader", "second", "third", "computation", "flight"),
    CALLERS,
)
TRICKLE = Scenario("trickle", trickle, ("caller 0", "caller 3", "computation", "flight"), TRICKLING)
GAP = Scenario("gap", gap, ("leader", "second", "computation", "flight"), ("leader", "second"))
SCENARIOS = [
    BURST,
    GAP,
    TRICKLE,
    ABANDONED,
    INVALIDATED,
    Scenario("no orphans", burst, ("leader", "second"), CALLERS, {"max_orphans": 0}),
    Scenario("invalidated by label", partial(invalidated, label="a/*"), ("leader", "second"), CALLERS),
    Scenario(
        "invalidated by namespace", partial(invalidated, namespace="default"), ("leader", "flight"), CALLERS
    ),
    Scenario("stale", stale, ("leader", "second", "computation", "flight"), CALLERS),
    Scenario(
        "stale and invalidated", stale_and_invalidated, ("leader", "second", "invalidator", "flight"), CALLERS
    ),
    Scenario("failing", failing, ("leader", "second", "flight"), CALLERS, fails_with=ValueError),
    Scenario("impatient", impatient, ("leader", "third", "computation"), CALLERS),
    Scenario("refreshed", refreshed, ("leader", "second", "third", "computation", "flight"), CALLERS),
    Scenario("burst over a tier", burst, ("leader", "second", "computation", "flight"), CALLERS, tiers=tier),
    Scenario(
        "invalidated over a tier",
        partial(invalidated, tags=["t"]),
        ("leader", "second", "invalidator", "flight"),
        CALLERS,
        tiers=tier,
    ),
]
SCENARIOS += [
    Scenario(
        name, play, ("leader", "second", "third", "computation", "flight"), CALLERS, streams=True, tiers=tiers
    )
    for name, play, tiers in (
        ("streamed", streamed, no_tier),
        ("streamed and invalidated", streamed_and_invalidated, no_tier),
        ("streamed over a tier", streamed, tier),
    )
]
STREAMED = next(scenario for scenario in SCENARIOS if scenario.name == "streamed and invalidated")
CASES = [
    pytest.param(scenario, victim, id=f"{scenario.name}-{victim}")
    for scenario in SCENARIOS
    for victim in scenario.victims
]
OF_CALLERS = [case for case in CASES if case.values[1] not in ("computation", "flight")]


def hit_all(scenario: Scenario, victim: str, backend: str, mode: Mode) -> None:
    awaits = explore(scenario, victim, backend, mode=mode)
    least = 0 if scenario.name.startswith("stale") or victim in ("late", "third") else 1
    assert awaits >= least, "the victim never waited: nothing was tried"


@pytest.mark.parametrize(("scenario", "victim"), CASES)
def test_every_await(scenario: Scenario, victim: str, anyio_backend: str) -> None:
    hit_all(scenario, victim, anyio_backend, "suspended")


@pytest.mark.parametrize(("scenario", "victim"), OF_CALLERS)
def test_every_await_that_has_just_ended(scenario: Scenario, victim: str) -> None:
    """On asyncio alone: on trio a cancellation never overtakes what has happened."""
    hit_all(scenario, victim, "asyncio", "woken")


@pytest.mark.parametrize(("scenario", "victim"), OF_CALLERS)
def test_the_whole_program_at_every_await(scenario: Scenario, victim: str, anyio_backend: str) -> None:
    hit_all(scenario, victim, anyio_backend, "program")


def test_the_awaits_of_the_flight_are_found(anyio_backend: str) -> None:
    """Three of the computation; over a tier also those of the read before it."""
    plain = explore(BURST, "flight", anyio_backend)
    streamed = explore(STREAMED, "flight", anyio_backend)
    tiered = explore(next(s for s in SCENARIOS if s.name == "burst over a tier"), "flight", anyio_backend)
    assert plain >= 3
    assert streamed >= 4
    assert tiered > plain


# --- planted bugs: a harness that finds nothing has to be shown to look -------------------------------------


class SharedFuture(Flights):
    """Callers await the computation itself, as with a bare future: one caller's cancellation cancels it."""

    def within(self) -> bool:
        # No caller takes the way that does without `join`.
        return True

    async def join(self, flight: Flight, timeout: float | None = None) -> Any:
        try:
            return await super().join(flight, timeout)
        except anyio.get_cancelled_exc_class():
            self.cancel(flight, FlightCancelled("the future was cancelled"))
            raise


class EndsWithAnyone(Flights):
    """Whoever leaves ends the flight, whether or not others wait: on either way to wait for it."""

    def leave(self, flight: Flight) -> None:
        super().leave(flight)
        if not flight.landed:
            self.cancel(flight, FlightCancelled("somebody left"))


class LeaderComputes(Flights):
    """The first caller runs the computation in its own task, the others wait for it."""

    def start(
        self, key: bytes, namespace: str, targets: Any, tags: Any, run: Callable[[Flight], Awaitable[Any]]
    ) -> Flight:
        flight = Flight(key, namespace, targets[0], next(self._numbers), set(targets), tags)
        self._table[key] = flight
        self._running.add(flight)
        flight.attachment = run
        return flight

    async def join(self, flight: Flight, timeout: float | None = None) -> Any:
        run, flight.attachment = flight.attachment, None
        if run is not None:
            await self._fly(flight, run)
        return await super().join(flight, timeout)


class ForgetsTheOthers(Flights):
    """A waiter that leaves is taken for the last one."""

    def leave(self, flight: Flight) -> None:
        flight.waiters = 1
        super().leave(flight)


class LeaksOrphans(Flights):
    """An orphan that finds a new waiter goes on being counted."""

    def adopt(self, flight: Flight) -> None:
        flight.waiters += 1
        flight.orphan = False


class NeverRemoves(Flights):
    """A flight that has landed keeps its slot."""

    def _remove(self, flight: Flight) -> None:
        pass


class KeepsCancelled(Flights):
    """A cancelled flight keeps its slot until its task has ended."""

    def cancel(self, flight: Flight, error: BaseException) -> None:
        flight.land(error=error)
        flight.scope.cancel()


class ForgetsToSupersede(Flights):
    """An invalidation does not reach what is running."""

    def supersede(self, namespace: str, targets: set[int] | None, patterns: Sequence[str] = ()) -> int:
        return 0


class JoinsSuperseded(Flights):
    """Newcomers join a flight that an invalidation has overtaken."""

    def supersede(self, namespace: str, targets: set[int] | None, patterns: Sequence[str] = ()) -> int:
        table = dict(self._table)
        count = super().supersede(namespace, targets, patterns)
        self._table.update(table)
        return count


class BareCancellation(Flights):
    """A cancellation that the computation raised reaches its waiters as one."""

    async def join(self, flight: Flight, timeout: float | None = None) -> Any:
        try:
            return await super().join(flight, timeout)
        except FlightCancelled:
            raise await stray_cancellation() from None


class StoresSuperseded(Flights):
    """What an invalidation has overtaken is not marked, only taken out."""

    def supersede(self, namespace: str, targets: set[int] | None, patterns: Sequence[str] = ()) -> int:
        before = set(self._running)
        count = super().supersede(namespace, targets, patterns)
        for flight in before:
            flight.superseded = False
        return count


class NeverJoins(Flights):
    """Each caller gets a flight of its own."""

    def get(self, key: bytes) -> Flight | None:
        return None


@pytest.mark.parametrize(
    ("bug", "scenario", "victim", "finds"),
    [
        (SharedFuture, TRICKLE, "caller 3", "I3"),
        (SharedFuture, BURST, "second", "I3"),
        (EndsWithAnyone, TRICKLE, "caller 3", "I3"),
        (EndsWithAnyone, BURST, "second", "I3"),
        (LeaderComputes, BURST, "leader", "I3"),
        (ForgetsTheOthers, ABANDONED, "second", "I3"),
        (LeaksOrphans, GAP, "leader", "orphans were never counted out"),
        (NeverRemoves, BURST, "leader", "left in the table"),
        (KeepsCancelled, TRICKLE, "flight", "I4"),
        (ForgetsToSupersede, INVALIDATED, "second", "I1"),
        (JoinsSuperseded, INVALIDATED, "third", "I1"),
        (BareCancellation, BURST, "computation", "I3"),
        (NeverJoins, BURST, "leader", "I4"),
        (ForgetsToSupersede, STREAMED, "second", "I1"),
        (JoinsSuperseded, STREAMED, "third", "I1"),
    ],
)
def test_planted_bugs_are_found(
    bug: type[Flights],
    scenario: Scenario,
    victim: str,
    finds: str,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.concurrency.injection.HANG", 2.0)
    # The second line of defence, which hides what the table of flights does wrong.
    monkeypatch.setattr("llmcache_fast._computing.Computing._predates", lambda *_: False)
    with pytest.raises(InvariantBrokenError, match=finds):
        explore(scenario, victim, anyio_backend, flights=bug)
