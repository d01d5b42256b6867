"""`wrap()`: what of a client stays, and what it refuses."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.integrations import wrap
from llmcache_fast.integrations.clients import transport_of
from tests.integrations.caches import WatchedCache
from tests.integrations.calls import MESSAGES
from tests.integrations.conftest import Upstream

pytestmark = pytest.mark.anyio

# The library that the installed SDK is built on: httpx2, or httpx for openai 2 (`test_legacy_sdks`).
SDK: Any = httpx2 if issubclass(openai.DefaultAsyncHttpxClient, httpx2.AsyncClient) else httpx
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


def kept(cache: WatchedCache, client: AsyncOpenAI) -> AsyncOpenAI:
    """The client, to be closed at the end of the test."""
    cache.exits.push_async_callback(client.close)
    return client


async def test_client_options_stay(upstream: Upstream, cache: WatchedCache) -> None:
    original = AsyncOpenAI(
        base_url=upstream.v1,
        api_key="sk",
        organization="org",
        timeout=7,
        max_retries=4,
        default_headers={"a": "b"},
    )
    client = kept(cache, wrap(original, cache))
    assert type(client) is AsyncOpenAI
    assert (client.organization, client.timeout, client.max_retries) == ("org", 7, 4)
    assert client.default_headers["a"] == "b"
    first = await client.with_options(timeout=9).chat.completions.create(**CHAT)
    assert await client.chat.completions.create(**CHAT) == first
    uncached = await original.chat.completions.with_raw_response.create(**CHAT)
    assert "x-llmcache" not in uncached.headers
    assert upstream.requests == 2
    with pytest.raises(ConfigurationError, match="wrapped already"):
        wrap(client, cache)
    with pytest.raises(TypeError, match="not made by wrap"):
        transport_of(original)
    await client.close()
    assert original.is_closed()


async def test_environment_proxies_and_mounts_stay(
    upstream: Upstream, cache: WatchedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[str] = []

    def handle(request: Any) -> Any:
        mounted.append(str(request.url))
        return SDK.Response(200, json={"choices": [], "from": "mount"})

    with_mount = openai.DefaultAsyncHttpxClient(mounts={"http://mounted.test": SDK.MockTransport(handle)})
    client = kept(
        cache,
        wrap(AsyncOpenAI(base_url="http://mounted.test/v1", api_key="k", http_client=with_mount), cache),
    )
    await client.chat.completions.create(**CHAT)
    assert mounted == ["http://mounted.test/v1/chat/completions"]

    # The upstream stands in for a proxy: it is asked for the absolute URL of a host that does not exist.
    monkeypatch.setenv("HTTP_PROXY", upstream.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    behind = kept(cache, wrap(AsyncOpenAI(base_url="http://far.test/v1", api_key="k", max_retries=0), cache))
    with pytest.raises(openai.NotFoundError):
        await behind.chat.completions.create(**CHAT)


async def test_redirects_are_followed_as_before(upstream: Upstream, cache: WatchedCache) -> None:
    def handle(request: Any) -> Any:
        return SDK.Response(307, headers={"location": upstream.v1 + "/chat/completions"})

    http_client = openai.DefaultAsyncHttpxClient(mounts={"http://moved.test": SDK.MockTransport(handle)})
    client = kept(
        cache, wrap(AsyncOpenAI(base_url="http://moved.test/v1", api_key="k", http_client=http_client), cache)
    )
    first = await client.chat.completions.create(**CHAT)
    assert await client.chat.completions.create(**CHAT) == first
    assert upstream.requests == 1


async def test_hooks_that_change_credentials_are_not_cached_under_the_wrong_ones(
    upstream: Upstream, cache: WatchedCache
) -> None:
    async def sign(request: Any) -> None:
        request.headers["authorization"] = "Bearer from-a-hook"

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [sign]})
    client = kept(cache, wrap(AsyncOpenAI(base_url=upstream.v1, api_key="k", http_client=http_client), cache))
    for _ in range(2):
        await client.chat.completions.create(**CHAT)
    assert upstream.requests == 2
    assert transport_of(client).statistics().not_stored == {"credentials_changed": 2}


async def test_what_wrap_refuses(cache: WatchedCache) -> None:
    with (
        OpenAI(api_key="k") as sync,
        pytest.raises(TypeError, match="OpenAI is synchronous; use AsyncOpenAI"),
    ):
        wrap(sync, cache)
    with httpx2.Client() as bare, pytest.raises(TypeError, match="Client is synchronous; use AsyncClient"):
        wrap(bare, cache)
    with pytest.raises(TypeError, match="does not know how object sends"):
        wrap(object(), cache)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_bare_http_client_can_be_wrapped(
    upstream: Upstream, cache: WatchedCache, library: Any
) -> None:
    async with wrap(
        library.AsyncClient(base_url=upstream.v1, headers={"authorization": "Bearer k"}), cache
    ) as c:
        statuses = [(await c.post("/chat/completions", json=CHAT)).headers["x-llmcache"] for _ in range(2)]
    assert statuses == ["miss", "hit"]
