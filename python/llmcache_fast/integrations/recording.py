"""One upstream call, recorded: the source that the cache runs once for all callers of a request."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import Any, Protocol

import anyio

from llmcache_fast._usage import PriceTable, Usage
from llmcache_fast.integrations.wire import head as heads
from llmcache_fast.integrations.wire.endpoints import Endpoint
from llmcache_fast.integrations.wire.judge import StreamJudge, Verdict, judge_body, stream_judge
from llmcache_fast.integrations.wire.sse import SseScanner

_DRAIN_SECONDS = 0.25
"""How long to wait for the end of the body after the terminal event, so that the connection is reused."""

_DECODABLE = frozenset({"", "identity", "gzip", "deflate"})


class Recorder(Protocol):
    """What a source writes to."""

    def begin(self, head: bytes) -> None:
        """Publish the head; readers are released."""

    def write(self, chunk: bytes) -> None:
        """Publish a chunk."""

    def spoil(self) -> None:
        """Let nobody join from here on."""

    def commit(self, *, usage: Usage | None, model: str | None, cost: int | None) -> None:
        """Declare the recording complete, so that it is stored."""


class UpstreamError(Exception):
    """Carries an exception of the wrapped transport through the cache, apart from any of our own."""

    def __init__(self, original: Exception) -> None:
        super().__init__(original)
        self.original = original


def upstream_cause(error: BaseException) -> Exception | None:
    """The transport's exception at the root of what the cache raised; None when there is none."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, UpstreamError):
            return seen.original
        if seen is None:
            return None
        seen = seen.__cause__ or seen.__context__
    return None


def own_instance(original: Exception, request: Any) -> Exception:
    """The same exception for one caller: class and arguments kept, this caller's request, its own traceback.

    Exceptions that cannot be copied are returned as they are.
    """
    try:
        fresh = copy.copy(original)
        if type(fresh) is not type(original):
            return original
        if hasattr(type(original), "request"):
            fresh.request = request  # type: ignore[attr-defined]  # httpx and httpx2 declare a setter
    except Exception:  # noqa: BLE001 - a foreign class may refuse in any way
        return original
    fresh.__cause__ = original
    return fresh


class Recording:
    """The source for one call. `__call__` is what the cache runs; the rest is for the caller that missed.

    `refusals` counts, by reason, what was delivered but not stored.
    """

    def __init__(
        self,
        *,
        send: Callable[[], Any],
        library: ModuleType,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        finish_reasons: Collection[str],
        prices: PriceTable,
        max_bytes: int,
        same_scope: Callable[[], bool],
        refusals: Counter[str],
    ) -> None:
        self.live_headers: heads.Headers | None = None
        """All headers of the response, for the caller whose request went upstream."""
        self.started = False
        """Whether the cache ran it: the request that goes upstream is this caller's."""
        self._send = send
        self._library = library
        self._endpoint = endpoint
        self._body = body
        self._reasons = finish_reasons
        self._prices = prices
        self._max_bytes = max_bytes
        self._same_scope = same_scope
        self._refusals = refusals

    async def __call__(self, recorder: Recorder) -> None:
        """Send the request and record the response.

        Raises:
            UpstreamError: the wrapped transport failed, before or within the response.
        """
        self.started = True
        try:
            response = await self._send()
        except Exception as error:
            raise UpstreamError(error) from error
        try:
            encoding = response.headers.get("content-encoding", "").strip().lower()
            decodable = encoding in _DECODABLE
            live = heads.live_headers(response.headers.raw, keep_framing=not decodable)
            self.live_headers = live
            shared = heads.shared_headers(live, response.status_code)
            recorder.begin(heads.encode_head(response.status_code, shared))
            refused = None if decodable else "content_encoding"
            async with aclosing(response.aiter_bytes() if decodable else response.aiter_raw()) as chunks:
                await self._body_of(response, chunks, recorder, refused=refused)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _body_of(self, response: Any, chunks: Any, recorder: Recorder, *, refused: str | None) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code != 200:
            refused = "status"
        elif refused is None and not self._same_scope():
            refused = "credentials_changed"
        elif kind not in ("text/event-stream", "application/json"):
            refused = refused or "content_type"
        watch = _Watch(self, streamed=kind == "text/event-stream", refused=refused)
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except Exception as error:
                self._refusals["interrupted"] += 1
                raise UpstreamError(error) from error
            if chunk:
                recorder.write(chunk)
                if watch.ended_by(chunk) and self._commit(recorder, watch):
                    with anyio.move_on_after(_DRAIN_SECONDS):
                        await _drain(chunks)
                    return
                if watch.failed:
                    # The connection may stay open for long; who asks again meanwhile is not to get this.
                    recorder.spoil()
        watch.finish()
        self._commit(recorder, watch)

    def _commit(self, recorder: Recorder, watch: _Watch) -> bool:
        """Commit if the response may be stored; True when the recording is over."""
        verdict = watch.verdict()
        if verdict.refused is not None:
            self._refusals[verdict.refused] += 1
            return False
        model = verdict.model
        if self._prices.price(model) is None and isinstance(asked := self._body.get("model"), str):
            model = asked
        cost = self._prices.cost(model, verdict.usage)
        recorder.commit(usage=verdict.usage, model=verdict.model or model, cost=cost)
        return True

    @property
    def streamed(self) -> bool:
        """Whether the request asks for a stream."""
        return bool(self._body.get("stream"))

    def judge(self) -> StreamJudge:
        """A judge for a streamed response."""
        return stream_judge(self._endpoint, self._body, self._reasons)

    def judge_whole(self, data: bytes) -> Verdict:
        """The verdict on a plain body."""
        return judge_body(self._endpoint, data, self._reasons)

    @property
    def max_bytes(self) -> int:
        """The largest response that is stored."""
        return self._max_bytes


class _Watch:
    """Follows a body as it is delivered. A fault in here refuses the storing and never the delivery."""

    def __init__(self, recording: Recording, *, streamed: bool, refused: str | None) -> None:
        self._recording = recording
        self._streamed = streamed
        self._refused = refused
        self._settled = False
        self._size = 0
        self._parts: list[bytes] = []
        self._scanner = SseScanner(limit=recording.max_bytes)
        self._judge = recording.judge() if streamed else None
        self._ended = False

    def ended_by(self, chunk: bytes) -> bool:
        """Take a chunk; True once, when it brought the terminal event of a stream that may be stored."""
        if self._refused is not None or self._settled:
            return False
        self._size += len(chunk)
        if self._size > self._recording.max_bytes:
            self._refused = "too_large"
            self._parts.clear()
            return False
        if self._judge is None:
            self._parts.append(chunk)
            return False
        for event in self._scanner.feed(chunk):
            if self._judge.event(event):
                self._ended = True
                break
        self._settled = self._ended
        return self._ended

    @property
    def failed(self) -> bool:
        """Whether the stream has brought an error."""
        return self._judge is not None and self._judge.failed

    def finish(self) -> None:
        """The body has ended without an error."""
        if self._judge is not None and self._refused is None and not self._ended:
            self._ended = any(self._judge.event(event) for event in self._scanner.finish())

    def verdict(self) -> Verdict:
        """Whether what was seen is a complete answer."""
        if self._refused is not None:
            return Verdict(self._refused)
        if self._judge is None:
            return self._recording.judge_whole(b"".join(self._parts))
        if self._scanner.overflowed:
            return Verdict("too_large")
        return self._judge.verdict()


async def _drain(chunks: Any) -> None:
    try:
        async for _ in chunks:
            pass
    except Exception:  # noqa: BLE001 - the answer is complete; how its connection ends is of no interest
        return
