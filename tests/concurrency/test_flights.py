"""What callers see of flights: cancellation, errors, deadlines, re-entrancy, invalidation, staleness."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    CacheClosedError,
    CacheResult,
    ComputationError,
    Computed,
    FlightCancelled,
    FlightDeadlineExceeded,
    LLMCache,
    NotCachedError,
    Recorder,
    ReentrancyError,
    WaitTimeoutError,
)
from llmcache_fast.actors.flights import Flight
from llmcache_fast.testing import ManualClock
from tests.concurrency.injection import stray_cancellation

A, B, C = ({"model": "m", "n": n} for n in "ABC")


class Provider:
    """A computation that waits for leave to go on, and counts."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values) or ["answer"]
        self.calls = 0
        self.cancelled = 0
        self.running = 0
        self.most = 0
        self.go = anyio.Event()

    async def __call__(self) -> Any:
        value = self.values[min(self.calls, len(self.values) - 1)]
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(value, Exception):
            raise value
        return value

    def done(self) -> Provider:
        self.go.set()
        return self


def options(**given: Any) -> dict[str, Any]:
    return {"jitter": 0.0, "negative_ttl": 0.0, **given}


class Caller:
    """One call in a task of its own, with its own cancel scope and ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.scope = anyio.CancelScope()
        self.value: Any = None
        self.error: Exception | None = None
        self.done = False

    async def run(self) -> None:
        with self.scope:
            try:
                self.value = await self._call()
            except Exception as error:
                self.error = error
            self.done = True


class Callers:
    """Starts callers, each as far as it gets."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks

    async def __call__(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Caller:
        caller = Caller(partial(call, *args, **kwargs))
        self._tasks.start_soon(caller.run)
        await anyio.wait_all_tasks_blocked()
        return caller


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


class ProviderError(Exception):
    """As the SDKs make them: arguments that are not in `args`, and facts."""

    def __init__(self, message: str, *, status_code: int, body: object) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.body = body


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


# --- re-entrancy --------------------------------------------------------------------------------------------


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


# --- invalidation while it is computed ----------------------------------------------------------------------

CALL: dict[str, Any] = {"tags": ["t", "u"], "label": "content/blog/post", "depends_on": ["pricing"]}


def by_request(cache: LLMCache) -> Any:
    return cache.invalidate(A)


INVALIDATIONS: dict[str, Callable[[LLMCache], Any]] = {
    "request": by_request,
    "key": lambda cache: cache.invalidate(key=cache.fingerprint(A)),
    "tag": lambda cache: cache.invalidate(tags=["t"]),
    "one of several tags": lambda cache: cache.invalidate(tags=["x", "u"]),
    "label": lambda cache: cache.invalidate(label="content/blog/post"),
    "label prefix": lambda cache: cache.invalidate(label="content/blog/*"),
    "label prefix above": lambda cache: cache.invalidate(label="content/"),
    "version": lambda cache: cache.bump_version("pricing"),
    "namespace": lambda cache: cache.invalidate(namespace="default"),
    "delete": lambda cache: cache.delete(A),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_superseded_while_it_runs(how: str) -> None:
    old, new = Provider("old"), Provider("new")
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = [await start(cache.resolve, A, old, **CALL) for _ in range(2)]
        await INVALIDATIONS[how](cache)
        after = await start(cache.resolve, A, new, **CALL)
        assert (old.calls, new.calls) == (1, 1), "a newcomer starts a flight of its own"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        for caller in before:
            assert caller.value.value == "old"
            assert caller.value.superseded
        assert cache.get_nowait(A) is None, "what was superseded is not stored"
        assert not after.done
        assert cache.stats().not_stored == {"superseded": 1}
        new.go.set()
        await anyio.wait_all_tasks_blocked()
        assert after.value.value == "new"
        assert not after.value.superseded
        assert cache.get_nowait(A) == "new"
        assert old.cancelled == 0
        flights = cache.stats().flights
        assert (flights["running"], flights["orphans"], flights["waiting"]) == (0, 0, 0)


@pytest.mark.parametrize("how", INVALIDATIONS)
async def test_the_old_answer_comes_after_the_new_one(how: str) -> None:
    old, new = Provider("old"), Provider("new").done()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        before = await start(cache.resolve, A, old, **CALL)
        await INVALIDATIONS[how](cache)
        assert await cache.get_or_compute(A, new, **CALL) == "new"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        assert before.value.value == "old"
        assert cache.get_nowait(A) == "new"


@pytest.mark.parametrize(
    "targets",
    [{"tags": ["other"]}, {"label": "content/blogs/*"}, {"label": "content/blog/posts"}, {"namespace": "n"}],
)
async def test_other_invalidations_touch_nothing(targets: dict[str, Any]) -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider, **CALL)
        await cache.invalidate(**targets)
        joined = await start(cache.resolve, A, provider, **CALL)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert not caller.value.superseded
        assert joined.value.status == "joined"
        assert cache.get_nowait(A) == "answer"


async def test_a_tag_that_only_a_joining_caller_brought() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider)
        await start(cache.resolve, A, provider, tags=["brought"])
        await cache.invalidate(tags=["brought"])
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) is None


