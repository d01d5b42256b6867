"""What computes: a callable without an argument, or with one, or the source of a stream.

What belongs here: what a computation is told. What does not: what becomes of its value (`_storing`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from llmcache_fast._entry import Computed, Entry, Facts


class Context(msgspec.Struct, frozen=True):
    """What a computation is told, if it takes an argument."""

    fingerprint: bytes
    stale: Any = None
    """The value that is being computed anew, if there is one."""
    attempt: int = 1


class Recorder(Protocol):
    """What the source of a stream writes to, as far as its flight is concerned."""

    facts: Facts | None
    cost: int

    def result(self) -> Computed[bytes] | None: ...

    def replay(self, entry: Entry) -> bool: ...

    def end(self) -> None: ...


R = TypeVar("R", bound=Recorder)


async def call(compute: Callable[..., Awaitable[Any]], context: Context) -> Any:
    """What a computation returns; it is given `context` if it takes an argument.

    Raises:
        TypeError: it is no async callable.
        Exception: its own.
    """
    awaitable = compute(context) if _takes_argument(compute) else compute()
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"compute must be an async callable; it returned a {type(awaitable).__name__}, no awaitable"
        )
    return await awaitable


def _takes_argument(compute: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        for parameter in parameters
    )
