"""Time limits that a busy event loop does not use up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_PARTS = 5


class Patience:
    """`asyncio.timeout` in parts: the time is spent in five rounds of the loop, each of which begins anew.

    One long round, in which a thousand requests start, uses up one part and not all of it, so a busy loop is
    not taken for a slow server. Raises `TimeoutError` on leaving when the time was up.

    Like `asyncio.timeout` it cancels the task it is used in and takes the cancellation back; another
    cancellation that arrives meanwhile passes.
    """

    __slots__ = ("_cancelling", "_expired", "_left", "_loop", "_part", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._part = seconds / _PARTS
        self._left = _PARTS
        self._expired = False

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("use it inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_later(self._part, self._tick)
        return self

    def progress(self) -> None:
        """Something arrived: the time begins anew."""
        self._left = _PARTS

    def _tick(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._timer = self._loop.call_later(self._part, self._tick)
        else:
            self._expired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if (
            self._expired
            and self._task.uncancel() <= self._cancelling
            and (kind is not None and issubclass(kind, asyncio.CancelledError))
        ):
            raise TimeoutError from None