async def test_a_tag_of_a_joining_caller_stays_with_the_entry() -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider, tags=["one"])
        await start(cache.resolve, A, provider, tags=["two"])
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == "answer"
        await cache.invalidate(tags=["two"])
        assert cache.get_nowait(A) is None


@pytest.mark.parametrize("while_running", [True, False])
async def test_a_version_that_only_a_joining_caller_brought(while_running: bool) -> None:
    provider = Provider()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        await start(cache.resolve, A, provider, depends_on=["prices"])
        await start(cache.resolve, A, provider, depends_on=["taxes"])
        if while_running:
            await cache.bump_version("taxes")
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == (None if while_running else "answer")
        await cache.bump_version("taxes")
        assert cache.get_nowait(A) is None


async def test_a_tag_that_the_computation_names_only_at_its_end() -> None:
    provider = Provider(Computed("answer", tags=["found"]))
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider)
        await cache.invalidate(tags=["found"])
        joined = await start(cache.resolve, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value.superseded
        assert joined.value.value == "answer"
        assert cache.get_nowait(A) is None


async def test_a_value_that_is_set_meanwhile_wins() -> None:
    provider = Provider("computed")
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.resolve, A, provider)
        await cache.set(A, "set")
        assert await cache.get_or_compute(A, provider) == "set"
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value.value == "computed"
        assert cache.get_nowait(A) == "set"


async def test_refresh_computes_anew_beside_what_runs() -> None:
    old, new = Provider("old"), Provider("new").done()
    async with LLMCache(**options()) as cache, anyio.create_task_group() as tasks:
        start = Callers(tasks)
        caller = await start(cache.get_or_compute, A, old)
        assert await cache.get_or_compute(A, new, refresh=True) == "new"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        assert caller.value == "old"
        assert cache.get_nowait(A) == "new"


# --- stale while it is computed anew ------------------------------------------------------------------------


