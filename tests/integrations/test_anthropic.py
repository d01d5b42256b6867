"""The stock Anthropic SDK through `wrap()`, against the demo upstream."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from llmcache_fast.integrations import wrap
from llmcache_fast.integrations.clients import transport_of
from tests.integrations.caches import WatchedCache
from tests.integrations.calls import MESSAGES, SCHEMA
from tests.integrations.conftest import Upstream, on_both

pytestmark = pytest.mark.anyio

CALL: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": MESSAGES}
TOOLS: Any = [{"name": "weather", "input_schema": SCHEMA}]


def client_of(upstream: Upstream, cache: WatchedCache, **options: Any) -> AsyncAnthropic:
    made = AsyncAnthropic(base_url=upstream.url, api_key="sk-ant-test", max_retries=0)
    client = wrap(made, cache, **options)
    cache.exits.push_async_callback(client.close)
    return client


@on_both
async def test_message_is_answered_from_the_cache(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    first = await client.messages.create(**CALL)
    second = await client.messages.create(**CALL)
    assert second == first
    assert first.usage.cache_read_input_tokens
    assert upstream.requests == 1
    (commit,) = cache.commits
    counted = commit["usage"]
    assert counted.input_tokens == first.usage.input_tokens + first.usage.cache_read_input_tokens
    assert counted.cached_input_tokens == first.usage.cache_read_input_tokens
    assert transport_of(client).statistics().saved_micro_usd == commit["cost"] > 0


@pytest.mark.parametrize("tools", [False, True], ids=["text", "tools"])
async def test_stream_has_the_same_events_on_a_hit(
    upstream: Upstream, cache: WatchedCache, tools: bool
) -> None:
    client = client_of(upstream, cache)
    call: dict[str, Any] = {**CALL, "tools": TOOLS} if tools else CALL
    runs = []
    for _ in range(2):
        async with client.messages.stream(**call) as stream:
            events = [event.model_dump() async for event in stream]
            runs.append((events, (await stream.get_final_message()).model_dump()))
    assert runs[0] == runs[1]
    assert runs[0][1]["stop_reason"] == ("tool_use" if tools else "end_turn")
    assert runs[0][1]["usage"]["output_tokens"] > 1
    assert upstream.requests == 1
    (commit,) = cache.commits
    assert commit["usage"].output_tokens == runs[0][1]["usage"]["output_tokens"]


async def test_truncated_and_refused_messages_are_not_stored(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    for model in ("demo:length", "demo:refusal"):
        for _ in range(2):
            await client.messages.create(**{**CALL, "model": model})
    assert cache.entries == 0
    assert transport_of(client).statistics().not_stored == {"finish_reason": 2, "refusal": 2}
    assert upstream.requests == 4


async def test_beta_flags_and_versions_count(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    for headers in ({}, {"anthropic-beta": "context-1m-2025-08-07"}, {"anthropic-version": "2030-01-01"}):
        for _ in range(2):
            await client.messages.create(**CALL, extra_headers=headers)
    assert upstream.requests == 3


async def test_errors_are_the_sdks_own(upstream: Upstream, cache: WatchedCache) -> None:
    client = client_of(upstream, cache)
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.create(**{**CALL, "model": "demo:error-429"})
    with pytest.raises(anthropic.APIError):
        async with client.messages.stream(**{**CALL, "model": "demo:stream-error"}) as stream:
            await stream.get_final_message()
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.with_options(max_retries=3).messages.create(
            **CALL, extra_headers={"x-llmcache-control": "only-if-cached"}
        )
    assert caught.value.status_code == 504
    assert cache.entries == 0
    assert upstream.requests == 2


async def test_sync_client_is_refused(cache: WatchedCache) -> None:
    with (
        Anthropic(api_key="k") as client,
        pytest.raises(TypeError, match="Anthropic is synchronous; use AsyncAnthropic"),
    ):
        wrap(client, cache)
