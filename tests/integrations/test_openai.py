"""The stock OpenAI SDK through `wrap()`, against the demo upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from llmcache_fast.integrations import wrap
from llmcache_fast.integrations.clients import transport_of
from tests.integrations.caches import WatchedCache
from tests.integrations.calls import MESSAGES, SCHEMA
from tests.integrations.conftest import Upstream, on_both

pytestmark = pytest.mark.anyio

CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
# The helper of openai 2 takes strict tools alone.
STRICT: Any = {**SCHEMA, "required": ["city", "days"], "additionalProperties": False}
STRICT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": STRICT, "strict": True}}
]
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


def client_of(
    upstream: Upstream, cache: WatchedCache, *, max_retries: int = 0, **options: Any
) -> AsyncOpenAI:
    made = AsyncOpenAI(base_url=upstream.v1, api_key="sk-test", max_retries=max_retries)
    return kept(cache, wrap(made, cache, **options))


def kept(cache: WatchedCache, client: AsyncOpenAI) -> AsyncOpenAI:
    """The client, to be closed at the end of the test."""
    cache.exits.push_async_callback(client.close)
    return client


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item.model_dump() async for item in stream]


@on_both
async def test_chat_is_answered_from_the_cache(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    first = await client.chat.completions.create(**CHAT)
    second = await client.chat.completions.create(**CHAT)
    assert second == first
    assert first.choices[0].message.content
    assert upstream.requests == 1
    raw = await client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-llmcache"] == "hit"
    assert raw.elapsed.total_seconds() >= 0
    statistics = transport_of(client).statistics()
    assert statistics.replies == {"miss": 1, "hit": 2}
    assert statistics.saved_micro_usd > 0


@pytest.mark.parametrize("tools", [False, True], ids=["text", "tools"])
async def test_chat_stream_has_the_same_events_on_a_hit(
    upstream: Upstream, cache: WatchedCache, tools: bool
) -> None:
    client = client_of(upstream, cache)
    call: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    if tools:
        call["tools"] = CHAT_TOOLS
    on_miss = await all_of(await client.chat.completions.create(**call))
    on_hit = await all_of(await client.chat.completions.create(**call))
    assert on_hit == on_miss
    assert on_miss[-1]["usage"]["prompt_tokens"] > 0
    if tools:
        calls = [chunk["choices"][0]["delta"]["tool_calls"] for chunk in on_miss[:-1]]
        assert calls[1][0]["id"].startswith("call_")
        assert sum(1 for deltas in calls if deltas) > 2
    assert upstream.requests == 1


async def test_stream_helper_accumulates_the_same_completion(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    finals = []
    for _ in range(2):
        async with client.chat.completions.stream(**CHAT, tools=STRICT_TOOLS) as stream:
            events = [event.type async for event in stream]
            finals.append((events, await stream.get_final_completion()))
    assert finals[0] == finals[1]
    assert "tool_calls.function.arguments.done" in finals[0][0]
    assert upstream.requests == 1


@pytest.mark.parametrize("tools", [False, True], ids=["text", "tools"])
async def test_responses_plain_and_streamed(upstream: Upstream, cache: WatchedCache, tools: bool) -> None:
    client = client_of(upstream, cache)
    call: dict[str, Any] = {"model": "gpt-4o-mini", "input": "What is the weather like?"}
    if tools:
        call["tools"] = TOOLS
    plain = [await client.responses.create(**call) for _ in range(2)]
    assert plain[0] == plain[1]
    streams = [await all_of(await client.responses.create(**call, stream=True)) for _ in range(2)]
    assert streams[0] == streams[1]
    assert streams[0][0]["type"] == "response.created"
    assert streams[0][-1]["type"] == "response.completed"
    assert upstream.requests == 2


async def test_embeddings(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    replies = [
        await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]) for _ in range(2)
    ]
    assert replies[0] == replies[1]
    assert len(replies[0].data) == 2
    assert upstream.requests == 1


async def test_many_concurrent_callers_make_one_request(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    call: dict[str, Any] = {**CHAT, "model": "demo:slow-50"}
    plain: list[str] = []
    streamed: list[int] = []

    async def ask() -> None:
        plain.append((await client.chat.completions.create(**call)).id)

    async def listen() -> None:
        streamed.append(len(await all_of(await client.chat.completions.create(**call, stream=True))))

    async with anyio.create_task_group() as tasks:
        for _ in range(25):
            tasks.start_soon(ask)
            tasks.start_soon(listen)
    assert len(plain) == len(streamed) == 25
    assert len(set(plain)) == len(set(streamed)) == 1
    assert upstream.requests == 2


async def test_a_stream_left_early_is_complete_for_the_next(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    call: dict[str, Any] = {**CHAT, "model": "demo:drip-5", "stream": True}
    async with await client.chat.completions.create(**call) as stream:
        async for _ in stream:
            break
    chunks = await all_of(await client.chat.completions.create(**call))
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert upstream.requests == 1


async def test_the_sdk_retries_as_without_the_cache(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache, max_retries=2)
    call: dict[str, Any] = {**CHAT, "model": "demo:flaky-503-1"}
    first = await client.chat.completions.create(**call)
    assert await client.chat.completions.create(**call) == first
    assert upstream.requests == 2


async def test_errors_are_the_sdks_own(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    expected = [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ]
    for status, kind in expected:
        with pytest.raises(kind, match=f"status {status}"):
            await client.chat.completions.create(**{**CHAT, "model": f"demo:error-{status}"})
    with pytest.raises(openai.APIError, match="Overloaded"):
        await all_of(
            await client.chat.completions.create(**{**CHAT, "model": "demo:stream-error"}, stream=True)
        )
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(**{**CHAT, "model": "demo:cut"})
    gone = client_of(upstream, cache).with_options(base_url="http://127.0.0.1:1/v1")
    with pytest.raises(openai.APIConnectionError):
        await gone.chat.completions.create(**CHAT)
    assert cache.entries == 0


async def test_only_if_cached_is_not_retried(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache, max_retries=3)
    headers = {"x-llmcache-control": "only-if-cached"}
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**CHAT, extra_headers=headers)
    assert caught.value.status_code == 504
    assert len(cache.asked) == 1
    assert upstream.requests == 0


async def test_legacy_httpx_client_under_the_new_sdk(upstream: Upstream, cache: WatchedCache) -> None:
    original = AsyncOpenAI(base_url=upstream.v1, api_key="k", http_client=httpx.AsyncClient())  # type: ignore[arg-type]
    client = kept(cache, wrap(original, cache))
    first = await client.chat.completions.create(**CHAT)
    assert await client.chat.completions.create(**CHAT) == first
    assert upstream.requests == 1


async def test_azure_deployments(upstream: Upstream, cache: WatchedCache) -> None:
    seen: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        message = {"role": "assistant", "content": "a"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx2.Response(200, json={"id": "1", "model": "gpt-4o", "choices": [choice]})

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    client = kept(
        cache,
        wrap(
            AsyncAzureOpenAI(
                azure_endpoint="http://azure.test",
                api_key="k",
                api_version="2024-06-01",
                http_client=http_client,
            ),
            cache,
        ),
    )
    for _ in range(2):
        await client.chat.completions.create(**CHAT)
    assert seen == [
        "http://azure.test/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-06-01"
    ]
