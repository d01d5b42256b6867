"""A task that belongs to nobody: what the caller may stop waiting for, whatever the task does.

A task group waits for its tasks, so a call of a driver that ignores cancellation would hold up its caller, or
the closing of the cache. That is the one thing structured concurrency cannot express; it is confined to this
file. What does not belong here: when to stop waiting (`guarded`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import anyio
import anyio.lowlevel


class Detached:
    """`work`, running in a task of its own in the current event loop.

    `work` must catch every exception: nobody is told of one. Its end is its own business, too; the task dies
    with the event loop at the latest.
    """

    _running: ClassVar[set[Detached]] = set()
    """The event loops hold their tasks by weak references only."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._running.add(self)
        loop: Any = anyio.lowlevel.current_token().native_token
        if hasattr(loop, "create_task"):
            self._loop, self._task = loop, loop.create_task(self._run())
        else:
            import trio

            self._loop, self._scope = None, anyio.CancelScope()
            trio.lowlevel.spawn_system_task(self._run_in_scope)

    def end_within(self, seconds: float) -> None:
        """Cancel it `seconds` from now, once, unless it has ended by then."""
        if self not in self._running:
            return
        if self._loop is not None:
            # The loop's own cancellation is thrown once. A cancel scope's is thrown on each round until the
            # task ends: a driver that ignores it would keep the processor busy.
            self._loop.call_later(seconds, self._task.cancel)
        else:
            self._scope.deadline = anyio.current_time() + seconds

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            self._running.discard(self)

    async def _run_in_scope(self) -> None:
        with self._scope:
            await self._run()
