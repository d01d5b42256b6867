"""What comes once, for many who wait: an event for the paths on which anyio's costs too much.

An `anyio.Event` finds its backend anew each time it is made, and takes a caller through two coroutines more:
with it a read among 256 cost 4 us of processor time more than with a future of the event loop's for each
caller (benches/test_redis.py). On asyncio this makes such futures; on other event loops it is the event.
What does not belong here: how long is waited (`watch`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.lowlevel


class Signal(Protocol):
    """It comes once. A cancellation of one who waits disturbs no other."""

    came: bool

    def wait(self) -> Awaitable[object]:
        """Return when it comes. Not to be called after it came."""
        ...

    def set(self) -> None:
        """Let it come; once more does nothing."""
        ...


class _Futures:
    __slots__ = ("_make", "_waiting", "came")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._waiting: list[Any] = []
        self.came = False

    def wait(self) -> Awaitable[object]:
        # One for each: a cancelled task cancels the future it waits for.
        future: Awaitable[object] = self._make()
        self._waiting.append(future)
        return future

    def set(self) -> None:
        self.came = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class _Event:
    __slots__ = ("_event", "came")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.came = False

    def wait(self) -> Awaitable[object]:
        return self._event.wait()

    def set(self) -> None:
        self.came = True
        self._event.set()


class Running:
    """The running event loop, looked up once: its clock, and signals of its kind."""

    __slots__ = ("future", "now")

    def __init__(self) -> None:
        loop: Any = anyio.lowlevel.current_token().native_token
        make: Callable[[], Any] | None = getattr(loop, "create_future", None)
        if make is not None and make().__class__.__module__ == "_asyncio":
            # What `create_future` does, without its Python.
            make = partial(make().__class__, loop=loop)
        self.future = make
        """Makes a future, where the event loop has some."""
        self.now: Callable[[], float] = anyio.current_time if self.future is None else loop.time

    def signal(self) -> Signal:
        return _Event() if self.future is None else _Futures(self.future)
