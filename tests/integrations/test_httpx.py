"""`CachingTransport` beneath plain clients of httpx and httpx2, over real HTTP on loopback."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import ModuleType
from typing import Any

import anyio
import pytest

from llmcache_fast.integrations.httpx import CachingTransport
from llmcache_fast.integrations.recording import Recorder, Recording
from tests.integrations.calls import PATHS, body
from tests.integrations.conftest import Upstream, on_both
from tests.integrations.fake_cache import FakeCache, open_fake_cache

pytestmark = pytest.mark.anyio

ENDPOINTS = sorted(PATHS)


def client_of(library: ModuleType, cache: FakeCache, transport: Any = None, **options: Any) -> Any:
    # verify=False: making a TLS context takes longer than the rest of a test.
    inner = transport or library.AsyncHTTPTransport(verify=False)
    return library.AsyncClient(transport=CachingTransport(cache, inner, **options), timeout=20)


async def chunks_of(client: Any, url: str, value: dict[str, Any], **kwargs: Any) -> tuple[Any, list[bytes]]:
    async with client.stream("POST", url, json=value, **kwargs) as response:
        return response, [chunk async for chunk in response.aiter_bytes()]


# --- hits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_second_call_is_a_hit_with_the_same_body(
    upstream: Upstream, library: ModuleType, endpoint: str
) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        first = await client.post(upstream.url + PATHS[endpoint], json=body(endpoint))
        second = await client.post(upstream.url + PATHS[endpoint], json=body(endpoint))
    assert (first.headers["x-llmcache"], second.headers["x-llmcache"]) == ("miss", "hit")
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.content
    assert second.headers["content-length"] == str(len(second.content))
    assert second.headers["content-type"] == first.headers["content-type"]
    assert upstream.requests == 1


async def test_headers_of_the_moment_reach_the_first_caller_alone(
    upstream: Upstream, library: ModuleType
) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        first = await client.post(upstream.url + PATHS["chat"], json=body("chat"))
        client.cookies.clear()
        second = await client.post(upstream.url + PATHS["chat"], json=body("chat"))
    for name in ("x-ratelimit-remaining-requests", "set-cookie", "date"):
        assert name in first.headers
        assert name not in second.headers
    assert second.headers["x-request-id"] == first.headers["x-request-id"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("model", ["gpt-4o-mini", "demo:crlf", "demo:gzip", "demo:drip-2"])
@pytest.mark.parametrize("tools", [False, True], ids=["text", "tools"])
async def test_stream_is_replayed_chunk_by_chunk(
    upstream: Upstream, library: ModuleType, endpoint: str, model: str, tools: bool
) -> None:
    value = body(endpoint, model=model, stream=True, tools=tools)
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        first, on_miss = await chunks_of(client, upstream.url + PATHS[endpoint], value)
        second, on_hit = await chunks_of(client, upstream.url + PATHS[endpoint], value)
    assert (first.headers["x-llmcache"], second.headers["x-llmcache"]) == ("miss", "hit")
    assert on_hit == on_miss
    assert b"".join(on_miss).count(b"data:") > 3
    assert "content-encoding" not in second.headers
    assert upstream.requests == 1


async def test_plain_and_streamed_are_two_entries(upstream: Upstream, library: ModuleType) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        url = upstream.url + PATHS["chat"]
        bare = {**body("chat"), "stream": True}
        for value in (body("chat"), body("chat", stream=True), bare):
            await chunks_of(client, url, value)
            assert (await chunks_of(client, url, value))[0].headers["x-llmcache"] == "hit"
    assert upstream.requests == 3


# --- joining ----------------------------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_concurrent_identical_calls_make_one_request(
    upstream: Upstream, library: ModuleType, stream: bool
) -> None:
    seen: list[tuple[str, bytes]] = []
    value = body("chat", model="demo:slow-50", stream=stream)
    async with open_fake_cache() as cache, client_of(library, cache) as client:

        async def call() -> None:
            response, chunks = await chunks_of(client, upstream.url + PATHS["chat"], value)
            seen.append((response.headers["x-llmcache"], b"".join(chunks)))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
    assert upstream.requests == 1
    assert sorted(status for status, _ in seen) == ["joined"] * 19 + ["miss"]
    assert len({content for _, content in seen}) == 1


EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


class Gated:
    """An upstream under the test's control: chunk N is sent when gate N is open."""

    def __init__(self, library: ModuleType, chunks: list[bytes] = EVENTS) -> None:
        self.gates = [anyio.Event() for _ in chunks]
        self.calls = 0
        self.finished = 0
        self._chunks = chunks
        self._library = library
        self.transport = library.MockTransport(self._handle)

    async def _handle(self, request: Any) -> Any:
        self.calls += 1
        headers = {"content-type": "text/event-stream"}
        return self._library.Response(200, headers=headers, content=self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        for gate, chunk in zip(self.gates, self._chunks, strict=True):
            await gate.wait()
            yield chunk
        self.finished += 1

    def open(self, *numbers: int) -> None:
        for number in numbers or range(len(self.gates)):
            self.gates[number].set()


URL = "http://upstream.test/v1/chat/completions"


@on_both
async def test_follower_gets_the_stream_live_from_its_first_chunk(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_fake_cache() as cache, client_of(library, cache, gated.transport) as client:
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


async def first_chunk(response: Any) -> bytes:
    # One generator, closed by hand: httpx leaves those of its iter methods to the collector.
    async with aclosing(response.stream.__aiter__()) as chunks:
        chunk: bytes = await anext(chunks)
        return chunk


@on_both
async def test_a_client_that_leaves_breaks_nobody_and_the_answer_is_kept(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_fake_cache() as cache, client_of(library, cache, gated.transport) as client:
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
    async with open_fake_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        async with client.stream("POST", URL, json=body("chat", stream=True)) as leaver:
            assert await first_chunk(leaver) == EVENTS[0]
        gated.open()
        while cache.flights:
            await anyio.lowlevel.checkpoint()
        response, chunks = await chunks_of(client, URL, body("chat", stream=True))
    assert response.headers["x-llmcache"] == "hit"
    assert chunks == EVENTS


@on_both
async def test_committed_when_the_terminal_event_has_passed(library: ModuleType) -> None:
    """An upstream that never closes its stream is no reason to lose the answer."""
    gated = Gated(library, [*EVENTS, b": never sent\n\n"])
    async with open_fake_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0, 1, 2, 3)
        _, on_miss = await chunks_of(client, URL, body("chat", stream=True))
        response, on_hit = await chunks_of(client, URL, body("chat", stream=True))
    assert on_miss == on_hit == EVENTS
    assert response.headers["x-llmcache"] == "hit"
    assert gated.finished == 0


@on_both
async def test_follower_keeps_its_own_read_timeout(library: ModuleType) -> None:
    gated = Gated(library)
    async with open_fake_cache() as cache, client_of(library, cache, gated.transport) as client:
        gated.open(0)
        value = body("chat", stream=True)
        async with client.stream("POST", URL, json=value) as leader:
            leading = leader.aiter_bytes()
            await anext(leading)
            with pytest.raises(library.ReadTimeout):
                await chunks_of(client, URL, value, timeout=library.Timeout(20, read=0.01))
            gated.open()
            assert [chunk async for chunk in leading] == EVENTS[1:]


# --- what is never stored -----------------------------------------------------------------------------------

FAULTS = ["cut", "cut-event", "cut-end", "stream-error", "length", "filter", "refusal", "empty"]


async def never_stored(
    library: ModuleType, upstream: Upstream, endpoint: str, fault: str, *, stream: bool
) -> None:
    """The oracle: two calls that meet the fault are two upstream requests and leave no entry."""
    url = upstream.url + PATHS[endpoint]
    value = body(endpoint, model=f"demo:{fault}", stream=stream)
    outcomes: list[str] = []
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        for _ in range(2):
            try:
                response, _ = await chunks_of(client, url, value)
                outcomes.append(response.headers["x-llmcache"])
            except library.RemoteProtocolError:
                outcomes.append("cut")
    assert outcomes == (["cut", "cut"] if fault.startswith("cut") else ["miss", "miss"])
    assert cache.entries == {}
    assert upstream.requests == 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_interrupted_or_partial_stream_is_never_stored(
    upstream: Upstream, library: ModuleType, endpoint: str, fault: str
) -> None:
    await never_stored(library, upstream, endpoint, fault, stream=True)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "stream-error"])
