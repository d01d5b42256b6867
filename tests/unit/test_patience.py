"""Time limits in parts: a busy loop does not use them up, other cancellations pass."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmcache_fast.tiers.redis.patience import Patience
from llmcache_fast.tiers.signal import Running
from llmcache_fast.tiers.watch import Watch


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def watch(tick: float = 0.01) -> Watch:
    return Watch(Running(), tick)


async def test_what_takes_too_long_times_out_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError), Patience(watch(), 0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_ends_in_time_passes() -> None:
    with Patience(watch(), 30):
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError), Patience(watch(), 30):
        raise ZeroDivisionError


async def test_a_long_round_of_the_loop_uses_up_one_part() -> None:
    arrived = asyncio.Event()
    with Patience(watch(), 0.1):
        asyncio.get_running_loop().call_later(0.03, arrived.set)
        time.sleep(0.15)  # noqa: ASYNC251 - that is the point: longer than the whole
        await arrived.wait()


async def test_progress_begins_the_time_anew() -> None:
    with Patience(watch(), 0.05) as patience:
        for _ in range(10):
            await asyncio.sleep(0.01)
            patience.progress()


async def test_a_cancellation_from_elsewhere_passes() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with Patience(watch(), 30):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_a_cancellation() -> None:
    async def work() -> None:
        with Patience(watch(), 0.005) as patience:
            patience.set()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_outside_a_task_it_says_so() -> None:
    failure: list[Exception] = []

    def enter() -> None:
        try:
            with Patience(watch(), 1):
                pass
        except RuntimeError as error:
            failure.append(error)

    asyncio.get_running_loop().call_soon(enter)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "inside a task" in str(failure[0])
