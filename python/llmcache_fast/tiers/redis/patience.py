"""Time limits of round trips, which a busy event loop does not use up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from llmcache_fast.tiers.watch import Watch


class Patience:
    """`asyncio.timeout` under the timer of a `Watch`, whose time does not run while the loop is busy.

    Raises `TimeoutError` on leaving when the time was up.

    Like `asyncio.timeout` it cancels the task it is used in and takes the cancellation back; another
    cancellation that arrives meanwhile passes.
    """

    __slots__ = ("_cancelling", "_seconds", "_task", "_watch", "came")

    def __init__(self, watch: Watch, seconds: float) -> None:
        self._watch = watch
        self._seconds = seconds
        self.came = False
        """Whether the time was up."""

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("use it inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._watch.start(self, self._seconds)
        return self

    def progress(self) -> None:
        """Something arrived: the time begins anew."""
        self._watch.start(self, self._seconds)

    def set(self) -> None:
        """The time is up."""
        self.came = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.stop(self)
        if (
            self.came
            and self._task.uncancel() <= self._cancelling
            and (kind is not None and issubclass(kind, asyncio.CancelledError))
        ):
            raise TimeoutError from None
