"""What callers see of flights: cancellation, errors, deadlines, what is left behind."""

from __future__ import annotations

import gc
import json
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    CacheClosedError,
    CacheResult,
    ComputationError,
    FlightCancelled,
    FlightDeadlineExceeded,
    LLMCache,
    WaitTimeoutError,
)
from llmcache_fast.actors.flight import Flight
from tests.concurrency.callers import A, B, C, Callers, Provider, ProviderError, options
from tests.concurrency.injection import stray_cancellation

# --- cancellation of callers --------------------------------------------------------------------------------


async def test_a_cancelled_leader_breaks_nobody() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        leader = await start(cache.get_or_compute, A, provider)
        others = [await start(cache.resolve, A, provider) for _ in range(3)]
        leader.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert leader.scope.cancelled_caught
        assert not leader.done
        assert not any(other.done for other in others)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert [other.value.value for other in others] == ["answer"] * 3
        assert [other.value.status for other in others] == ["joined"] * 3
        assert (provider.calls, provider.cancelled) == (1, 0)
        assert cache.stats().flights["running"] == 0


async def test_a_cancelled_waiter_breaks_nobody() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        leader = await start(cache.resolve, A, provider)
        waiter = await start(cache.get_or_compute, A, provider)
        waiter.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert leader.value.status == "miss"
        assert leader.value.value == "answer"
        assert provider.calls == 1


async def test_the_last_waiter_leaves_and_the_answer_is_kept() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        callers = [await start(cache.get_or_compute, A, provider) for _ in range(2)]
        for caller in callers:
            caller.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        flights = cache.stats().flights
        assert (flights["running"], flights["orphans"], flights["waiting"]) == (1, 1, 0)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == "answer"
        assert cache.stats().flights["orphans"] == 0
        assert (provider.calls, provider.cancelled) == (1, 0)


async def test_the_last_waiter_leaves_and_the_computation_is_cancelled() -> None:
    provider = Provider()
    async with LLMCache(**options(on_abandon="cancel")) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        first, second = [await start(cache.get_or_compute, A, provider) for _ in range(2)]
        first.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert provider.cancelled == 0
        second.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert provider.cancelled == 1
        provider.go.set()
        assert cache.get_nowait(A) is None
        assert await cache.get_or_compute(A, provider) == "answer"
        assert provider.calls == 2


async def test_orphans_have_a_cap() -> None:
    providers = [Provider(n) for n in range(4)]
    async with LLMCache(**options(max_orphans=2)) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        requests = [{"n": n} for n in range(4)]
        callers = [
            await start(cache.get_or_compute, request, provider)
            for request, provider in zip(requests, providers, strict=True)
        ]
        for caller in callers[:3]:
            caller.scope.cancel()
            await anyio.wait_all_tasks_blocked()
        assert [provider.cancelled for provider in providers] == [0, 0, 1, 0]
        assert cache.stats().flights["orphans"] == 2
        # One that finds a waiter again is an orphan no longer, and makes room.
        again = await start(cache.get_or_compute, requests[0], providers[0])
        assert cache.stats().flights["orphans"] == 1
        callers[3].scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert providers[3].cancelled == 0
        for provider in providers:
            provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert again.value == 0
        assert [cache.get_nowait(request) for request in requests] == [0, 1, None, 3]
        assert cache.stats().flights["orphans"] == 0


async def test_a_caller_that_is_cancelled_before_it_waits_leaves_nothing() -> None:
    provider = Provider().done()
    async with LLMCache(**options()) as cache:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await cache.get_or_compute(A, provider)
        await anyio.wait_all_tasks_blocked()
        flights = cache.stats().flights
        assert (flights["running"], flights["orphans"], flights["waiting"]) == (0, 0, 0)
        assert await cache.get_or_compute(A, provider) == "answer"
        assert provider.calls == 1


