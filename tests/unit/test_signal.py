"""What comes once: for all who wait, whoever of them goes away."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from llmcache_fast.tiers.signal import Running, Signal


async def test_it_comes_for_all_who_wait_and_for_none_who_went_away() -> None:
    signal = Running().signal()
    came: list[int] = []

    async def wait(number: int) -> None:
        await signal.wait()
        came.append(number)

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as cancelled:
            for number in range(3):
                tasks.start_soon(wait, number)
                cancelled.start_soon(wait, 10 + number)
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        assert not signal.came
        signal.set()
        signal.set()
    assert signal.came
    assert sorted(came) == [0, 1, 2]


async def test_one_cancelled_in_the_round_in_which_it_comes_ends_once() -> None:
    signal: Signal = Running().signal()
    ended: list[str] = []

    async def wait() -> None:
        try:
            await signal.wait()
            await checkpoint()
            ended.append("came")
        except anyio.get_cancelled_exc_class():
            ended.append("cancelled")
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        signal.set()
        tasks.cancel_scope.cancel()
    assert ended == ["cancelled"]


async def test_its_clock_is_the_event_loops() -> None:
    before = anyio.current_time()
    assert before <= Running().now() <= anyio.current_time()
