"""Work of a model in a worker thread, a bounded number of calls at a time.

What does not belong here: what the work is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")


class Worker:
    """Runs calls in worker threads, at most `calls` at once in each event loop.

    A call that began goes on to its end and is waited for, whoever is cancelled: to let go of it would let
    the next one begin beside it.
    """

    def __init__(self, calls: int = 1) -> None:
        self._calls = calls
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("llmcache_fast.semantic.worker")

    async def run(self, call: Callable[[], T]) -> T:
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._calls)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(call, limiter=limiter)