async def test_stale_is_returned_at_once_and_computed_once() -> None:
    clock, provider = ManualClock(), Provider("old", "new")
    async with (
        LLMCache(clock=clock, ttl=10, stale_while_revalidate=100, **options()) as cache,
        anyio.create_task_group() as tasks,
    ):
        start = Callers(tasks)
        await start(cache.get_or_compute, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        provider.go = anyio.Event()
        clock.advance(11)
        results = [await cache.resolve(A, provider) for _ in range(5)]
        assert [(result.value, result.status) for result in results] == [("old", "stale")] * 5
        await anyio.wait_all_tasks_blocked()
        assert provider.calls == 2
        assert cache.stats().flights["running"] == 1
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        fresh = await cache.resolve(A, provider)
        assert (fresh.value, fresh.status) == ("new", "hit")
        assert provider.calls == 2
        assert provider.most == 1


async def test_past_the_stale_window_callers_wait() -> None:
    clock, provider = ManualClock(), Provider("old", "new").done()
    async with LLMCache(clock=clock, ttl=10, stale_while_revalidate=100, **options()) as cache:
        await cache.get_or_compute(A, provider)
        clock.advance(111)
        result = await cache.resolve(A, provider)
        assert (result.value, result.status) == ("new", "miss")


async def test_an_expired_entry_is_stale_and_an_invalidated_one_is_not() -> None:
    clock, provider = ManualClock(), Provider("old", "new").done()
    async with LLMCache(clock=clock, ttl=10, stale_while_revalidate=100, **options()) as cache:
        await cache.get_or_compute(A, provider)
        assert await cache.expire(A)
        assert (await cache.resolve(A, provider)).status == "stale"
        await anyio.wait_all_tasks_blocked()
        assert await cache.get_or_compute(A, provider) == "new"
        clock.advance(11)
        await cache.invalidate(A)
        assert (await cache.resolve(A, provider)).status == "miss"


async def test_stale_and_invalidated_while_it_is_computed_anew() -> None:
    clock, old, new = ManualClock(), Provider("first", "old"), Provider("new").done()
    async with (
        LLMCache(clock=clock, ttl=10, stale_while_revalidate=100, **options()) as cache,
        anyio.create_task_group() as tasks,
    ):
        start = Callers(tasks)
        await start(cache.get_or_compute, A, old)
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        old.go = anyio.Event()
        clock.advance(11)
        assert await cache.get_or_compute(A, old) == "first"
        await anyio.wait_all_tasks_blocked()
        await cache.invalidate(A)
        assert await cache.get_or_compute(A, new) == "new"
        old.go.set()
        await anyio.wait_all_tasks_blocked()
        assert cache.get_nowait(A) == "new"
        assert old.calls == 2


# --- stale when the computation fails -----------------------------------------------------------------------


async def test_stale_stands_in_for_a_failure_and_is_not_retried_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    provider = Provider("old", ValueError("down"), ValueError("down"), "new").done()
    async with LLMCache(clock=clock, ttl=10, stale_if_error=100, **options()) as cache:
        await cache.get_or_compute(A, provider)
        clock.advance(11)
        result = await cache.resolve(A, provider)
        assert (result.value, result.status, provider.calls) == ("old", "stale", 2)
        # Not before RETRY_AFTER is the provider asked again.
        for _ in range(3):
            result = await cache.resolve(A, provider)
            assert (result.value, result.status, provider.calls) == ("old", "stale", 2)
        assert await cache.get_or_compute(B, Provider("b").done()) == "b", "another request is not held back"
        monkeypatch.setattr("llmcache_fast._computing.RETRY_AFTER", -1.0)
        cache._computing._retry_after.clear()
        assert (await cache.resolve(A, provider)).status == "stale"
        assert provider.calls == 3
        assert (await cache.resolve(A, provider)).value == "new"
        assert provider.calls == 4


async def test_no_stand_in_past_its_window_or_after_an_invalidation() -> None:
    clock, provider = ManualClock(), Provider("old", ValueError("down")).done()
    async with LLMCache(clock=clock, ttl=10, stale_if_error=100, **options()) as cache:
        await cache.get_or_compute(A, provider, tags=["t"])
        await cache.get_or_compute(B, Provider("b").done(), tags=["t"])
        clock.advance(111)
        with pytest.raises(ValueError, match="down"):
            await cache.get_or_compute(A, provider)
    provider = Provider("old", ValueError("down")).done()
    async with LLMCache(clock=clock, ttl=10, stale_if_error=100, **options()) as cache:
        await cache.get_or_compute(A, provider, tags=["t"])
        clock.advance(11)
        await cache.invalidate(tags=["t"])
        with pytest.raises(ValueError, match="down"):
            await cache.get_or_compute(A, provider)


async def test_a_failure_after_an_invalidation_brings_nothing_back() -> None:
    """The stand-in was invalidated while its successor was computed (I1)."""
    clock, provider = ManualClock(), Provider("old", ValueError("down"))
    async with (
        LLMCache(clock=clock, ttl=10, stale_if_error=100, **options()) as cache,
        anyio.create_task_group() as tasks,
    ):
        start = Callers(tasks)
        await start(cache.get_or_compute, A, provider)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        provider.go = anyio.Event()
        clock.advance(11)
        caller = await start(cache.get_or_compute, A, provider)
        await cache.invalidate(A)
        provider.go.set()
        await anyio.wait_all_tasks_blocked()
        assert isinstance(caller.error, ValueError)


async def test_a_failed_background_computation_tells_nobody_and_keeps_the_old() -> None:
    clock, provider = ManualClock(), Provider("old", ValueError("down")).done()
    async with LLMCache(clock=clock, ttl=10, stale_while_revalidate=100, **options()) as cache:
        await cache.get_or_compute(A, provider)
        clock.advance(11)
        assert await cache.get_or_compute(A, provider) == "old"
        await anyio.wait_all_tasks_blocked()
        assert await cache.get_or_compute(A, provider) == "old"
        assert cache.stats().failures == 1
        assert provider.calls == 2, "nor is it tried again at once"


# --- remembered refusals ------------------------------------------------------------------------------------


def refusal(status: int) -> ProviderError:
    return ProviderError("refused", status_code=status, body=None)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_deterministic_refusal_is_remembered(status: int) -> None:
    provider = Provider(refusal(status), "answer").done()
    async with LLMCache(**options(negative_ttl=1000)) as cache:
        errors = []
        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await cache.get_or_compute(A, provider)
            errors.append(caught.value)
        assert provider.calls == 1
        assert len({id(error) for error in errors}) == 3
        assert {error.status_code for error in errors} == {status}
        assert cache.get_nowait(A) is None
        assert await cache.get_or_compute(B, Provider("b").done()) == "b"
        assert await cache.get_or_compute(A, provider, refresh=True) == "answer"
        assert await cache.get_or_compute(A, provider) == "answer"


@pytest.mark.parametrize(
    "error",
    [refusal(401), refusal(408), refusal(429), refusal(500), refusal(503), OSError(), TimeoutError()],
    ids=repr,
)
async def test_what_may_pass_is_never_remembered(error: Exception) -> None:
    provider = Provider(error, "answer").done()
    async with LLMCache(**options(negative_ttl=1000)) as cache:
        with pytest.raises(type(error)):
            await cache.get_or_compute(A, provider)
        assert await cache.get_or_compute(A, provider) == "answer"


async def test_a_refusal_never_replaces_a_good_value() -> None:
    clock, provider = ManualClock(), Provider("old", refusal(400)).done()
    async with LLMCache(clock=clock, ttl=10, stale_if_error=100, **options(negative_ttl=1000)) as cache:
        await cache.get_or_compute(A, provider)
        clock.advance(11)
        assert (await cache.resolve(A, provider)).status == "stale"
        assert (await cache.resolve(A, provider)).value == "old"


@pytest.mark.parametrize("forget", ["delete", "set", "invalidate", "tags"])
async def test_a_remembered_refusal_goes_when_its_key_does(forget: str) -> None:
    provider = Provider(refusal(400), "answer").done()
    async with LLMCache(**options(negative_ttl=1000)) as cache:
        with pytest.raises(ProviderError):
            await cache.get_or_compute(A, provider, tags=["t"])
        match forget:
            case "delete":
                await cache.delete(A)
            case "set":
                await cache.set(A, "answer")
            case "invalidate":
                await cache.invalidate(A)
            case _:
                await cache.invalidate(tags=["t"])
        assert await cache.get_or_compute(A, provider) == "answer"


# --- what is stored -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        b"",
        Computed("answer", store=False),
        Computed("answer", ttl=0),
        {"choices": [{"finish_reason": "length"}]},
        {"choices": [{"finish_reason": "content_filter"}]},
        {"choices": [{"finish_reason": None}]},
        {"choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]},
        {"type": "message", "stop_reason": "max_tokens"},
        {"object": "response", "status": "incomplete"},
    ],
    ids=repr,
)
async def test_what_is_not_whole_is_returned_and_not_stored(value: Any) -> None:
    provider = Provider(value).done()
    plain = value.value if isinstance(value, Computed) else value
    async with LLMCache(**options()) as cache:
        for calls in (1, 2):
            assert await cache.get_or_compute(A, provider) == plain
            assert provider.calls == calls
        assert cache.get_nowait(A) is None


