"""Who waits for a lease to be released: nobody is forgotten, nobody stays behind."""

from __future__ import annotations

import anyio
import pytest

from llmcache_fast.tiers.redis.releases import Releases


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_waiters_are_woken_by_their_key_or_all(anyio_backend: str) -> None:
    releases = Releases()
    async with anyio.create_task_group() as group:
        for key in (b"a", b"a", b"b"):
            group.start_soon(releases.wait, key)
        await anyio.wait_all_tasks_blocked()
        assert releases.waiters == 3
        releases.wake(b"c")
        assert releases.waiters == 3
        releases.wake(b"a")
        await anyio.wait_all_tasks_blocked()
        assert releases.waiters == 1
        # A release may pass while nobody listens: once back, whoever waits looks again.
        releases.wake_all()
    assert releases.waiters == 0


async def test_cancelled_waiters_leave_nothing_behind(anyio_backend: str) -> None:
    releases = Releases()
    for delay in (0, 0, 0.001):
        with anyio.move_on_after(delay):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(releases.wait, b"%d" % (number % 7))
    assert releases.waiters == 0
    assert releases._waiting == {}
