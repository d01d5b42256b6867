"""Computations that wait for themselves, directly, through others, through streams."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    LLMCache,
    Recorder,
    ReentrancyError,
    WaitTimeoutError,
)
from tests.concurrency.callers import A, B, C, Callers, Provider, options


async def test_a_computation_that_needs_itself() -> None:
    async def compute() -> Any:
        return await cache.get_or_compute(A, compute)

    async with LLMCache(**options()) as cache:
        with pytest.raises(ReentrancyError):
            await cache.get_or_compute(A, compute)
        assert cache.stats().flights["running"] == 0
        assert await cache.get_or_compute(A, Provider().done()) == "answer"


@pytest.mark.parametrize("length", [2, 3, 6])
async def test_a_ring_of_computations(length: int) -> None:
    requests = [{"n": n} for n in range(length)]

    async def compute(at: int) -> Any:
        following = (at + 1) % length
        return await cache.get_or_compute(requests[following], partial(compute, following))

    async with LLMCache(**options()) as cache:
        with pytest.raises(ReentrancyError):
            await cache.get_or_compute(requests[0], partial(compute, 0))
        flights = cache.stats().flights
        assert (flights["running"], flights["waiting"]) == (0, 0)


async def test_a_computation_that_needs_itself_in_a_task_of_its_own() -> None:
    async def inner() -> None:
        await cache.get_or_compute(A, compute)

    async def compute() -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inner)
        return "answer"

    async with LLMCache(**options()) as cache:
        with pytest.raises(ExceptionGroup) as caught:
            await cache.get_or_compute(A, compute)
        assert caught.group_contains(ReentrancyError)


async def test_two_that_wait_for_each_other() -> None:
    started = {"A": anyio.Event(), "B": anyio.Event()}

    async def compute(own: str, request: Any, other: str) -> Any:
        started[own].set()
        await started[other].wait()
        try:
            return await cache.get_or_compute(request, partial(Provider().done()))
        except ReentrancyError:
            return f"{own} alone"

    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        first = await start(cache.get_or_compute, A, partial(compute, "A", B, "B"))
        second = await start(cache.get_or_compute, B, partial(compute, "B", A, "A"))
        await anyio.wait_all_tasks_blocked()
        assert {first.value, second.value} in ({"A alone"}, {"B alone"})


async def test_what_only_looks_like_a_ring() -> None:
    shared = Provider("shared")

    async def needs(request: Any) -> Any:
        return await cache.get_or_compute(request, shared)

    async def twice() -> Any:
        return [await needs(C), await needs(C)]

    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        first = await start(cache.get_or_compute, A, partial(needs, C))
        second = await start(cache.get_or_compute, B, twice)
        shared.go.set()
        await anyio.wait_all_tasks_blocked()
        assert first.value == "shared"
        assert second.value == ["shared", "shared"]
        assert shared.calls == 1


async def test_a_ring_through_one_of_two_waits() -> None:
    """A waits for B twice and gives one of the two up; B needs A all the same."""
    given_up = anyio.Event()

    async def impatient() -> None:
        with pytest.raises(WaitTimeoutError):
            await cache.get_or_compute(B, needs_a, timeout=0.01)
        given_up.set()

    async def needs_a() -> Any:
        await given_up.wait()
        return await cache.get_or_compute(A, needs_b)

    async def needs_b() -> Any:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(impatient)
            return await cache.get_or_compute(B, needs_a)

    async with LLMCache(**options()) as cache:
        with pytest.raises((ReentrancyError, ExceptionGroup)), anyio.fail_after(10):
            await cache.get_or_compute(A, needs_b)


async def test_a_stream_whose_source_needs_itself() -> None:
    async def source(recorder: Recorder) -> None:
        reader = await cache.stream(A, source)
        await reader.aclose()

    async with LLMCache(**options()) as cache:
        with pytest.raises(ReentrancyError), anyio.fail_after(10):
            await cache.stream(A, source)
        flights = cache.stats().flights
        assert (flights["running"], flights["waiting"]) == (0, 0)


async def test_a_computation_that_needs_a_stream_that_needs_it() -> None:
    async def source(recorder: Recorder) -> None:
        await cache.get_or_compute(B, needs_stream)

    async def needs_stream() -> str:
        reader = await cache.stream(A, source)
        await reader.aclose()
        return "answer"

    async with LLMCache(**options()) as cache:
        with pytest.raises(ReentrancyError), anyio.fail_after(10):
            await cache.get_or_compute(B, needs_stream)


async def test_a_task_started_by_a_computation_may_outlive_it() -> None:
    """When the computation has landed, nothing waits for it any more."""
    late = Provider("second")
    seen: list[Any] = []
    async with LLMCache(**options()) as cache, anyio.create_task_group() as background:

        async def afterwards() -> None:
            await landed.wait()
            seen.append(await cache.get_or_compute(A, late, refresh=True))

        async def compute() -> str:
            background.start_soon(afterwards)
            return "first"

        landed = anyio.Event()
        late.go.set()
        assert await cache.get_or_compute(A, compute) == "first"
        landed.set()
        await anyio.wait_all_tasks_blocked()
        assert seen == ["second"]
