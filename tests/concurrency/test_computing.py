"""Answers beside the computed one: stale, remembered, refused by admission."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import (
    Computed,
    LLMCache,
    NotCachedError,
)
from llmcache_fast._failures import RETRY_AFTER
from llmcache_fast.testing import ManualClock
from tests.concurrency.callers import A, B, Callers, Provider, ProviderError, options

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


async def test_stale_stands_in_for_a_failure_and_is_not_retried_at_once() -> None:
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
        clock.advance(RETRY_AFTER)
        assert (await cache.resolve(A, provider)).status == "stale"
        assert provider.calls == 3
        clock.advance(RETRY_AFTER)
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
