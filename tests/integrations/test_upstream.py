"""The demo upstream itself: what it promises to the demo and to the tests."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from llmcache_fast.cli.upstream import DemoUpstream, UpstreamOptions
from tests.integrations.calls import MESSAGES, PATHS, SCHEMA, body
from tests.integrations.conftest import Upstream

pytestmark = pytest.mark.anyio

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


async def post(url: str, value: Any, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(verify=False) as client:
        return await client.post(url, json=value, headers=headers)


async def test_same_request_same_text_other_id(upstream: Upstream) -> None:
    replies = [(await post(upstream.url + PATHS["chat"], CHAT)).json() for _ in range(2)]
    assert replies[0]["choices"] == replies[1]["choices"]
    assert replies[0]["id"] != replies[1]["id"]
    other = (await post(upstream.url + PATHS["chat"], {**CHAT, "seed": 1})).json()
    assert other["choices"] != replies[0]["choices"]


async def test_stream_says_what_the_plain_answer_says(upstream: Upstream) -> None:
    async with AsyncOpenAI(base_url=upstream.v1, api_key="k") as client:
        plain = await client.chat.completions.create(**CHAT)
        stream = await client.chat.completions.create(**CHAT, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == plain.choices[0].message.content
        called = await client.chat.completions.create(**CHAT, tools=TOOLS)
        assert called.choices[0].finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": "c", "content": "sunny"}
        after = await client.chat.completions.create(
            model="m", messages=cast("Any", [*MESSAGES, result]), tools=TOOLS
        )
        assert after.choices[0].finish_reason == "stop"
    async with AsyncAnthropic(base_url=upstream.url, api_key="k") as claude:
        call: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
        async with claude.messages.stream(**call) as messages:
            text = "".join([piece async for piece in messages.text_stream])
        assert (await claude.messages.create(**call)).content[0].text == text


@pytest.mark.parametrize("endpoint", sorted(PATHS))
async def test_bad_requests(upstream: Upstream, endpoint: str) -> None:
    url = upstream.url + PATHS[endpoint]
    values: list[Any] = [{}, {"model": "m"}, [], {**body(endpoint), "model": "demo:no-such-control"}]
    for value in values:
        response = await post(url, value)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert (await post(url, body(endpoint), authorization="Bearer invalid")).status_code == 401


async def test_controls_in_a_header(upstream: Upstream) -> None:
    response = await post(upstream.url + PATHS["chat"], CHAT, **{"x-demo": "error-503, words-3"})
    assert response.status_code == 503
    text = (await post(upstream.url + PATHS["chat"], CHAT, **{"x-demo": "words-3"})).json()
    assert len(text["choices"][0]["message"]["content"].split()) == 3


async def test_options_of_the_server() -> None:
    options = UpstreamOptions(rate_limit=0.001, api_key="right")
    with DemoUpstream(options) as server:
        url = server.url + PATHS["chat"]
        assert (await post(url, CHAT, authorization="Bearer wrong")).status_code == 401
        assert (await post(url, CHAT, authorization="Bearer right")).status_code == 200
        limited = await post(url, CHAT, authorization="Bearer right")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "0")
    with DemoUpstream(UpstreamOptions(error_rate=1.0)) as server:
        async with AsyncOpenAI(base_url=server.url + "/v1", api_key="k", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(**CHAT)


async def test_counters(upstream: Upstream) -> None:
    await post(upstream.url + PATHS["chat"], CHAT)
    await post(upstream.url + PATHS["messages"], body("messages", stream=True))
    stats = upstream.stats()
    assert stats["requests"] == 2
    assert stats["by_path"] == {PATHS["chat"]: 1, PATHS["messages"]: 1}
    assert stats["streams"] == 1
    assert stats["output_tokens"] > 0
    await post(upstream.url + "/reset", {})
    assert upstream.requests == 0


def test_a_taken_port_is_an_error(upstream: Upstream) -> None:
    with pytest.raises(OSError, match="in use"):
        DemoUpstream(port=int(upstream.url.rpartition(":")[2]))
