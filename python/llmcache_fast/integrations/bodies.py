"""Response bodies that the transports hand out: whole ones, and those read live from the cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import ModuleType
from typing import Any, Protocol, Self

import anyio

from llmcache_fast._errors import FlightDeadlineExceeded
from llmcache_fast.integrations.recording import own_instance, upstream_cause


class Reader(Protocol):
    """What `cache.stream` gives."""

    @property
    def status(self) -> str: ...

    @property
    def head(self) -> bytes: ...

    @property
    def cost(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def spoil(self) -> None: ...

    async def aclose(self) -> None: ...


class CacheFailure(Exception):  # noqa: N818 - a carrier, not an error of its own
    """Wraps an error of the cache, so that it is told from those of the wrapped transport."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class WholeBody:
    """A body that is there; an `AsyncByteStream` of the library at hand."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Nothing to release."""


class LiveBody:
    """A reader's chunks as an `AsyncByteStream` of the library at hand.

    Each wait for a chunk is under the caller's own read timeout, so that nobody waits longer for another's
    upstream call than for its own. Failures become the library's exceptions.
    """

    def __init__(
        self,
        library: ModuleType,
        request: Any,
        reader: Reader,
        on_end: Callable[[Reader], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._library = library
        self._on_end = on_end
        self._on_failure = on_failure
        self._request = request
        self._reader = reader
        self._seconds = timeouts(request).get("read")
        self._iterator = reader.__aiter__()
        # An entry has all its chunks: nothing is waited for, and a cancel scope for each would cost the most.
        self._waits = reader.status not in ("hit", "stale")
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self.next()
        except CacheFailure as failure:
            # The head is out already: too late to go upstream for this caller.
            self._on_failure(failure.error)
            raise self._library.ReadError(
                "the cached stream failed", request=self._request
            ) from failure.error
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def next(self) -> bytes | None:
        """The next chunk, or None at the end.

        Raises:
            CacheFailure: the cache failed; everything else is the wrapped transport's or `ReadTimeout`.
        """
        chunk: bytes | None = None
        try:
            if not self._waits:
                return await anext(self._iterator, None)
            with anyio.move_on_after(self._seconds) as limit:
                chunk = await anext(self._iterator, None)
        except FlightDeadlineExceeded as error:
            message = "no end within the cache's deadline"
            raise self._library.ReadTimeout(message, request=self._request) from error
        except Exception as error:
            original = upstream_cause(error)
            if original is not None:
                raise own_instance(original, self._request) from original
            raise CacheFailure(error) from error
        if limit.cancelled_caught:
            # An upstream that hangs is not to be waited for by whoever asks next.
            self._reader.spoil()
            raise self._library.ReadTimeout(
                "no chunk within the request's read timeout", request=self._request
            )
        return chunk

    async def aclose(self) -> None:
        """Leave the flight; the upstream call goes on for the others and for the store."""
        if not self._closed:
            self._closed = True
            self._on_end(self._reader)
            await self._reader.aclose()


def timeouts(request: Any) -> Mapping[str, float | None]:
    """The timeouts of a request in seconds, by phase; None is no limit."""
    found = request.extensions.get("timeout")
    return found if isinstance(found, Mapping) else {}