@pytest.mark.parametrize(
    "value",
    [
        "x",
        0,
        None,
        [],
        {},
        False,
        {"choices": [{"finish_reason": "tool_calls"}]},
        {"type": "message", "stop_reason": "end_turn"},
    ],
    ids=repr,
)
async def test_what_is_whole_is_stored(value: Any) -> None:
    provider = Provider(value).done()
    async with LLMCache(**options()) as cache:
        for _ in range(2):
            assert await cache.get_or_compute(A, provider) == value
        assert provider.calls == 1


async def test_an_admission_rule_of_ones_own() -> None:
    provider = Provider({"ok": False}, {"ok": True}).done()
    async with LLMCache(admit=lambda value: bool(value["ok"]), **options()) as cache:
        assert [(await cache.get_or_compute(A, provider))["ok"] for _ in range(3)] == [False, True, True]
        assert cache.stats().not_stored == {"admission": 1}


async def test_an_admission_rule_that_raises_fails_nobody() -> None:
    def admit(value: Any) -> bool:
        raise RuntimeError("a bug in the rule")

    provider = Provider("answer").done()
    async with LLMCache(admit=admit, **options()) as cache:
        with pytest.warns(RuntimeWarning, match="admi"):
            assert await cache.get_or_compute(A, provider) == "answer"
        assert cache.get_nowait(A) is None


async def test_only_if_cached() -> None:
    provider = Provider().done()
    async with LLMCache(**options()) as cache:
        with pytest.raises(NotCachedError):
            await cache.get_or_compute(A, provider, only_if_cached=True)
        assert provider.calls == 0
        await cache.get_or_compute(A, provider)
        assert await cache.get_or_compute(A, provider, only_if_cached=True) == "answer"


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
