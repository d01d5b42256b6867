"""Open, closed, in another event loop, in a forked child: when a cache may be used.

What belongs here: entering and leaving, the guards, what a fork leaves behind. What does not: which parts a
cache has (`_cache` puts them together).
"""

from __future__ import annotations

import os
import weakref
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio.lowlevel

from llmcache_fast._core import Engine
from llmcache_fast._errors import CacheClosedError


class Lifecycle(Engine):
    """An engine that is open inside `async with`."""

    _exits: AsyncExitStack | None = None
    _loop: Any = None

    async def _assemble(self, exits: AsyncExitStack) -> None:
        """Make the parts, each with its end in `exits`."""

    async def __aenter__(self) -> Self:
        if self._exits is not None:
            raise CacheClosedError("the cache is open already; open each object once")
        try:
            async with AsyncExitStack() as exits:
                await self._assemble(exits)
                self._loop = anyio.lowlevel.current_token()
                # First of all ends: nobody may come in while the parts end.
                exits.callback(self._set_open, open=False)
                self._exits = exits.pop_all()
        except BaseExceptionGroup as group:
            # The task group wraps what a part raised when it was opened.
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from None
        _open.add(self)
        self._set_open(open=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        exits, self._exits = self._exits, None
        _open.discard(self)
        if exits is None:
            return None
        try:
            return await exits.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # The task group wraps even what the body alone raised; callers expect that as it was.
            if error is None or group.exceptions != (error,):
                raise
            return None

    def _check_open(self) -> None:
        if self._exits is None:
            raise CacheClosedError("the cache is not open: use it inside `async with LLMCache(...) as cache`")

    def _check_loop(self) -> None:
        if anyio.lowlevel.current_token() != self._loop:
            raise CacheClosedError(
                "the cache was opened in another event loop, and streams are recorded in that one alone: "
                "give this loop a cache of its own (both share the entries of a disk tier), or call from the "
                "loop that opened it; `get`, `get_nowait` and `get_or_compute` work here"
            )

    def _abandon(self) -> None:
        """Close without touching any part: they are the parent's."""
        self._set_open(open=False)
        self._exits = None


_open: weakref.WeakSet[Lifecycle] = weakref.WeakSet()

_inherited: list[Lifecycle] = []
"""What a forked child must not drop: closing the parent's files is the parent's business."""


def _after_fork() -> None:
    # The child has no event loop of ours and other threads' locks may be held: it starts clean.
    for cache in list(_open):
        _inherited.append(cache)
        cache._abandon()  # noqa: SLF001 - this module's own
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
