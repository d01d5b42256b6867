"""Streams: recorded once, read by any number of callers from the first chunk, live or later.

What belongs here: the recording, its readers, its stored form. What does not: when a stream is complete (the
source says so by `commit`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import anyio
import msgspec

from llmcache_fast._answer import Landing
from llmcache_fast._computing import Computing
from llmcache_fast._entry import Computed, Content, Entry, Facts, Status
from llmcache_fast._errors import FlightCancelled, NotCachedError, WaitTimeoutError
from llmcache_fast._inquiry import Inquiry
from llmcache_fast._options import UNSET, CallOptions, Seconds, Unset
from llmcache_fast._recordings import Recordings
from llmcache_fast._storing import Storing
from llmcache_fast._usage import Usage
from llmcache_fast.actors.flight import Flight, own_exception
from llmcache_fast.actors.flights import Flights

CONTENT: Content = "stream"


class Recording(msgspec.Struct, array_like=True, frozen=True):
    """The stored form: the head and the chunks with their boundaries."""

    head: bytes
    chunks: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Recording).decode


class Recorder:
    """What a source writes to. All methods return at once: no reader can hold the source up."""

    def __init__(self) -> None:
        self.head: bytes | None = None
        self.chunks: list[bytes] = []
        self.facts: Facts | None = None
        self.cost = 0
        self.ended = False
        self.spoiled = False
        self.replayed = False
        self.error: BaseException | None = None
        self._committed: Computed[None] | None = None
        self._changed = anyio.Event()

    def begin(self, head: bytes = b"") -> None:
        """Publish the head; `stream` returns to its callers now.

        Raises:
            RuntimeError: it was published before.
        """
        if self.head is not None:
            raise RuntimeError("begin was called twice")
        self.head = bytes(head)
        self._notify()

    def write(self, chunk: bytes) -> None:
        """Publish a chunk; readers see it at once, with its boundaries."""
        if self.head is None:
            self.begin()
        self.chunks.append(bytes(chunk))
        self._notify()

    def commit(
        self,
        *,
        usage: Usage | None = None,
        model: str | None = None,
        cost: int | None = None,
        ttl: Seconds | Unset | None = UNSET,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Declare the recording complete: stored when the source returns, unless the call forbids it.

        Args:
            usage: Tokens of the answer.
            model: The model that gave it.
            cost: In micro-USD; without it, taken from `usage` and `model` by the cache's price table.
            ttl: Seconds it is fresh, None for ever, 0 not stored; without it, the call's.
            tags: Added to those of the call.
        """
        self._committed = Computed(None, ttl=ttl, usage=usage, model=model, cost=cost, tags=tags)

    def spoil(self) -> None:
        """Nobody joins from here on: what was written is an error. Those who read already go on."""
        self.spoiled = True

    def end(self, error: BaseException | None = None) -> None:
        """No chunk follows."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._notify()

    def result(self) -> Computed[bytes] | None:
        """What is to be stored; None if nothing is."""
        if self._committed is None or self.head is None:
            return None
        given = self._committed
        return Computed(
            _encode(Recording(self.head, self.chunks)),
            ttl=given.ttl,
            usage=given.usage,
            model=given.model,
            cost=given.cost,
            tags=given.tags,
        )

    def replay(self, entry: Entry) -> bool:
        """Publish a recording that is stored, in place of running the source; False if the entry is none."""
        if entry.content != CONTENT or not isinstance(entry.payload, bytes):
            return False
        try:
            recording = _decode(entry.payload)
        except msgspec.DecodeError:
            return False
        self.head, self.chunks = recording.head, recording.chunks
        self.facts, self.cost = entry.facts, entry.cost
        self.replayed = True
        self.end()
        return True

    async def changed(self) -> None:
        """Wait for the next thing to be published."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


Source = Callable[[Recorder], Awaitable[None]]
"""Runs once for all callers, in a task of the cache."""


class _Shared(Protocol):
    def leave(self, flight: Flight) -> None: ...

    def waiting(self, flight: Flight) -> AbstractContextManager[None]: ...