@pytest.mark.parametrize("callers", [2, 100, 1000])
async def test_many_callers_one_computation(callers: int) -> None:
    provider = Provider({"big": list(range(50))})
    values: list[Any] = []

    async def call() -> None:
        values.append(await cache.get_or_compute(A, provider))

    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        for _ in range(callers):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert cache.stats().flights["waiting"] == callers
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert values == [{"big": list(range(50))}] * callers
        assert len({id(value) for value in values}) == callers, "each caller owns its value"
        assert provider.calls == 1
        assert cache.stats().joined == callers - 1


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ProviderError("overloaded", status_code=503, body={"a": 1}),
        OSError(5, "input/output", "/file"),
        KeyError("k"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        json.JSONDecodeError("bad", "doc", 1),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_reaches_all_waiters_each_with_its_own(error: Exception) -> None:
    provider = Provider(error, "answer")
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        callers = [await start(cache.get_or_compute, A, provider) for _ in range(3)]
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert len({id(each) for each in errors}) == 3
        for each in errors:
            assert each is not None
            assert type(each) is type(error)
            assert (each.args, str(each)) == (error.args, str(error))
            assert vars(each) == vars(error)
            assert each.__cause__ is error or each is error
        assert cache.stats().flights["failed"] == 1
        assert await cache.get_or_compute(A, provider) == "answer", "an error is not remembered"


async def test_an_error_that_cannot_be_copied_still_reaches_all() -> None:
    made: list[Exception] = []

    class OnlyOneError(Exception):
        def __new__(cls, *_: object) -> Self:
            if made:
                raise RuntimeError("only one")
            return super().__new__(cls)

    made.append(OnlyOneError())
    provider = Provider(made[0])
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        callers = [await start(cache.get_or_compute, A, provider) for _ in range(2)]
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert all(isinstance(error, ComputationError) for error in errors)
        assert [error.__cause__ for error in errors if error] == made * 2
        assert errors[0] is not errors[1]


@pytest.mark.parametrize("stale_if_error", [0, 1000])
async def test_a_computation_that_raises_a_cancellation(stale_if_error: float) -> None:
    async def confused() -> str:
        await anyio.lowlevel.checkpoint()
        raise await stray_cancellation()

    provider = Provider("later").done()
    async with (
        LLMCache(**options(stale_if_error=stale_if_error)) as cache,
        anyio.create_task_group() as tasks,
    ):
        start = Callers(tasks)
        callers = [await start(cache.get_or_compute, A, confused) for _ in range(2)]
        assert all(isinstance(caller.error, FlightCancelled) for caller in callers)
        assert not any(caller.scope.cancelled_caught for caller in callers)
        assert await cache.get_or_compute(A, provider) == "later"


async def test_a_computation_may_use_cancellation_inside() -> None:
    async def patient() -> str:
        with anyio.move_on_after(0.001):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return "answer"

    async with LLMCache(**options()) as cache:
        assert await cache.get_or_compute(A, patient) == "answer"
        assert cache.get_nowait(A) == "answer"


async def test_a_computation_that_times_out_itself_is_an_error() -> None:
    async def slow() -> str:
        with anyio.fail_after(0.001):
            await anyio.sleep_forever()
        raise AssertionError

    async with LLMCache(**options()) as cache:
        with pytest.raises(TimeoutError) as caught:
            await cache.get_or_compute(A, slow)
        assert type(caught.value) is TimeoutError
        assert cache.stats().flights["failed"] == 1


# --- deadlines ----------------------------------------------------------------------------------------------


async def test_the_deadline_ends_a_computation() -> None:
    provider = Provider()
    async with LLMCache(**options(deadline=0.3)) as cache:
        async with anyio.create_task_group() as tasks:
            start = Callers(tasks)
            callers = [await start(cache.get_or_compute, A, provider) for _ in range(2)]
        assert all(isinstance(caller.error, FlightDeadlineExceeded) for caller in callers)
        assert isinstance(callers[0].error, TimeoutError)
        await anyio.wait_all_tasks_blocked()
        assert (provider.calls, provider.cancelled) == (1, 1)
        assert cache.stats().flights["deadlines"] == 1
        assert cache.stats().flights["running"] == 0
        assert cache.get_nowait(A) is None
        provider.go.set()
        assert await cache.get_or_compute(A, provider) == "answer"


async def test_the_deadline_detaches_what_will_not_end() -> None:
    release = anyio.Event()
    calls: list[int] = []

    async def stubborn() -> str:
        calls.append(1)
        if len(calls) > 1:
            return "second"
        with anyio.CancelScope(shield=True):
            await release.wait()
        await anyio.lowlevel.checkpoint()
        return "first"

    async with LLMCache(**options(deadline=0.05)) as cache:
        with pytest.raises(FlightDeadlineExceeded):
            await cache.get_or_compute(A, stubborn)
        assert cache.stats().flights["running"] == 1, "it goes on, detached"
        assert await cache.get_or_compute(A, stubborn) == "second", "nobody joins it"
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.stats().flights["running"] == 0
        assert cache.get_nowait(A) == "second"


async def test_a_callers_own_timeout_ends_only_its_wait() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        patient = await start(cache.get_or_compute, A, provider)
        with pytest.raises(WaitTimeoutError) as caught:
            await cache.get_or_compute(A, provider, timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert cache.stats().flights["waiting"] == 1
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert patient.value == "answer"
        assert provider.calls == 1


# --- what is left behind ------------------------------------------------------------------------------------


async def test_flights_that_have_landed_are_let_go() -> None:
    """Not only at their deadline: each would keep its answer alive."""

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Flight for thing in gc.get_objects())

    before = alive()
    async with LLMCache(**options()) as cache:
        for n in range(300):
            await cache.get_or_compute({"n": n}, Provider("x" * 100).done())
        await anyio.wait_all_tasks_blocked()
        assert alive() - before < 10


async def test_deadlines_hold_for_each_of_many() -> None:
    """Also for the flight that is not the oldest, and after the oldest has landed."""
    quick, slow = Provider().done(), Provider()
    async with LLMCache(**options(deadline=0.3)) as cache:
        assert await cache.get_or_compute(A, quick) == "answer"
        for request in (B, C):
            with pytest.raises(FlightDeadlineExceeded):
                await cache.get_or_compute(request, slow)
        assert cache.stats().flights["deadlines"] == 2


# --- closing ------------------------------------------------------------------------------------------------


async def test_closing_ends_the_wait_of_everybody() -> None:
    provider = Provider()
    async with anyio.create_task_group() as tasks:
        start = Callers(tasks)
        async with LLMCache(**options()) as cache:
            callers = [await start(cache.get_or_compute, A, provider) for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        assert all(isinstance(caller.error, FlightCancelled) for caller in callers)
        assert provider.cancelled == 1
        with pytest.raises(CacheClosedError):
            await cache.get_or_compute(A, provider)


async def test_a_result_says_where_it_came_from() -> None:
    provider = Provider({"a": 1})
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        leader = await start(cache.resolve, A, provider)
        joined = await start(cache.resolve, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        hit: CacheResult[Any] = await cache.resolve(A, provider)
        assert [leader.value.status, joined.value.status, hit.status] == ["miss", "joined", "hit"]
        assert [leader.value.tier, joined.value.tier, hit.tier] == [None, None, "memory"]
        assert leader.value.fingerprint == joined.value.fingerprint == hit.fingerprint == cache.fingerprint(A)
