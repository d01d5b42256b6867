"""For the tests of flights: a provider that waits for leave to answer, and callers that may be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

A, B, C = ({"model": "m", "n": n} for n in "ABC")


class Provider:
    """A computation that waits for leave to go on, and counts."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values) or ["answer"]
        self.calls = 0
        self.cancelled = 0
        self.running = 0
        self.most = 0
        self.go = anyio.Event()

    async def __call__(self) -> Any:
        value = self.values[min(self.calls, len(self.values) - 1)]
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(value, Exception):
            raise value
        return value

    def done(self) -> Provider:
        self.go.set()
        return self


def options(**given: Any) -> dict[str, Any]:
    return {"jitter": 0.0, "negative_ttl": 0.0, **given}


class Caller:
    """One call in a task of its own, with its own cancel scope and ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.scope = anyio.CancelScope()
        self.value: Any = None
        self.error: Exception | None = None
        self.done = False

    async def run(self) -> None:
        with self.scope:
            try:
                self.value = await self._call()
            except Exception as error:
                self.error = error
            self.done = True


class Callers:
    """Starts callers, each as far as it gets."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks

    async def __call__(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Caller:
        caller = Caller(partial(call, *args, **kwargs))
        self._tasks.start_soon(caller.run)
        await anyio.wait_all_tasks_blocked()
        return caller


class ProviderError(Exception):
    """As the SDKs make them: arguments that are not in `args`, and facts."""

    def __init__(self, message: str, *, status_code: int, body: object) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.body = body
