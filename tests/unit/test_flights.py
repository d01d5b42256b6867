"""Flights: one computation, any number of waiters, each with an end of its own. Races are in
`tests/concurrency`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llmcache_fast import (
    FlightCancelled,
    FlightDeadlineExceeded,
    LLMCache,
    ReentrancyError,
    WaitTimeoutError,
)
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights

KEY = b"k" * 32


@asynccontextmanager
async def flights(**options: Any) -> AsyncIterator[Flights]:
    async with anyio.create_task_group() as tasks:
        defaults: dict[str, Any] = {
            "deadline": 60.0,
            "on_abandon": "finish",
            "max_orphans": 8,
            "max_background": 8,
        }
        made = Flights(tasks, **(defaults | options))
        await tasks.start(made.run)
        yield made
        made.close()
        tasks.cancel_scope.cancel()


def start(
    made: Flights, run: Callable[[Flight], Awaitable[Any]], key: bytes = KEY, targets: Any = (1,)
) -> Flight:
    return made.start(key, "n", targets, (), run)


class Gated:
    """A computation that waits to be let go."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.started = anyio.Event()
        self.cancelled = False

    async def __call__(self, flight: Flight) -> str:
        self.started.set()
        try:
            await self.go.wait()
        except BaseException:
            self.cancelled = True
            raise
        return "value"


async def test_waiters_share_one_value() -> None:
    run = Gated()
    got: list[Any] = []
    async with flights() as made:
        flight = start(made, run)
        assert made.get(KEY) is flight, "registered before the first await"

        async def wait() -> None:
            got.append(await made.join(flight))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert made.statistics().waiting == 5
            run.go.set()
        assert got == ["value"] * 5
        assert made.get(KEY) is None
        assert await made.join(flight) == "value", "late for a landed flight"


async def test_each_waiter_has_an_exception_of_its_own() -> None:
    original = ConnectionError("down")

    async def fails(flight: Flight) -> str:
        await anyio.lowlevel.checkpoint()
        raise original

    caught: list[BaseException] = []
    async with flights() as made:
        flight = start(made, fails)

        async def wait() -> None:
            try:
                await made.join(flight)
            except ConnectionError as error:
                caught.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
        assert made.statistics().failed == 1
    assert len({id(error) for error in caught}) == 2
    assert all(error is not original and error.__cause__ is original for error in caught)


async def test_a_cancelled_waiter_harms_nobody_even_the_first() -> None:
    run = Gated()
    async with flights() as made:
        flight = start(made, run)
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(made.join, flight)
                await run.started.wait()
                first.cancel()
        assert not run.cancelled
        run.go.set()
        assert await made.join(flight) == "value"


async def test_a_waiters_timeout_is_its_own() -> None:
    run = Gated()
    async with flights() as made:
        flight = start(made, run)
        with pytest.raises(WaitTimeoutError):
            await made.join(flight, timeout=0)
        assert made.statistics().orphans == 1
        run.go.set()
        assert await made.join(flight) == "value"
        assert made.statistics().orphans == 0


async def test_abandoned_flights_are_cancelled_when_asked_or_when_too_many() -> None:
    for options in ({"on_abandon": "cancel"}, {"max_orphans": 0}):
        run = Gated()
        async with flights(**options) as made:
            flight = start(made, run)
            with pytest.raises(WaitTimeoutError):
                await made.join(flight, timeout=0.001)
            while made.statistics().running:
                await anyio.lowlevel.checkpoint()
            assert made.get(KEY) is None
            assert made.statistics().cancelled == 1


async def test_a_deadline_ends_and_detaches() -> None:
    """Even a computation that does not let itself be cancelled."""
    go = anyio.Event()

    async def stubborn(flight: Flight) -> str:
        with anyio.CancelScope(shield=True):
            await go.wait()
        return "late"

    async with flights(deadline=0.01) as made:
        flight = start(made, stubborn)
        with pytest.raises(FlightDeadlineExceeded):
            await made.join(flight)
        assert made.get(KEY) is None
        assert made.statistics().deadlines == 1
        go.set()


async def test_a_superseded_flight_is_not_joined_and_its_waiters_get_the_value() -> None:
    run = Gated()
    async with flights() as made:
        flight = start(made, run, targets=(1, 2))
        assert made.supersede("n", {3}) == 0
        assert made.supersede("other", {2}) == 0
        assert made.supersede("n", {2, 9}) == 1
        assert made.supersede("n", {2}) == 0, "once"
        assert made.get(KEY) is None
        newer = start(made, run)
        assert made.get(KEY) is newer
        run.go.set()
        assert await made.join(flight) == "value"
        assert flight.superseded
        assert not newer.superseded


async def test_a_namespace_supersedes_all_of_it() -> None:
    run = Gated()
    async with flights() as made:
        for number in range(3):
            start(made, run, bytes([number]) * 32)
        assert made.supersede("n", None) == 3
        run.go.set()


async def test_waiting_for_oneself_raises_at_once() -> None:
    async with flights() as made:

        async def recursive(flight: Flight) -> Any:
            return await made.join(flight)

        with pytest.raises(ReentrancyError):
            await made.join(start(made, recursive))


async def test_waiting_for_oneself_through_another_raises_at_once() -> None:
    keys = [b"a" * 32, b"b" * 32]
    async with flights() as made:

        async def first(flight: Flight) -> Any:
            return await made.join(start(made, second, keys[1]))

        async def second(flight: Flight) -> Any:
            there = made.get(keys[0])
            assert there is not None
            return await made.join(there)

        with pytest.raises(ReentrancyError):
            await made.join(start(made, first, keys[0]))


async def test_a_computation_that_raises_a_cancellation_itself() -> None:
    async def cancels(flight: Flight) -> str:
        caught: list[BaseException] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                caught.append(error)
                raise
        raise caught[0]

    async with flights() as made:
        flight = start(made, cancels)
        with pytest.raises(FlightCancelled, match="raised a cancellation"):
            await made.join(flight)


async def test_closing_ends_every_waiter() -> None:
    run = Gated()
    outcome: list[BaseException] = []
    async with flights() as made:
        flight = start(made, run)

        async def wait() -> None:
            try:
                await made.join(flight)
            except FlightCancelled as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await run.started.wait()
            await anyio.wait_all_tasks_blocked()
            made.close()
        with pytest.raises(FlightCancelled, match="closing"):
            start(made, run)
    assert len(outcome) == 1


async def test_an_exception_of_any_kind_stays_within_its_flight() -> None:
    class Panic(BaseException):
        """As an extension's panic."""

    async def compute() -> str:
        raise Panic("broken")

    async def fine() -> str:
        return "fine"

    async with LLMCache() as cache:
        with pytest.raises(Panic):
            await cache.get_or_compute({"q": 1}, compute)
        assert await cache.get_or_compute({"q": 2}, fine) == "fine"