async def test_partial_body_is_never_stored(
    upstream: Upstream, library: ModuleType, endpoint: str, fault: str
) -> None:
    await never_stored(library, upstream, endpoint, fault, stream=False)


async def test_planted_bug_commit_on_close_is_caught(
    upstream: Upstream, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The common mistake, storing what has arrived when the stream ends in whatever way, fails the oracle."""
    honest = Recording.__call__

    async def commit_on_close(self: Recording, recorder: Recorder) -> None:
        try:
            await honest(self, recorder)
        except Exception:
            pass
        finally:
            recorder.commit(usage=None, model=None, cost=None)

    monkeypatch.setattr(Recording, "__call__", commit_on_close)
    with pytest.raises(AssertionError):
        await never_stored(library, upstream, "chat", "cut", stream=True)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_errors_pass_through_and_are_not_stored(
    upstream: Upstream, library: ModuleType, status: int, stream: bool
) -> None:
    url = upstream.url + PATHS["chat"]
    value = body("chat", model=f"demo:error-{status}", stream=stream)
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        for _ in range(2):
            response = await client.post(url, json=value)
            assert response.status_code == status
            assert "error" in response.json()
            assert ("retry-after" in response.headers) == (status in (429, 503))
        assert cache.entries == {}
    assert upstream.requests == 2


async def test_too_large_is_delivered_and_not_stored(upstream: Upstream, library: ModuleType) -> None:
    for stream in (False, True):
        async with open_fake_cache() as cache, client_of(library, cache, max_bytes=600) as client:
            value = body("chat", model="demo:words-300", stream=stream)
            _, chunks = await chunks_of(client, upstream.url + PATHS["chat"], value)
            assert sum(map(len, chunks)) > 600
            assert cache.entries == {}


# --- what is looked up --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/threads/t1/messages", {"role": "user", "content": "x"}),
        ("/v1/messages/count_tokens", body("messages")),
        ("/v1/files", {"purpose": "x"}),
        ("/v1/chat/completions", {**body("chat"), "store": True}),
        ("/v1/responses", {**body("responses"), "background": True}),
        ("/v1/responses", {**body("responses"), "previous_response_id": "resp_1"}),
        ("/v1/responses", {**body("responses"), "conversation": "conv_1"}),
        ("/v1/messages", {**body("messages"), "container": "c1"}),
        ("/v1/chat/completions", ["not", "an", "object"]),
    ],
)
async def test_everything_else_passes_through_untouched(library: ModuleType, path: str, value: Any) -> None:
    received: list[Any] = []

    def handle(request: Any) -> Any:
        received.append(request)
        return library.Response(200, json={"id": len(received)})

    async with open_fake_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
        request = client.build_request("POST", "http://upstream.test" + path, json=value)
        for number in (1, 2):
            response = await client.send(request)
            assert response.json() == {"id": number}
            assert response.headers["x-llmcache"] == "bypass"
        assert cache.asked == []
    assert received[0].headers == request.headers
    assert received[0].content == request.content


async def test_other_methods_pass_through(upstream: Upstream, library: ModuleType) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        assert (await client.get(upstream.v1 + "/models")).headers["x-llmcache"] == "bypass"
        assert cache.asked == []


SAME = [
    {"user-agent": "other"},
    {"x-stainless-retry-count": "1"},
    {"idempotency-key": "k1"},
    {"traceparent": "00-1-2-03"},
    {"x-request-id": "r1"},
    {"accept-encoding": "identity"},
    {"cookie": "__cf_bm=abc; _cfuvid=d"},
]
OTHER = [
    {"openai-organization": "org-2"},
    {"openai-project": "proj-2"},
    {"openai-beta": "assistants=v2"},
    {"anthropic-version": "2024-01-01"},
    {"anthropic-beta": "tools"},
    {"x-gateway-route": "eu"},
    {"authorization": "Bearer other"},
    {"x-api-key": "other"},
    {"cookie": "session=other"},
    {"host": "elsewhere.test"},
]


@pytest.mark.parametrize(
    ("headers", "expected"), [(h, "hit") for h in SAME] + [(h, "miss") for h in OTHER], ids=str
)
async def test_headers_in_the_key(
    upstream: Upstream, library: ModuleType, headers: dict[str, str], expected: str
) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        await client.post(url, json=body("chat"), headers={"authorization": "Bearer one"})
        client.cookies.clear()
        changed = {"authorization": "Bearer one", **headers}
        response = await client.post(url, json=body("chat"), headers=changed)
        assert response.headers["x-llmcache"] == expected
        ignoring = client_of(library, cache, ignored_headers=["X-Gateway-Route"])
        async with ignoring:
            with_route = {"authorization": "Bearer one", "x-gateway-route": "us"}
            again = await ignoring.post(url, json=body("chat"), headers=with_route)
            assert again.headers["x-llmcache"] == "hit"


async def test_url_query_counts_but_not_its_credentials(library: ModuleType) -> None:
    def handle(request: Any) -> Any:
        return library.Response(200, json=ANSWER)

    async with open_fake_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
        statuses = [
            (await client.post(URL + query, json=body("chat"))).headers["x-llmcache"]
            for query in ("?api-version=1", "?api-version=1", "?api-version=2", "?api-version=1&key=s3cret")
        ]
        assert statuses == ["miss", "hit", "miss", "miss"]
        assert "s3cret" not in repr(cache.asked)


ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
    "model": "gpt-4o-mini",
}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "miss"), ({"share_credentials": True}, "hit"), ({"scope": "team"}, "hit")],
    ids=["default", "shared", "scope"],
)
async def test_credentials_do_not_share_unless_told(
    upstream: Upstream, library: ModuleType, options: dict[str, Any], expected: str
) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_fake_cache() as cache, client_of(library, cache, **options) as client:
        await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-first"})
        second = await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-second"})
        assert second.headers["x-llmcache"] == expected
        assert "sk-first" not in repr(cache.asked)
        assert "sk-second" not in repr(cache.asked)
    async with open_fake_cache() as restarted:
        restarted.entries = cache.entries
        async with client_of(library, restarted, **options) as client:
            again = await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-first"})
            assert again.headers["x-llmcache"] == "hit"


# --- controls -----------------------------------------------------------------------------------------------


async def control(client: Any, url: str, **headers: str) -> Any:
    named = {f"x-llmcache-{name}": value for name, value in headers.items()}
    return await client.post(url, json=body("chat"), headers=named)


@on_both
async def test_controls(upstream: Upstream, library: ModuleType) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        absent = await control(client, url, control="only-if-cached")
        assert (absent.status_code, absent.headers["x-should-retry"]) == (504, "false")
        assert absent.json()["error"]["type"] == "not_cached"
        assert upstream.requests == 0

        assert (await control(client, url, control="no-store")).headers["x-llmcache"] == "miss"
        assert cache.entries == {}
        first = await control(client, url, ttl="60", tags="doc:7, user:1", label="content/a")
        assert cache.options[-1] == {"ttl": 60.0, "tags": ("doc:7", "user:1"), "label": "content/a"}
        assert (await control(client, url, control="no-store")).headers["x-llmcache"] == "hit"
        assert (await control(client, url, control="only-if-cached")).content == first.content
        assert (await control(client, url, variant="2")).headers["x-llmcache"] == "miss"
        assert (await control(client, url, variant="2")).headers["x-llmcache"] == "hit"
        assert (await control(client, url, control="no-cache, no-store")).headers["x-llmcache"] == "bypass"
        for word in ("refresh", "no-cache"):
            fresh = await control(client, url, control=word)
            assert fresh.headers["x-llmcache"] == "miss"
            assert (await control(client, url)).json()["id"] == fresh.json()["id"] != first.json()["id"]
        await control(client, url, ttl="none")
        assert cache.options[-1] == {"ttl": None}
    assert not [name for name in upstream.stats()["last_headers"] if name.startswith("x-llmcache")]


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"control": "no-cash"}, "no-cash"),
        ({"ttl": "soon"}, "soon"),
        ({"ttl": "-1"}, "-1"),
        ({"tllt": "1"}, "x-llmcache-tllt"),
        ({"control": "refresh, only-if-cached"}, "only-if-cached"),
    ],
)
async def test_bad_control_is_a_clear_400(
    upstream: Upstream, library: ModuleType, headers: dict[str, str], word: str
) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        response = await control(client, upstream.url + PATHS["chat"], **headers)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]
    assert upstream.requests == 0


# --- failures -----------------------------------------------------------------------------------------------


@on_both
async def test_a_broken_cache_fails_open(
    upstream: Upstream, library: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fake_cache() as cache, client_of(library, cache) as client:
        cache.broken = RuntimeError("What is the weather like?")
        with caplog.at_level(logging.WARNING, logger="llmcache_fast"):
            for _ in range(2):
                response = await client.post(upstream.url + PATHS["chat"], json=body("chat"))
                assert response.status_code == 200
                assert response.headers["x-llmcache"] == "bypass"
        refused = await control(client, upstream.url + PATHS["chat"], control="only-if-cached")
        assert refused.status_code == 504
    assert [record.getMessage() for record in caplog.records] == [
        "the cache failed with RuntimeError; requests go upstream without it"
    ]
    assert upstream.requests == 2


@on_both
async def test_upstream_exceptions_reach_each_caller_as_their_own(library: ModuleType) -> None:
    errors: list[Any] = []
    calls = 0

    async def handle(request: Any) -> Any:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.02)
        raise library.ConnectError("no route", request=request)

    async with open_fake_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:

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

    async with open_fake_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
        for value in (body("chat", stream=True), body("chat")):
            with pytest.raises(library.ReadError, match="reset"):
                await chunks_of(client, URL, value)
        assert cache.entries == {}


async def test_needs_an_asynchronous_transport_of_a_known_library(library: ModuleType) -> None:
    async with open_fake_cache() as cache:
        transport = CachingTransport(cache, library.AsyncHTTPTransport())
        assert isinstance(transport, library.AsyncBaseTransport)
        for wrong in (library.HTTPTransport(), object()):
            with pytest.raises(TypeError, match="AsyncBaseTransport of httpx or httpx2"):
                CachingTransport(cache, wrong)
        with pytest.raises(ValueError, match="not both"):
            CachingTransport(cache, transport, scope="a", share_credentials=True)
