"""A cache with the contract of `LLMCache.stream` and nothing else, for the transport's own tests."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import anyio.abc

from llmcache_fast import fingerprint
from llmcache_fast._errors import NotCachedError


@dataclass
class Facts:
    cost: int
    usage: Any
    model: str | None


@dataclass
class Tape:
    head: bytes | None = None
    chunks: list[bytes] = field(default_factory=list)
    facts: Facts | None = None
    ended: bool = False
    error: Exception | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    def _notify(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def begin(self, head: bytes) -> None:
        self.head = head
        self._notify()

    def write(self, chunk: bytes) -> None:
        self.chunks.append(bytes(chunk))
        self._notify()

    def commit(self, *, usage: Any = None, model: str | None = None, cost: int | None = None) -> None:
        self.facts = Facts(cost or 0, usage, model)

    def end(self, error: Exception | None = None) -> None:
        self.error = error
        self.ended = True
        self._notify()


@dataclass
class FakeReader:
    tape: Tape
    status: str
    closed: bool = False
    position: int = 0

    @property
    def head(self) -> bytes:
        assert self.tape.head is not None
        return self.tape.head

    @property
    def facts(self) -> Facts | None:
        return self.tape.facts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self.position >= len(self.tape.chunks):
            if self.tape.error is not None:
                raise _own(self.tape.error)
            if self.tape.ended:
                raise StopAsyncIteration
            await self.tape.changed.wait()
        self.position += 1
        return self.tape.chunks[self.position - 1]

    async def aclose(self) -> None:
        self.closed = True


def _own(error: Exception) -> Exception:
    fresh = copy.copy(error)
    fresh.__cause__ = error
    return fresh


class FakeCache:
    """Flights in a task group, entries in a dict; no expiry."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self.entries: dict[bytes, Tape] = {}
        self.flights: dict[bytes, Tape] = {}
        self.asked: list[Any] = []
        self.options: list[dict[str, Any]] = []
        self.exits = AsyncExitStack()
        self.broken: Exception | None = None

    def fingerprint(self, request: Any, *, profile: str = "generic") -> bytes:
        return fingerprint(request, namespace="test", profile=profile)

    async def stream(self, request: Any, source: Any, **options: Any) -> FakeReader:
        if self.broken is not None:
            raise self.broken
        self.asked.append(request)
        self.options.append(options)
        key = self.fingerprint(request)
        refresh = options.get("refresh", False)
        if key in self.entries and not refresh:
            return FakeReader(self.entries[key], "hit")
        if options.get("only_if_cached"):
            raise NotCachedError("nothing is cached")
        status = "joined"
        tape = self.flights.get(key)
        if tape is None:
            status = "miss"
            tape = self.flights[key] = Tape()
            self._tasks.start_soon(self._fly, key, tape, source, options.get("store", True))
        while tape.head is None:
            if tape.error is not None:
                raise _own(tape.error)
            await tape.changed.wait()
        return FakeReader(tape, status)

    async def _fly(self, key: bytes, tape: Tape, source: Any, store: bool) -> None:
        try:
            await source(tape)
        except Exception as error:
            tape.end(error)
        else:
            tape.end()
            if tape.facts is not None and store:
                self.entries[key] = tape
        finally:
            del self.flights[key]


@asynccontextmanager
async def open_fake_cache() -> AsyncIterator[FakeCache]:
    async with anyio.create_task_group() as tasks:
        yield FakeCache(tasks)
        tasks.cancel_scope.cancel()
