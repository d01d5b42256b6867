"""An event loop whose time is a number: it jumps to the next timer, and nothing in it depends on the machine.

What belongs here: time, the order of what is ready, and what else of chance and of order is taken from the
system. What does not: what happens in the loop (`session`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import anyio
import anyio.to_thread
from anyio._backends import _asyncio
from sniffio import thread_local

from llmcache_fast.actors import reader
from llmcache_fast.actors.flight import Flight
from llmcache_fast.tiers import guarded
from llmcache_fast.tiers.detached import Detached

ROUNDS = 200
"""Rounds of the loop in one instant, after which each takes `ROUND` seconds."""
ROUND = 0.001
LATE = 1e-6
"""Seconds by which timers are late."""
DISK = 0.002
"""Seconds that a disk takes to sync."""


class SimulatedTask(asyncio.Task[Any]):
    """Sets of tasks are walked in an order that follows from their hashes: the address would be chance."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Time:
    """Stands in for the selector: to wait for the next timer is to be there."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> tuple[()]:
        loop = self._loop
        if timeout is None:
            raise RuntimeError("the simulated world stands still: nothing is ready and no timer is set")
        self._rounds += 1
        if timeout > 0:
            self._rounds = 0
            # Never quite on time, or who waits for what rounding has left over waits for ever.
            loop.move(loop._scheduled[0]._when + LATE)
        elif self._rounds > ROUNDS:
            # Rounds take time: what asks again on each of them until a timer ends it would stop the world.
            loop.move(loop.now + ROUND)
        if loop.shuffle is not None and len(loop._ready) > 1:
            # Who runs first among those that are ready is no promise of any event loop (trio shuffles, too).
            loop.shuffle(loop._ready)
        return ()

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """`now` is its time in seconds; `moved` is told of each new one."""

    _ready: Any
    _scheduled: Any
    _clock_resolution: float

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.moved: Callable[[float], None] = lambda now: None
        self.shuffle: Callable[[Any], None] | None = None
        self._selector = _Time(self)
        self._clock_resolution = 1e-9
        self._numbers = itertools.count(1)
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    def _make_task(self, loop: Any, coroutine: Coroutine[Any, Any, Any], **options: Any) -> SimulatedTask:
        task = SimulatedTask(coroutine, loop=loop, **options)
        task.number = next(self._numbers)
        return task

    def time(self) -> float:
        return self.now

    def move(self, now: float) -> None:
        """It is later now."""
        if now > self.now:
            self.now = now
            self.moved(now)

    def _process_events(self, events: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


async def _in_line(work: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    """A worker thread's work: it takes as long as a disk does, and is done at its end."""
    await anyio.sleep(DISK)
    return work(*arguments)


def _same(_: object) -> int:
    return 0


@contextmanager
def determinism(seed: object) -> Iterator[None]:
    """Inside, chance comes from `seed`, and order from what happens."""
    before = random.getstate()
    random.seed(f"package {seed}")
    Detached._running.clear()
    with (
        mock.patch.object(thread_local, "name", "asyncio"),  # asked for at each step, and costly to find out
        mock.patch.object(secrets, "token_bytes", lambda size=32: random.randbytes(size)),
        mock.patch.object(secrets, "randbits", random.getrandbits),
        mock.patch.object(anyio.to_thread, "run_sync", _in_line),
        # What is kept in sets: a few at a time, so that one hash for all costs nothing.
        mock.patch.object(Flight, "__hash__", lambda flight: flight.number),
        mock.patch.object(reader._Batch, "__hash__", _same),
        mock.patch.object(guarded._Call, "__hash__", _same),
        mock.patch.object(_asyncio.CancelScope, "__hash__", _same),
    ):
        try:
            yield
        finally:
            random.setstate(before)
