"""`CachingTransport` beneath plain clients of httpx and httpx2, over real HTTP on loopback."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from llmcache_fast import ConfigurationError
from llmcache_fast.integrations.httpx import CachingTransport
from tests.integrations.caches import WatchedCache, open_cache
from tests.integrations.calls import PATHS, body
from tests.integrations.conftest import Upstream, on_both
from tests.integrations.transports import URL, chunks_of, client_of

pytestmark = pytest.mark.anyio

ENDPOINTS = sorted(PATHS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_second_call_is_a_hit_with_the_same_body(
    upstream: Upstream, library: ModuleType, endpoint: str
) -> None:
    async with open_cache() as cache, client_of(library, cache) as client:
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
    async with open_cache() as cache, client_of(library, cache) as client:
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
    async with open_cache() as cache, client_of(library, cache) as client:
        first, on_miss = await chunks_of(client, upstream.url + PATHS[endpoint], value)
        second, on_hit = await chunks_of(client, upstream.url + PATHS[endpoint], value)
    assert (first.headers["x-llmcache"], second.headers["x-llmcache"]) == ("miss", "hit")
    assert on_hit == on_miss
    assert b"".join(on_miss).count(b"data:") > 3
    assert "content-encoding" not in second.headers
    assert upstream.requests == 1


async def test_plain_and_streamed_are_two_entries(upstream: Upstream, library: ModuleType) -> None:
    async with open_cache() as cache, client_of(library, cache) as client:
        url = upstream.url + PATHS["chat"]
        bare = {**body("chat"), "stream": True}
        for value in (body("chat"), body("chat", stream=True), bare):
            await chunks_of(client, url, value)
            assert (await chunks_of(client, url, value))[0].headers["x-llmcache"] == "hit"
    assert upstream.requests == 3


# --- what is looked up ---


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

    async with open_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
        request = client.build_request("POST", "http://upstream.test" + path, json=value)
        for number in (1, 2):
            response = await client.send(request)
            assert response.json() == {"id": number}
            assert response.headers["x-llmcache"] == "bypass"
        assert cache.asked == []
    assert received[0].headers == request.headers
    assert received[0].content == request.content


async def test_other_methods_pass_through(upstream: Upstream, library: ModuleType) -> None:
    async with open_cache() as cache, client_of(library, cache) as client:
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
    async with open_cache() as cache, client_of(library, cache) as client:
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

    async with open_cache() as cache, client_of(library, cache, library.MockTransport(handle)) as client:
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


def on_disk(folder: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "miss"), ({"share_credentials": True}, "hit"), ({"scope": "team"}, "hit")],
    ids=["default", "shared", "scope"],
)
async def test_credentials_do_not_share_unless_told(
    upstream: Upstream, library: ModuleType, tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    url = upstream.url + PATHS["chat"]
    tiers = [f"disk://{tmp_path}"]
    async with open_cache(tiers=tiers) as cache, client_of(library, cache, **options) as client:
        await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-first"})
        second = await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-second"})
        assert second.headers["x-llmcache"] == expected
        assert "sk-first" not in repr(cache.asked)
        assert "sk-second" not in repr(cache.asked)
    # The scope is the same in another process: what is on disk is found again.
    async with open_cache(tiers=tiers) as restarted, client_of(library, restarted, **options) as client:
        again = await client.post(url, json=body("chat"), headers={"authorization": "Bearer sk-first"})
        assert again.headers["x-llmcache"] == "hit"
    assert not on_disk(tmp_path, b"sk-first")


# --- controls ---


async def control(client: Any, url: str, **headers: str) -> Any:
    named = {f"x-llmcache-{name}": value for name, value in headers.items()}
    return await client.post(url, json=body("chat"), headers=named)


def told(cache: WatchedCache) -> dict[str, Any]:
    """The options of the last call, but for what takes its question out of it."""
    given = dict(cache.options_given[-1])
    assert callable(given.pop("question"))
    return given


@on_both
async def test_controls(upstream: Upstream, library: ModuleType) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_cache() as cache, client_of(library, cache) as client:
        absent = await control(client, url, control="only-if-cached")
        assert (absent.status_code, absent.headers["x-should-retry"]) == (504, "false")
        assert absent.json()["error"]["type"] == "not_cached"
        assert upstream.requests == 0

        assert (await control(client, url, control="no-store")).headers["x-llmcache"] == "miss"
        assert cache.entries == 0
        first = await control(client, url, ttl="60", tags="doc:7, user:1", label="content/a")
        assert told(cache) == {"ttl": 60.0, "tags": ("doc:7", "user:1"), "label": "content/a"}
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
        assert told(cache) == {"ttl": None}
        stored = cache.entries
        assert (await control(client, url, ttl="0", variant="3")).headers["x-llmcache"] == "miss"
        assert cache.entries == stored, "zero seconds: not stored"
    assert not [name for name in upstream.stats()["last_headers"] if name.startswith("x-llmcache")]


async def test_a_stale_answer_is_served_and_refreshed_behind(upstream: Upstream, library: ModuleType) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_cache(stale_while_revalidate=300) as cache, client_of(library, cache) as client:
        first = await client.post(url, json=body("chat"))
        await cache.expire(cache.asked[0])
        stale = await client.post(url, json=body("chat"))
        assert stale.headers["x-llmcache"] == "stale"
        assert stale.json()["id"] == first.json()["id"]
        while cache.running:
            await anyio.lowlevel.checkpoint()
        fresh = await client.post(url, json=body("chat"))
        assert fresh.headers["x-llmcache"] == "hit"
        assert fresh.json()["id"] != first.json()["id"]
    assert upstream.requests == 2


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"control": "no-cash"}, "no-cash"),
        ({"ttl": "soon"}, "soon"),
        ({"ttl": "-1"}, "-1"),
        ({"tllt": "1"}, "x-llmcache-tllt"),
        ({"control": "refresh, only-if-cached"}, "only-if-cached"),
        ({"tags": "t" * 257}, "x-llmcache-tags"),
        ({"tags": ",".join(map(str, range(257)))}, "x-llmcache-tags: 257 are too many"),
        ({"label": "l" * 513}, "x-llmcache-label"),
        ({"label": "a//b"}, "x-llmcache-label"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_bad_control_is_a_clear_400(
    upstream: Upstream, library: ModuleType, headers: dict[str, str], word: str
) -> None:
    async with open_cache() as cache, client_of(library, cache) as client:
        response = await control(client, upstream.url + PATHS["chat"], **headers)
        assert client._transport.statistics().failed_open == {}
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]
    assert upstream.requests == 0


async def test_a_namespace_of_its_own(upstream: Upstream, library: ModuleType) -> None:
    url = upstream.url + PATHS["chat"]
    async with open_cache() as cache:
        for namespace, expected in ((None, "miss"), ("tenant", "miss"), ("tenant", "hit"), (None, "hit")):
            async with client_of(library, cache, namespace=namespace) as client:
                assert (await client.post(url, json=body("chat"))).headers["x-llmcache"] == expected
        await cache.invalidate(namespace="tenant")
        for namespace, expected in (("tenant", "miss"), (None, "hit")):
            async with client_of(library, cache, namespace=namespace) as client:
                assert (await client.post(url, json=body("chat"))).headers["x-llmcache"] == expected
        with pytest.raises(ConfigurationError, match="namespace"):
            client_of(library, cache, namespace="")


# --- failures ---


@on_both
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_closing_the_cache_sends_no_call_a_second_time(library: ModuleType, stream: bool) -> None:
    sent, statuses = [], []
    arrived, forever = anyio.Event(), anyio.Event()

    async def handle(request: Any) -> Any:
        sent.append(request)
        arrived.set()
        await forever.wait()

    async def call(client: Any) -> None:
        response = await client.post(URL, json=body("chat", stream=stream))
        statuses.append((response.status_code, response.headers["x-should-retry"]))
        assert "closed" in response.json()["error"]["message"]

    async with anyio.create_task_group() as tasks, open_cache() as cache:
        client = client_of(library, cache, library.MockTransport(handle))
        tasks.start_soon(call, client)
        await arrived.wait()
    await client.aclose()
    assert (len(sent), statuses) == (1, [(503, "false")])


@on_both
async def test_a_broken_cache_fails_open(
    upstream: Upstream, library: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_cache() as cache, client_of(library, cache) as client:
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


async def test_needs_an_asynchronous_transport_of_a_known_library(library: ModuleType) -> None:
    async with open_cache() as cache:
        transport = CachingTransport(cache, library.AsyncHTTPTransport())
        assert isinstance(transport, library.AsyncBaseTransport)
        for wrong in (library.HTTPTransport(), object()):
            with pytest.raises(TypeError, match="AsyncBaseTransport of httpx or httpx2"):
                CachingTransport(cache, wrong)
        with pytest.raises(ValueError, match="not both"):
            CachingTransport(cache, transport, scope="a", share_credentials=True)
