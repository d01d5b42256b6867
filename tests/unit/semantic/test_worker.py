"""Work in threads: bounded, in any event loop, waited for."""

from __future__ import annotations

import threading

import anyio
import pytest

from llmcache_fast.semantic.embedders.worker import Worker

WORKER = Worker()


async def test_calls_run_elsewhere_one_at_a_time() -> None:
    running = most = 0
    lock = threading.Lock()
    threads = set()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threads.add(threading.get_ident())
        with lock:
            running -= 1

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(WORKER.run, work)
    assert most == 1
    assert threading.get_ident() not in threads


def test_one_serves_event_loops_after_each_other() -> None:
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(WORKER.run, lambda: 7, backend=backend) == 7


async def test_an_exception_is_the_callers() -> None:
    def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await WORKER.run(work)


async def test_a_call_that_began_is_waited_for() -> None:
    began, go = threading.Event(), threading.Event()
    ended = False

    def work() -> None:
        nonlocal ended
        began.set()
        go.wait()
        ended = True

    async with anyio.create_task_group() as group:
        group.start_soon(WORKER.run, work)
        await anyio.to_thread.run_sync(began.wait)
        group.cancel_scope.cancel()
        go.set()
    assert ended
