"""`CachingTransport`: a cache beneath any client built on httpx or httpx2.

It wraps another transport. POSTs to the known endpoints (`wire.endpoints`) are answered from the cache or
recorded on their way; everything else passes through. See `integrations.wrap` for the SDKs' clients.

Every reply carries `x-llmcache: hit | semantic | stale | joined | miss | bypass`. A request may carry:

| header | meaning |
|---|---|
| `x-llmcache-control: no-cache` | do not read, do store; `refresh` is the same |
| `x-llmcache-control: no-store` | read, do not store; `no-cache, no-store` is neither |
| `x-llmcache-control: only-if-cached` | never go upstream: 504 with `x-should-retry: false` when absent |
| `x-llmcache-ttl` | seconds, `0` for not stored, or `none` for no end |
| `x-llmcache-tags` | comma-separated |
| `x-llmcache-variant` | asks for an independent sample under this name |
| `x-llmcache-label` | the entry's label |

They are removed before the request is sent. A header that means nothing is answered with 400.

**Fails open**: an error of the cache is counted, logged without text, and the request goes upstream.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import anyio
import msgspec

from llmcache_fast._errors import (
    CacheClosedError,
    FlightCancelled,
    FlightDeadlineExceeded,
    NotCachedError,
    WaitTimeoutError,
)
from llmcache_fast._options import namespace_of
from llmcache_fast._usage import PriceTable
from llmcache_fast.integrations import binding
from llmcache_fast.integrations.bodies import CacheFailure, LiveBody, Reader, WholeBody, timeouts
from llmcache_fast.integrations.recording import Recording, own_instance, upstream_cause
from llmcache_fast.integrations.wire import head as heads
from llmcache_fast.integrations.wire.controls import PREFIX, ControlError, Controls, parse_controls
from llmcache_fast.integrations.wire.endpoints import Endpoint, endpoint_of, stateful_field
from llmcache_fast.integrations.wire.judge import FINISH_REASONS
from llmcache_fast.integrations.wire.key import KeyRules

__all__ = ["CachingTransport", "TransportStatistics"]

_log = logging.getLogger(__name__)

_BodyT = TypeVar("_BodyT")

if TYPE_CHECKING:
    # Any, so that a type checker accepts the transport for httpx and for httpx2 alike.
    _Base: Any = object
else:
    _Base = object


class StreamCache(Protocol):
    """The part of `LLMCache` that a transport uses."""

    def fingerprint(self, request: Any, *, profile: str = ...) -> bytes: ...

    def stream(self, request: Any, source: Any, **options: Any) -> Awaitable[Any]: ...


class TransportStatistics(msgspec.Struct, frozen=True):
    """Counts since the transport was made."""

    replies: dict[str, int]
    """By value of `x-llmcache`."""
    not_stored: dict[str, int]
    """Delivered but not stored, by reason: `status`, `finish_reason`, `refusal`, `interrupted`, ..."""
    bypassed: dict[str, int]
    """Not looked up, by reason: `path`, `control`, `body`, or the stateful field that was set."""
    failed_open: dict[str, int]
    """Errors of the cache, by class; each of these requests went upstream."""
    saved_micro_usd: int
    """Recorded cost of the calls that were not made."""


class CachingTransport(_Base):  # type: ignore[misc]  # the base is found at run time
    """A transport that answers from a cache; an `AsyncBaseTransport` of the library of the one it wraps.

    Args:
        cache: An open `LLMCache`. It stays the caller's: closing the transport does not close it.
        transport: The transport that goes upstream, of httpx or httpx2. Closed with this one.
        namespace: In place of the cache's own.
        scope: A name under which all credentials share entries, in place of the credentials' digest.
        share_credentials: True lets all credentials share entries.
        ignored_headers: Names of request headers that do not count for the key, beyond the built-in rules.
        finish_reasons: The reasons after which an answer is whole.
        max_bytes: The largest response that is stored.
        prices: The price table by which the cost of an entry is recorded.

    Raises:
        TypeError: `transport` is of neither library.
        ConfigurationError: a namespace that cannot be.
    """

    def __new__(cls, cache: StreamCache, transport: Any, **options: Any) -> Self:
        return object.__new__(binding.bound(cls, _library_of(transport), "AsyncBaseTransport"))

    def __init__(
        self,
        cache: StreamCache,
        transport: Any,
        *,
        namespace: str | None = None,
        scope: str | None = None,
        share_credentials: bool = False,
        ignored_headers: Iterable[str] = (),
        finish_reasons: Collection[str] = FINISH_REASONS,
        max_bytes: int = 32 * 1024 * 1024,
        prices: PriceTable | None = None,
    ) -> None:
        self._cache = cache
        self._inner = transport
        self._namespace = None if namespace is None else namespace_of(namespace)
        self._library = _library_of(transport)
        self._rules = KeyRules(
            cache.fingerprint,
            scope=scope,
            share_credentials=share_credentials,
            ignored_headers=ignored_headers,
        )
        self._finish_reasons = frozenset(finish_reasons)
        self._max_bytes = max_bytes
        self._prices = prices or PriceTable.shipped()
        self._replies: Counter[str] = Counter()
        self._not_stored: Counter[str] = Counter()
        self._bypassed: Counter[str] = Counter()
        self._failed_open: Counter[str] = Counter()
        self._saved = 0

    def statistics(self) -> TransportStatistics:
        """The counts so far."""
        return TransportStatistics(
            dict(self._replies),
            dict(self._not_stored),
            dict(self._bypassed),
            dict(self._failed_open),
            self._saved,
        )

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request: the one method that httpx and httpx2 ask of a transport.

        Raises what the wrapped transport raises, each caller an instance of its own.
        """
        endpoint = endpoint_of(request.method, request.url.path)
        if endpoint is None:
            return await self._bypass(request, "path")
        try:
            controls = parse_controls(request.headers)
        except ControlError as problem:
            return self._refusal(request, 400, "invalid_request_error", str(problem))
        content = await request.aread()
        if controls.bypass:
            return await self._bypass(request, "control")
        body = _json_object(request, content)
        reason = "body" if body is None else stateful_field(body)
        if body is None or reason is not None:
            if controls.only_if_cached:
                return self._not_cached(request)
            return await self._bypass(request, reason or "body")
        return await self._cached(request, endpoint, controls, body)

    async def _cached(
        self, request: Any, endpoint: Endpoint, controls: Controls, body: dict[str, Any]
    ) -> Any:
        recording = self._recording(request, endpoint, body)
        options = _options(controls)
        if self._namespace is not None:
            options["namespace"] = self._namespace
        try:
            request_of = partial(
                self._rules.request_of, endpoint, request.method, str(request.url), _pairs(request)
            )
            key = request_of(body, controls.variant)
            if endpoint.name != "embeddings":  # whose answer is of the text itself, not of what it means
                options["question"] = partial(_question, body, partial(request_of, variant=controls.variant))
            reader: Reader | None = None
            with _head_limit(request):
                while reader is None:
                    try:
                        reader = await self._cache.stream(key, recording, **options)
                    except Exception as error:
                        # The time that another caller gave the shared request is over; this one's is not.
                        timeout = isinstance(upstream_cause(error), self._library.TimeoutException)
                        if recording.started or not timeout:
                            raise
        except NotCachedError:
            return self._not_cached(request)
        except Exception as error:  # noqa: BLE001 - an exception of ours would start the SDK's retries
            return await self._failed(request, controls, recording, error)
        if reader is None:
            raise self._library.ReadTimeout("no response within the request's timeouts", request=request)
        try:
            return await self._response(request, reader, recording)
        except CacheFailure as failure:
            return await self._failed(request, controls, recording, failure.error)

    def _recording(self, request: Any, endpoint: Endpoint, body: dict[str, Any]) -> Recording:
        # Built when the source runs: a hit needs no request for the upstream.
        sent: list[Any] = []

        async def send() -> Any:
            sent.append(self._stripped(request, decodable=True))
            response = await self._inner.handle_async_request(sent[0])
            # From here on each reader waits by its own read timeout (`LiveBody`). This caller's must not end
            # the answer for the others; the HTTP libraries ask for it anew when the body is read.
            if timeout := sent[0].extensions.get("timeout"):
                timeout["read"] = None
            return response

        def same_scope() -> bool:
            # Asked after sending: the client's own hooks may have changed the credentials of the key.
            now, then = (self._rules.scope_of(str(each.url), _pairs(each)) for each in (sent[0], request))
            return now == then

        return Recording(
            send=send,
            library=self._library,
            endpoint=endpoint,
            body=body,
            finish_reasons=self._finish_reasons,
            prices=self._prices,
            max_bytes=self._max_bytes,
            same_scope=same_scope,
            refusals=self._not_stored,
        )

    async def _response(self, request: Any, reader: Reader, recording: Recording) -> Any:
        try:
            head = heads.decode_head(reader.head)
        except ValueError as error:
            await reader.aclose()
            raise CacheFailure(error) from error
        live = recording.live_headers if reader.status == "miss" else None
        headers = [*(head.headers if live is None else live), (b"x-llmcache", reader.status.encode())]
        body = self._bind(LiveBody)(self._library, request, reader, self._ended, self._count_failure)
        events = _header(headers, b"content-type").startswith(b"text/event-stream")
        # Some servers stream lines of JSON: what was asked for as a stream is passed on as one.
        if events or (recording.streamed and head.status == 200):
            self._replies[reader.status] += 1
            return self._library.Response(head.status, headers=headers, stream=body)
        # Read whole before it is handed out: until then a failure of the cache can still go upstream.
        whole: list[bytes] = []
        try:
            while (chunk := await body.next()) is not None:
                whole.append(chunk)
        finally:
            await body.aclose()
        self._replies[reader.status] += 1
        return self._whole(head.status, headers, whole)

    def _bind(self, kind: type[_BodyT]) -> type[_BodyT]:
        return binding.bound(kind, self._library, "AsyncByteStream")

    def _whole(self, status: int, headers: heads.Headers, chunks: list[bytes]) -> Any:
        if not _header(headers, b"content-length"):
            headers = [*headers, (b"content-length", str(sum(map(len, chunks))).encode())]
        stream = self._bind(WholeBody)(chunks)
        return self._library.Response(status, headers=headers, stream=stream)

    async def _failed(self, request: Any, controls: Controls, recording: Recording, error: Exception) -> Any:
        original = upstream_cause(error)
        if original is not None:
            raise own_instance(original, request) from original
        if isinstance(error, FlightDeadlineExceeded | WaitTimeoutError):
            raise self._library.ReadTimeout(
                "no answer within the cache's deadline", request=request
            ) from error
        if isinstance(error, FlightCancelled) and recording.started:
            # It went upstream, and may be billed: neither we nor the SDK's retries send it again.
            message = "the cache was closed while this call was under way; close it after the last call"
            return self._refusal(request, 503, "cache_closed", message)
        self._count_failure(error)
        if controls.only_if_cached:
            return self._not_cached(request)
        return await self._bypass(request, "failed_open")

    def _count_failure(self, error: Exception) -> None:
        name = type(error).__name__
        if not self._failed_open[name]:
            # Once a class: what fails at every request must not flood the log. No text: it may hold a prompt.
            # What a closed cache says is ours, and tells what to do.
            shown = f"{name} ({error})" if isinstance(error, CacheClosedError) else name
            _log.warning("the cache failed with %s; requests go upstream without it", shown)
        self._failed_open[name] += 1

    def _stripped(self, request: Any, *, decodable: bool) -> Any:
        """The request without our headers; with `decodable`, asking for no content coding we cannot undo."""
        headers = [(name, value) for name, value in request.headers.raw if not _is_ours(name)]
        if decodable and b"identity" not in request.headers.get("accept-encoding", "").encode():
            headers = [(name, value) for name, value in headers if name.lower() != b"accept-encoding"]
            headers.append((b"Accept-Encoding", b"gzip, deflate"))
        extensions = dict(request.extensions)
        if "timeout" in extensions:
            extensions["timeout"] = dict(timeouts(request))
        return self._library.Request(
            request.method,
            request.url,
            headers=headers,
            content=request.content,
            extensions=extensions,
        )

    async def _bypass(self, request: Any, reason: str) -> Any:
        self._bypassed[reason] += 1
        self._replies["bypass"] += 1
        if any(_is_ours(name) for name, _ in request.headers.raw):
            await request.aread()
            request = self._stripped(request, decodable=False)
        response = await self._inner.handle_async_request(request)
        response.headers["x-llmcache"] = "bypass"
        return response

    def _not_cached(self, request: Any) -> Any:
        return self._refusal(request, 504, "not_cached", "only-if-cached was asked and nothing is cached")

    def _refusal(self, request: Any, status: int, kind: str, message: str) -> Any:
        """A response of our own, in a shape that the SDKs of all providers turn into an error."""
        body = {"type": "error", "error": {"type": kind, "message": message, "code": kind, "param": None}}
        data = msgspec.json.encode(body)
        outcome = "bypass" if status == 400 else "miss"
        self._replies[outcome] += 1
        headers = [
            (b"content-type", b"application/json"),
            (b"x-should-retry", b"false"),
            (b"x-llmcache", outcome.encode()),
        ]
        return self._whole(status, headers, [data])

    def _ended(self, reader: Reader) -> None:
        """Count what a reader saved, once its stream has ended."""
        if reader.status != "miss":
            self._saved += reader.cost


