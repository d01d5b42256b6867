"""Clients over `CachingTransport`, and an upstream that a test lets go chunk by chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import ModuleType
from typing import Any

import anyio

from llmcache_fast.integrations.httpx import CachingTransport
from tests.integrations.caches import WatchedCache


def client_of(library: ModuleType, cache: WatchedCache, transport: Any = None, **options: Any) -> Any:
    # verify=False: making a TLS context takes longer than the rest of a test.
    inner = transport or library.AsyncHTTPTransport(verify=False)
    return library.AsyncClient(transport=CachingTransport(cache, inner, **options), timeout=20)


async def chunks_of(client: Any, url: str, value: dict[str, Any], **kwargs: Any) -> tuple[Any, list[bytes]]:
    async with client.stream("POST", url, json=value, **kwargs) as response:
        return response, [chunk async for chunk in response.aiter_bytes()]


async def first_chunk(response: Any) -> bytes:
    # One generator, closed by hand: httpx leaves those of its iter methods to the collector.
    async with aclosing(response.stream.__aiter__()) as chunks:
        chunk: bytes = await anext(chunks)
        return chunk


EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


class Gated:
    """An upstream under the test's control: chunk N is sent when gate N is open."""

    def __init__(
        self,
        library: ModuleType,
        chunks: list[bytes] = EVENTS,
        content_type: str = "text/event-stream",
    ) -> None:
        self._content_type = content_type
        self.gates = [anyio.Event() for _ in chunks]
        self.calls = 0
        self.finished = 0
        self._chunks = chunks
        self._library = library
        self.transport = library.MockTransport(self._handle)

    async def _handle(self, request: Any) -> Any:
        self.calls += 1
        headers = {"content-type": self._content_type}
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
