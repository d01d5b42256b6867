"""Streams: recorded once, read from the first chunk by any number of callers, stored only when committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from llmcache_fast import (
    CacheClosedError,
    FlightCancelled,
    LLMCache,
    NotCachedError,
    Recorder,
    StreamReader,
    Usage,
    WaitTimeoutError,
)
from llmcache_fast.testing import ManualClock, MemoryTier
from tests.unit.conftest import Calls

REQUEST = {"q": 1}
CHUNKS = [b"data: 1\n\n", b"da", b"", b"ta: 2\n\n", bytes(range(256))]


@pytest.fixture
async def cache(anyio_backend: str) -> AsyncIterator[LLMCache]:
    async with LLMCache(clock=ManualClock(), jitter=0.0) as cache:
        yield cache


class Source:
    """Writes the chunks, each when it may, and counts its runs."""

    def __init__(
        self, *, commit: bool = True, error: Exception | None = None, after: int = len(CHUNKS)
    ) -> None:
        self.runs = 0
        self.commit, self.error, self.after = commit, error, after
        self.gates: list[anyio.Event] = []

    def hold(self) -> list[anyio.Event]:
        self.gates = [anyio.Event() for _ in CHUNKS]
        return self.gates

    async def __call__(self, recorder: Recorder) -> None:
        self.runs += 1
        await anyio.lowlevel.checkpoint()
        if self.error is not None and self.after < 0:
            raise self.error
        recorder.begin(b"head")
        for number, chunk in enumerate(CHUNKS[: self.after] if self.error else CHUNKS):
            if self.gates:
                await self.gates[number].wait()
            recorder.write(chunk)
        if self.error is not None:
            raise self.error
        if self.commit:
            recorder.commit(usage=Usage(3, 4), model="m", cost=7, tags=("late",))


async def read(reader: StreamReader) -> list[bytes]:
    return [chunk async for chunk in reader]


async def idle(cache: LLMCache) -> None:
    while cache.stats().flights["running"]:
        await anyio.lowlevel.checkpoint()


async def test_a_hit_replays_head_chunks_and_boundaries(cache: LLMCache) -> None:
    source = Source()
    first = await cache.stream(REQUEST, source)
    assert (first.status, first.head) == ("miss", b"head")
    assert await read(first) == CHUNKS
    again = await cache.stream(REQUEST, source)
    assert (again.status, again.head, source.runs) == ("hit", b"head", 1)
    assert await read(again) == CHUNKS
    for reader in (first, again):
        assert reader.facts is not None
        assert (reader.facts.usage, reader.facts.model, reader.cost) == (Usage(3, 4), "m", 7)


async def test_a_source_whose_upstream_ends_early_is_no_end_of_the_stream(cache: LLMCache) -> None:
    reader = await cache.stream(REQUEST, Source(error=StopAsyncIteration(), after=2))
    assert [await anext(reader), await anext(reader)] == CHUNKS[:2]
    with pytest.raises(RuntimeError, match="StopAsyncIteration"):
        await anext(reader)


async def test_followers_join_a_running_stream_from_its_first_chunk(cache: LLMCache) -> None:
    source = Source()
    gates = source.hold()
    first = await cache.stream(REQUEST, source)
    gates[0].set()
    assert await anext(first) == CHUNKS[0]
    second = await cache.stream(REQUEST, source)
    assert second.status == "joined"
    assert await anext(second) == CHUNKS[0], "what passed before it came"
    for gate in gates[1:]:
        gate.set()
    assert await read(second) == await read(first) == CHUNKS[1:]
    assert source.runs == 1
    assert cache.stats().joined == 1


async def test_leaving_early_disturbs_nobody(cache: LLMCache) -> None:
    source = Source()
    gates = source.hold()
    async with await cache.stream(REQUEST, source) as leaver:
        other = await cache.stream(REQUEST, source)
        gates[0].set()
        assert await anext(leaver) == CHUNKS[0]
    for gate in gates:
        gate.set()
    assert await read(other) == CHUNKS


async def test_when_all_have_left_it_is_finished_and_stored(cache: LLMCache) -> None:
    source = Source()
    gates = source.hold()
    reader = await cache.stream(REQUEST, source)
    await reader.aclose()
    await reader.aclose()
    assert cache.stats().flights["orphans"] == 1
    for gate in gates:
        gate.set()
    await idle(cache)
    assert (await cache.stream(REQUEST, source)).status == "hit"


async def test_on_abandon_cancel_ends_it() -> None:
    source = Source()
    source.hold()
    async with LLMCache(on_abandon="cancel") as cache:
        reader = await cache.stream(REQUEST, source)
        await reader.aclose()
        await idle(cache)
        with pytest.raises(NotCachedError):
            await cache.stream(REQUEST, source, only_if_cached=True)


async def test_what_is_not_committed_is_not_stored(cache: LLMCache) -> None:
    source = Source(commit=False)
    assert await read(await cache.stream(REQUEST, source)) == CHUNKS
    assert await read(await cache.stream(REQUEST, source)) == CHUNKS
    assert source.runs == 2
    assert cache.stats().not_stored == {"uncommitted": 2}


async def test_an_error_before_the_head_is_the_callers(cache: LLMCache) -> None:
    error = ConnectionError("refused")
    source = Source(error=error, after=-1)
    with pytest.raises(ConnectionError, match="refused") as caught:
        await cache.stream(REQUEST, source)
    assert caught.value is not error
    assert caught.value.__cause__ is error
    source.error = None
    assert await read(await cache.stream(REQUEST, source)) == CHUNKS, "and is not remembered"


async def test_an_error_after_the_head_comes_while_reading(cache: LLMCache) -> None:
    source = Source(error=ConnectionError("reset"), after=2)
    reader = await cache.stream(REQUEST, source)
    got: list[bytes] = []

    async def read() -> None:
        async for chunk in reader:
            got.append(chunk)  # noqa: PERF401 - what came before the error is looked at

    with pytest.raises(ConnectionError, match="reset"):
        await read()
    assert got == CHUNKS[:2]
    with pytest.raises(NotCachedError):
        await cache.stream(REQUEST, source, only_if_cached=True)


async def test_an_invalidation_meanwhile_prevents_the_storing(cache: LLMCache) -> None:
    source = Source()
    gates = source.hold()
    reader = await cache.stream(REQUEST, source, tags=["doc"])
    assert (await cache.invalidate(tags=["doc"])).superseded == 1
    for gate in gates:
        gate.set()
    assert await read(reader) == CHUNKS
    assert (await cache.stream(REQUEST, source)).status == "miss"


async def test_a_tag_given_with_the_commit_covers_it(cache: LLMCache) -> None:
    source = Source()
    await read(await cache.stream(REQUEST, source))
    await cache.invalidate(tags=["late"])
    assert (await cache.stream(REQUEST, source)).status == "miss"


async def test_a_callers_timeout_is_for_the_head(cache: LLMCache) -> None:
    go = anyio.Event()

    async def slow(recorder: Recorder) -> None:
        await go.wait()
        recorder.begin()
        recorder.commit()

    with pytest.raises(WaitTimeoutError):
        await cache.stream(REQUEST, slow, timeout=0.001)
    go.set()
    await idle(cache)
    assert await read(await cache.stream(REQUEST, slow)) == []


async def test_closing_the_cache_ends_its_readers() -> None:
    source = Source()
    source.hold()
    async with LLMCache() as cache:
        reader = await cache.stream(REQUEST, source)
    with pytest.raises(FlightCancelled):
        await read(reader)


async def test_a_stream_is_stored_below_and_is_no_value(anyio_backend: str) -> None:
    clock = ManualClock()
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        await read(await cache.stream(REQUEST, Source()))
        await cache.flush()
        cache._clear()
        again = await cache.stream(REQUEST, Source())
        assert again.status == "hit"
        assert await read(again) == CHUNKS
        assert await cache.get(REQUEST) is None, "for `get` it is no value"


async def test_a_source_that_never_begins() -> None:
    async def silent(recorder: Recorder) -> None:
        await anyio.lowlevel.checkpoint()

    async with LLMCache() as cache:
        with pytest.raises(FlightCancelled, match="without a head"):
            await cache.stream(REQUEST, silent)


async def test_begin_is_once() -> None:
    recorder = Recorder()
    recorder.begin(b"x")
    with pytest.raises(RuntimeError, match="twice"):
        recorder.begin(b"y")
    assert recorder.result() is None, "nothing without a commit"
    recorder.commit()
    stored: Any = recorder.result()
    assert stored.ttl is not None


async def test_refreshes_of_stale_streams_are_bounded() -> None:
    clock = ManualClock()
    source = Source()
    async with LLMCache(
        clock=clock, jitter=0.0, ttl=10, stale_while_revalidate=90, max_background=2
    ) as cache:
        for number in range(5):
            await read(await cache.stream({"n": number}, source))
        clock.advance(11)
        source.hold()
        for number in range(5):
            assert (await cache.stream({"n": number}, source)).status == "stale"
        await anyio.wait_all_tasks_blocked()
        assert source.runs == 5 + 2
        for gate in source.gates:
            gate.set()
        await idle(cache)


async def test_a_value_and_a_stream_of_one_request_do_not_join_each_other(cache: LLMCache) -> None:
    source = Source()
    gates = source.hold()
    calls = Calls()
    reader = await cache.stream(REQUEST, source)
    with pytest.raises(NotCachedError):
        await cache.get_or_compute(REQUEST, calls, only_if_cached=True)
    assert cache.stats().flights["superseded"] == 0, "who only looks takes nothing away"
    assert await cache.get_or_compute(REQUEST, calls) == "answer 1", "a stream is no value to wait for"
    for gate in gates:
        gate.set()
    assert await read(reader) == CHUNKS
    assert await cache.get(REQUEST) == "answer 1", "the later flight's answer stays"

    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "value"

    async def call() -> None:
        await cache.get_or_compute(REQUEST, slow, refresh=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert await read(await cache.stream(REQUEST, source)) == CHUNKS
        go.set()
    assert (await cache.stream(REQUEST, source)).status == "hit"


@pytest.mark.parametrize(("ttl", "left"), [({}, None), ({"ttl": None}, CHUNKS), ({"ttl": 10**6}, CHUNKS)])
async def test_a_commit_may_set_the_lifetime_and_none_is_for_ever(ttl: Any, left: Any) -> None:
    clock = ManualClock()

    async def source(recorder: Recorder) -> None:
        for chunk in CHUNKS:
            recorder.write(chunk)
        recorder.commit(**ttl)

    async with LLMCache(clock=clock, ttl=10) as cache:
        await read(await cache.stream(REQUEST, source))
        clock.advance(10**5)
        try:
            found = await read(await cache.stream(REQUEST, source, only_if_cached=True))
        except NotCachedError:
            found = None
        assert found == left


async def test_another_event_loop_is_told_what_to_do(cache: LLMCache, anyio_backend: str) -> None:
    caught: list[BaseException] = []

    async def elsewhere() -> None:
        try:
            await cache.stream(REQUEST, Source())
        except CacheClosedError as error:
            caught.append(error)

    await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=anyio_backend))
    assert "cache of its own" in str(caught[0])
    assert "disk tier" in str(caught[0])
