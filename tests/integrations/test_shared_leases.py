"""Caches that share a Redis tier compute once, and wait for each other no longer than that pays."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import LLMCache, Recorder
from llmcache_fast._markers import SYNC_EVERY
from llmcache_fast.testing import ManualClock
from tests.servers.redis import RedisServer

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
LIMIT = 30.0
"""Seconds after which a test says that it hangs; a lease is waited for twice as long."""


@pytest.fixture
def tier(redis_server: RedisServer, redis_prefix: str) -> str:
    return f"{redis_server.url}?prefix={redis_prefix}"


class Slow:
    """A computation that says when it has begun, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = anyio.Event(), anyio.Event()

    async def __call__(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        return "slow"


async def quick() -> str:
    return "quick"


async def compute(cache: LLMCache, work: Slow, **options: Any) -> None:
    await cache.get_or_compute(REQUEST, work, **options)


async def waits(cache: LLMCache) -> None:
    """Return when the cache waits for a lease."""
    while not cache.stats().tiers[-1].leases["waited"]:  # noqa: ASYNC110 - on a state, not for a time
        await anyio.sleep(0.002)


async def test_a_stream_that_another_process_records_is_replayed(tier: str) -> None:
    begun, may_end = anyio.Event(), anyio.Event()

    async def source(recorder: Recorder) -> None:
        recorder.begin(b"head")
        recorder.write(b"chunk")
        begun.set()
        await may_end.wait()
        recorder.commit()

    async def refuse(recorder: Recorder) -> None:
        raise AssertionError("another process has recorded it")

    replayed: list[bytes] = []
    async with LLMCache(tiers=[tier]) as one, LLMCache(tiers=[tier]) as other:

        async def follow() -> None:
            async with await other.stream(REQUEST, refuse) as reader:
                replayed.extend([reader.head, *[chunk async for chunk in reader]])
                assert reader.status == "hit"

        with anyio.fail_after(LIMIT):
            async with await one.stream(REQUEST, source), anyio.create_task_group() as group:
                await begun.wait()
                group.start_soon(follow)
                await waits(other)
                may_end.set()
    assert replayed == [b"head", b"chunk"]


@pytest.mark.parametrize("options", [{"store": False}, {"ttl": 0}], ids=str)
async def test_nobody_waits_for_what_will_not_be_stored(tier: str, options: dict[str, Any]) -> None:
    slow = Slow()
    async with LLMCache(tiers=[tier]) as one, LLMCache(tiers=[tier]) as other:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(compute, one, slow, **options))
                await slow.begun.wait()
                assert await other.get_or_compute(REQUEST, quick) == "quick"
                slow.may_end.set()


async def test_waiting_for_another_process_leaves_time_to_compute(tier: str) -> None:
    slow = Slow()
    async with LLMCache(tiers=[tier]) as one, LLMCache(tiers=[tier], deadline=1.0) as other:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(compute, one, slow)
                await slow.begun.wait()
                assert await other.get_or_compute(REQUEST, quick) == "quick"
                slow.may_end.set()


async def test_what_was_invalidated_while_its_computation_was_waited_for_is_no_answer(tier: str) -> None:
    slow = Slow()
    async with (
        LLMCache(tiers=[tier]) as one,
        LLMCache(tiers=[tier]) as other,
        LLMCache(tiers=[tier]) as third,
    ):
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await other.get_or_compute(REQUEST, quick))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(compute, one, slow)
                await slow.begun.wait()
                group.start_soon(ask)
                await waits(other)
                await third.invalidate(REQUEST)
                await anyio.sleep(SYNC_EVERY)
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                slow.may_end.set()
        assert answers == ["quick", "quick"]


async def test_what_is_old_in_a_tier_above_is_computed_by_one(tier: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ttl": 10, "jitter": 0.0, "stale_while_revalidate": 100}
    clock = ManualClock()
    computed = []

    async def compute() -> str:
        computed.append("new")
        return "new"

    for name in ("one", "other"):
        async with LLMCache(tiers=[f"disk://{tmp_path / name}", tier], clock=clock, **options) as cache:
            await cache.get_or_compute(REQUEST, quick)
            await cache.flush()
    clock.advance(11)
    for name in ("one", "other"):
        async with LLMCache(tiers=[f"disk://{tmp_path / name}", tier], clock=clock, **options) as cache:
            assert (await cache.resolve(REQUEST, compute)).value == "quick"
            with anyio.fail_after(LIMIT):
                while await cache.get(REQUEST) != "new":  # noqa: ASYNC110 - on a state, not for a time
                    await anyio.sleep(0.002)
            await cache.flush()
    assert computed == ["new"]