def _library_of(transport: Any) -> ModuleType:
    library = binding.library_of(transport, "AsyncBaseTransport")
    if library is None:
        raise TypeError(
            f"CachingTransport wraps an AsyncBaseTransport of httpx or httpx2, not {type(transport).__name__}"
            "; synchronous transports are not supported"
        )
    return library


def _options(controls: Controls) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if controls.ttl is not msgspec.UNSET:
        options["ttl"] = controls.ttl
    if controls.tags:
        options["tags"] = controls.tags
    if controls.label is not None:
        options["label"] = controls.label
    if not controls.store:
        options["store"] = False
    if controls.refresh:
        options["refresh"] = True
    if controls.only_if_cached:
        options["only_if_cached"] = True
    return options


def _question(
    body: dict[str, Any],
    request_of: Callable[[Any], dict[str, Any]],
    extract: Callable[[Any], tuple[str, Any] | None],
) -> tuple[str, dict[str, Any]] | None:
    """The question of a call's body, and the call without it."""
    found = extract(body)
    return None if found is None else (found[0], request_of(found[1]))


def _json_object(request: Any, content: bytes) -> dict[str, Any] | None:
    if request.headers.get("content-encoding", "identity") != "identity":
        return None
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) else None


def _pairs(request: Any) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in request.headers.multi_items()]


def _is_ours(name: bytes) -> bool:
    return name.lower().startswith(PREFIX.encode())


def _header(headers: heads.Headers, name: bytes) -> bytes:
    return next((value for key, value in headers if key.lower() == name), b"")


def _head_limit(request: Any) -> anyio.CancelScope:
    """A bound on the wait for a head: all the phases that the request's own timeouts allow for."""
    phases = [timeouts(request).get(name) for name in ("pool", "connect", "write", "read")]
    known = [seconds for seconds in phases if seconds is not None]
    return anyio.move_on_after(sum(known) if len(known) == len(phases) else None)
