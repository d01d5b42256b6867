"""A task of nobody's: it runs, ends by itself or by one cancellation, and holds nobody up."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from llmcache_fast.tiers.detached import Detached


async def test_it_runs_and_nobody_waits_for_it() -> None:
    gate, ended = anyio.Event(), anyio.Event()

    async def work() -> None:
        await gate.wait()
        ended.set()

    async with anyio.create_task_group():
        Detached(work)
    assert not ended.is_set(), "the group did not wait for it"
    gate.set()
    await ended.wait()


async def test_it_outlives_the_cancellation_of_who_started_it() -> None:
    ended = anyio.Event()

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        ended.set()

    with anyio.CancelScope() as scope:
        Detached(work)
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    await ended.wait()


async def test_it_can_be_told_to_end() -> None:
    ended = anyio.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    task = Detached(work)
    await anyio.wait_all_tasks_blocked()
    task.end_within(0)
    await ended.wait()
    while task in Detached._running:
        await anyio.lowlevel.checkpoint()
    task.end_within(0)


async def test_a_deadline_does_not_touch_what_ends_before() -> None:
    cancelled: list[bool] = []
    gate, ended = anyio.Event(), anyio.Event()

    async def work() -> None:
        try:
            await gate.wait()
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise
        finally:
            ended.set()

    task = Detached(work)
    task.end_within(60.0)
    await anyio.wait_all_tasks_blocked()
    gate.set()
    await ended.wait()
    assert cancelled == []
