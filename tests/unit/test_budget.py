"""Waiting for a budget: what comes in time, what does not, and a loop that was busy."""

from __future__ import annotations

import time

import anyio
import pytest

from llmcache_fast.tiers.budget import within


async def test_what_is_there_costs_nothing() -> None:
    done = anyio.Event()
    done.set()
    assert await within(0.0, done)


async def test_what_does_not_come_is_not_waited_for() -> None:
    assert not await within(0.01, anyio.Event())


async def test_what_comes_meanwhile_is_seen() -> None:
    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.lowlevel.checkpoint)
        tasks.start_soon(_set_later, done)
        assert await within(60.0, done)


async def _set_later(done: anyio.Event) -> None:
    await anyio.lowlevel.checkpoint()
    done.set()


@pytest.mark.parametrize("budget", [0.02])
async def test_a_round_of_a_busy_loop_is_one_part_of_the_budget(budget: float) -> None:
    done = anyio.Event()

    async def busy_then_done() -> None:
        time.sleep(3 * budget)  # noqa: ASYNC251 - that is the point
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy_then_done)
        assert await within(budget, done)