class StreamReader:
    """One caller's way through a recording: `async for chunk in reader`.

    Leaving early, by `aclose` or at the end of `async with`, disturbs nobody else.
    """

    def __init__(
        self, recorder: Recorder, status: Status, flight: Flight | None = None, flights: _Shared | None = None
    ) -> None:
        self._recorder = recorder
        self._flight = flight
        self._flights = flights
        self._position = 0
        self.status = status

    @property
    def head(self) -> bytes:
        """What the source published first."""
        return self._recorder.head or b""

    @property
    def facts(self) -> Facts | None:
        """Usage, model and tags; known at the end."""
        return self._recorder.facts

    @property
    def cost(self) -> int:
        """Recorded cost in micro-USD; 0 when unknown."""
        return self._recorder.cost

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        recorder = self._recorder
        while self._position >= len(recorder.chunks):
            if recorder.ended:
                self._leave()
                if recorder.error is not None:
                    raise own_exception(recorder.error)
                raise StopAsyncIteration
            if self._flight is None or self._flights is None:
                await recorder.changed()
            else:
                with self._flights.waiting(self._flight):
                    await recorder.changed()
        self._position += 1
        return recorder.chunks[self._position - 1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def spoil(self) -> None:
        """Let nobody join this recording from here on; those who read it already go on."""
        self._recorder.spoil()

    async def aclose(self) -> None:
        """Stop reading."""
        self._leave()

    def _leave(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None and self._flights is not None:
            self._flights.leave(flight)


class Streams:
    """Opens readers: over an entry, a running recording, or a new one."""

    def __init__(
        self, computing: Computing, recordings: Recordings, storing: Storing, flights: Flights
    ) -> None:
        self._computing = computing
        self._recordings = recordings
        self._storing = storing
        self._flights = flights

    async def open(
        self, key: bytes, source: Source, namespace: str, options: CallOptions, inquiry: Inquiry | None = None
    ) -> StreamReader:
        """A reader whose head is known.

        Raises:
            NotCachedError: `only_if_cached`, and nothing is.
            WaitTimeoutError: the head was not published within `timeout`.
            Exception: what the source raised before `begin`, an instance of this caller's own.
        """
        found = None if options.refresh else await self._computing.found(key, namespace, options)
        if found is not None and found.landing.entry is not None:
            reader = _replay(found.landing.entry, found.status)
            if reader is not None:
                if found.status == "stale" and self._computing.may_refresh(key, options):
                    self._flights.put_behind(self._start(key, source, namespace, options, inquiry))
                return reader
        if found is None and inquiry is not None and self._flights.get(key) is None and not options.refresh:
            reader = await self._other(key, source, namespace, options, inquiry)
            if reader is not None:
                return reader
        if options.only_if_cached:
            raise NotCachedError("there is no entry for this request, and only_if_cached was asked")
        flight = None if options.refresh else self._flights.get(key)
        status: Status = "joined"
        if (
            flight is None
            or not flight.streamed
            or flight.attachment.spoiled
            or not self._storing.add_targets(flight, options)
        ):
            status = "miss"
            flight = self._start(key, source, namespace, options, inquiry)
        else:
            self._flights.joined()
            self._computing.counts["joined"] += 1
        return await self._attach(flight, status, options.timeout)

    async def _other(
        self, key: bytes, source: Source, namespace: str, options: CallOptions, inquiry: Inquiry
    ) -> StreamReader | None:
        """A reader of the recording that answers another question which asks the same."""
        landing = await inquiry.find(lambda entry: entry.content == CONTENT)
        reader = None if landing is None or landing.entry is None else _replay(landing.entry, "semantic")
        if landing is None or reader is None:
            return None
        self._computing.told(landing, "semantic")
        if inquiry.check:
            # The provider is asked all the same, to compare.
            if self._computing.may_refresh(key, options):
                self._flights.put_behind(self._start(key, source, namespace, options, inquiry))
            else:
                inquiry.abandon()
        return reader

    async def _attach(self, flight: Flight, status: Status, timeout: float | None) -> StreamReader:
        recorder: Recorder = flight.attachment
        self._flights.adopt(flight)
        try:
            with self._flights.waiting(flight), anyio.move_on_after(timeout):
                while recorder.head is None and not recorder.ended:
                    await recorder.changed()
            if recorder.head is None:
                if recorder.error is not None:
                    raise own_exception(recorder.error)
                if not recorder.ended:
                    raise WaitTimeoutError(f"no answer within the caller's timeout of {timeout} s")
                raise FlightCancelled("the source ended without a head")
        except BaseException:
            self._flights.leave(flight)
            raise
        if recorder.replayed and status == "miss":
            status = "hit"  # another process has recorded it meanwhile
        return StreamReader(recorder, status, flight, self._flights)

    def _start(
        self, key: bytes, source: Source, namespace: str, options: CallOptions, inquiry: Inquiry | None
    ) -> Flight:
        recorder = Recorder()

        async def run(flight: Flight) -> Landing:
            try:
                landing = await self._recordings.record(flight, source, recorder, options, inquiry)
            except StopAsyncIteration as error:
                # Raised again in `__anext__` it would end a stream that is not whole (as in PEP 479).
                failure = RuntimeError("the source raised StopAsyncIteration")
                recorder.end(failure)
                raise failure from error
            except Exception as error:
                recorder.end(error)
                raise
            finally:
                recorder.end(FlightCancelled("the recording was cancelled"))
            return landing

        flight = self._computing.launch(key, namespace, options, run)
        flight.attachment, flight.streamed = recorder, True
        # A flight that is ended from outside ends its readers too, whatever its source does.
        flight.on_end = recorder.end
        return flight


def _replay(entry: Entry, status: Status) -> StreamReader | None:
    recorder = Recorder()
    return StreamReader(recorder, status) if recorder.replay(entry) else None
