"""Live bodies: joining a running stream, leaving one, and how failures reach each reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import anyio
import pytest

from tests.integrations.caches import open_cache
from tests.integrations.calls import PATHS, body
from tests.integrations.conftest import Upstream, on_both
from tests.integrations.transports import EVENTS, URL, Gated, chunks_of, client_of, first_chunk

pytestmark = pytest.mark.anyio

ENDPOINTS = sorted(PATHS)


@on_both
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_concurrent_identical_calls_make_one_request(
    upstream: Upstream, library: ModuleType, stream: bool
) -> None:
    seen: list[tuple[str, bytes]] = []
    value = body("chat", model="demo:slow-50", stream=stream)
    async with open_cache() as cache, client_of(library, cache) as client:

        async def call() -> None:
            response, chunks = await chunks_of(client, upstream.url + PATHS["chat"], value)
            seen.append((response.headers["x-llmcache"], b"".join(chunks)))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
    assert upstream.requests == 1
    assert sorted(status for status, _ in seen) == ["joined"] * 19 + ["miss"]
    assert len({content for _, content in seen}) == 1


@on_both
async def test_follower_gets_the_stream_live_from_its_first_chunk(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        async with client.stream("POST", URL, json=body("chat", stream=True)) as leader:
            leading = leader.aiter_bytes()
            assert await anext(leading) == EVENTS[0]
            async with client.stream("POST", URL, json=body("chat", stream=True)) as follower:
                following = follower.aiter_bytes()
                # The upstream stands still before its second chunk: what is read here was passed on live.
                assert await anext(following) == EVENTS[0]
                assert follower.headers["x-llmcache"] == "joined"
                gated.open(1)
                assert await anext(following) == EVENTS[1]
                gated.open()
                assert [chunk async for chunk in following] == EVENTS[2:]
            assert [chunk async for chunk in leading] == EVENTS[1:]
    assert gated.calls == 1


@on_both
async def test_a_client_that_leaves_breaks_nobody_and_the_answer_is_kept(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        async with client.stream("POST", URL, json=body("chat", stream=True)) as follower_to_be:
            async with client.stream("POST", URL, json=body("chat", stream=True)) as leaver:
                assert await first_chunk(leaver) == EVENTS[0]
            gated.open()
            assert [chunk async for chunk in follower_to_be.aiter_bytes()] == EVENTS
        response, chunks = await chunks_of(client, URL, body("chat", stream=True))
    assert response.headers["x-llmcache"] == "hit"
    assert chunks == EVENTS
    assert gated.calls == 1


@on_both
async def test_a_lone_client_that_leaves_early_still_leaves_an_entry(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        async with client.stream("POST", URL, json=body("chat", stream=True)) as leaver:
            assert await first_chunk(leaver) == EVENTS[0]
        gated.open()
        while cache.running:
            await anyio.lowlevel.checkpoint()
        response, chunks = await chunks_of(client, URL, body("chat", stream=True))
    assert response.headers["x-llmcache"] == "hit"
    assert chunks == EVENTS


@on_both
async def test_committed_when_the_terminal_event_has_passed(library: ModuleType) -> None:
    """An upstream that never closes its stream is no reason to lose the answer."""
    gated = Gated(library, [*EVENTS, b": never sent\n\n"])
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0, 1, 2, 3)
        _, on_miss = await chunks_of(client, URL, body("chat", stream=True))
        response, on_hit = await chunks_of(client, URL, body("chat", stream=True))
    assert on_miss == on_hit == EVENTS
    assert response.headers["x-llmcache"] == "hit"
    assert gated.finished == 0


async def test_a_stream_of_another_content_type_is_live_and_not_stored(library: ModuleType) -> None:
    gated = Gated(library, [b'{"a":1}\n', b'{"a":2}\n'], content_type="application/x-ndjson")
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        async with client.stream("POST", URL, json=body("chat", stream=True)) as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == b'{"a":1}\n'
            gated.open()
            assert [chunk async for chunk in chunks] == [b'{"a":2}\n']
        assert cache.entries == 0


@on_both
async def test_follower_keeps_its_own_read_timeout(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        value = body("chat", stream=True)
        async with client.stream("POST", URL, json=value) as leader:
            leading = leader.aiter_bytes()
            await anext(leading)
            with pytest.raises(library.ReadTimeout):
                await chunks_of(client, URL, value, timeout=library.Timeout(20, read=0.01))
            gated.open()
            assert [chunk async for chunk in leading] == EVENTS[1:]


@on_both
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_leader_s_timeout_is_not_that_of_the_others(
    upstream: Upstream, library: ModuleType, stream: bool
) -> None:
    value = body("chat", model="demo:slow-300", stream=stream)
    answers: list[bytes] = []
    async with open_cache() as cache, client_of(library, cache) as client:

        async def impatient() -> None:
            with pytest.raises(library.ReadTimeout):
                await chunks_of(client, upstream.url + PATHS["chat"], value, timeout=library.Timeout(0.1))

        async def patient() -> None:
            await anyio.sleep(0.02)
            _, chunks = await chunks_of(client, upstream.url + PATHS["chat"], value)
            answers.append(b"".join(chunks))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(impatient)
            for _ in range(5):
                tasks.start_soon(patient)
    assert len(answers) == 5
    assert len(set(answers)) == 1
    assert upstream.requests == 2  # the first caller's, and one for all the others


@on_both
async def test_a_leader_s_read_timeout_within_the_answer_is_its_own(
    upstream: Upstream, library: ModuleType
) -> None:
    value = body("chat", model="demo:drip-300,words-3", stream=True)
    url = upstream.url + PATHS["chat"]
    async with open_cache() as cache, client_of(library, cache) as client:
        impatient = library.Timeout(20, read=0.05)
        async with (
            client.stream("POST", url, json=value, timeout=impatient) as leader,
            client.stream("POST", url, json=value) as follower,
        ):
            assert follower.headers["x-llmcache"] == "joined"
            with pytest.raises(library.ReadTimeout):
                await leader.aread()
            # Whoever comes now has seen a silence: an upstream that hangs is not to be waited for again.
            async with client.stream("POST", url, json=value) as late:
                assert late.headers["x-llmcache"] == "miss"
                chunks = [chunk async for chunk in follower.aiter_bytes()]
                await late.aread()
    assert b"[DONE]" in b"".join(chunks)
    assert upstream.requests == 2


@on_both
async def test_nobody_joins_a_stream_that_has_brought_an_error(library: ModuleType) -> None:
    """The connection stays open after the error event: who asks again is not given the old error."""
    error = b'data: {"error":{"message":"overloaded"}}\n\n'
    gated = Gated(library, [EVENTS[0], error, EVENTS[3]])
    async with open_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0, 1)
        value = body("chat", stream=True)
        async with client.stream("POST", URL, json=value) as first:
            reading = first.aiter_bytes()
            assert [await anext(reading), await anext(reading)] == [EVENTS[0], error]
            async with client.stream("POST", URL, json=value) as again:
                assert again.headers["x-llmcache"] == "miss"
                gated.open()
                assert [chunk async for chunk in again.aiter_bytes()] == [EVENTS[0], error, EVENTS[3]]
            assert [chunk async for chunk in reading] == [EVENTS[3]]
        assert gated.calls == 2
        assert cache.entries == 0


@on_both
async def test_upstream_exceptions_reach_each_caller_as_their_own(library: ModuleType) -> None:
    errors: list[Any] = []
    calls = 0

    async def handle(request: Any) -> Any:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.02)
        raise library.ConnectError("no route", request=request)

    async with open_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:

        async def call() -> None:
            with pytest.raises(library.ConnectError) as caught:
                await client.post(URL, json=body("chat"))
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)
    assert calls == 1
    assert len({id(error) for error in errors}) == 5
    assert len({id(error.request) for error in errors}) == 5
    assert len({id(error.__cause__) for error in errors}) == 1
    assert {str(error) for error in errors} == {"no route"}


@on_both
async def test_an_exception_in_the_middle_reaches_all_readers(library: ModuleType) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield EVENTS[0]
        await anyio.sleep(0.01)
        raise library.ReadError("reset")

    def handle(request: Any) -> Any:
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=broken())

    async with open_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
        for value in (body("chat", stream=True), body("chat")):
            with pytest.raises(library.ReadError, match="reset"):
                await chunks_of(client, URL, value)
        assert cache.entries == 0
