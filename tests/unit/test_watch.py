"""Budgets under one timer: what is over is told, a busy loop uses up a part, and an idle timer ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast.tiers.signal import Running
from llmcache_fast.tiers.watch import Watch


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch(Running(), 0.01)
    yield watch
    watch.close()


async def test_budgets_end_in_their_order_and_not_before(watch: Watch) -> None:
    running, ended = Running(), []

    async def wait(budget: float) -> None:
        signal = running.signal()
        started = watch.start(signal, budget)
        await signal.wait()
        ended.append((budget, watch.time() - started >= budget - 0.002))

    async with anyio.create_task_group() as tasks:
        for budget in (0.06, 0.02, 0.04):
            tasks.start_soon(wait, budget)
    assert ended == [(0.02, True), (0.04, True), (0.06, True)]


async def test_time_is_counted_for_one_who_sees_to_a_budget_by_himself(watch: Watch) -> None:
    started = watch.start_timing()
    await anyio.sleep(0.05)  # some ticks
    assert watch.stop_timing() - started >= 0.049
    while watch._task is not None:  # noqa: ASYNC110 - on a state, not for a time
        await anyio.sleep(0.001)


async def test_what_is_stopped_is_not_told(watch: Watch) -> None:
    running = Running()
    stopped, other = running.signal(), running.signal()
    watch.start(stopped, 0.01)
    watch.start(other, 0.03)
    watch.stop(stopped)
    await other.wait()
    assert not stopped.came


async def test_one_long_round_of_the_loop_counts_for_a_tick_and_a_half(watch: Watch) -> None:
    signal = Running().signal()
    started = watch.start(signal, 10.0)
    await checkpoint()
    time.sleep(0.2)  # noqa: ASYNC251 - that is the point
    assert watch.time() - started <= 0.03
    assert watch.stop(signal) - started <= 0.03
    assert not signal.came


async def test_the_timer_ends_when_nobody_waits_and_begins_anew(watch: Watch) -> None:
    first = Running().signal()
    watch.start(first, 0.005)
    await first.wait()
    while watch._task is not None:  # noqa: ASYNC110 - on a state, not for a time
        await anyio.sleep(0.001)
    second = Running().signal()
    watch.start(second, 0.005)
    await second.wait()


async def test_closed_in_between_it_begins_anew(watch: Watch) -> None:
    watch.start(Running().signal(), 0.005)
    watch.close()
    signal = Running().signal()
    watch.start(signal, 0.01)
    await signal.wait()
