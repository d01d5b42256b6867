"""A flight: one computation of a fingerprint, and what each of its waiters gets of it.

What belongs here: one flight's state. What does not: the table of flights, who may join (`flights`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio

from llmcache_fast._entry import Facet
from llmcache_fast._errors import ComputationError


class Flight:
    """One computation. Waiters read `value` or `error` once `landed`."""

    __slots__ = (
        "_done",
        "attachment",
        "background",
        "blocked_on",
        "depends_on",
        "error",
        "facet",
        "key",
        "label",
        "landed",
        "namespace",
        "number",
        "on_end",
        "orphan",
        "plain",
        "scope",
        "since",
        "space",
        "streamed",
        "superseded",
        "tags",
        "targets",
        "value",
        "waiters",
    )

    def __init__(
        self, key: bytes, namespace: str, space: int, number: int, targets: set[int], tags: tuple[str, ...]
    ) -> None:
        self.key = key
        self.namespace = namespace
        self.space = space
        """The namespace's id."""
        self.number = number
        self.targets = targets
        self.tags = tags
        self.depends_on: tuple[str, ...] = ()
        """Versions that callers who joined brought, beside those of the first."""
        self.label: str | None = None
        self.facet: Facet | None = None
        """What the entry is to be found by when other words ask the same."""
        self.since: tuple[int, int] | None = None
        """The namespace's clock, as it was known when the value began to be made; None before that."""
        self.waiters = 0
        self.landed = False
        self.orphan = False
        self.background = False
        self.plain = False
        """There is nothing old that a caller could be given instead of waiting."""
        self.streamed = False
        """It records a stream: its waiters read `attachment`, and no value."""
        self.superseded = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.attachment: Any = None
        self.on_end: Callable[[BaseException | None], None] | None = None
        self.scope = anyio.CancelScope()
        self.blocked_on: Counter[Flight] = Counter()
        """The flights its computation waits for, each as often as it does."""
        self._done: anyio.Event | None = None

    def done(self) -> anyio.Event:
        """Set when it lands. Cancelling a waiter touches nothing but the waiter."""
        if self._done is None:
            self._done = anyio.Event()
            if self.landed:
                self._done.set()
        return self._done

    def land(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Give the waiters their answer; whether this was the first."""
        if self.landed:
            return False
        self.landed = True
        self.value = value
        self.error = error
        if self.on_end is not None and error is not None:
            self.on_end(error)
        if self._done is not None:
            self._done.set()
        return True

    def reaches(self, other: Flight) -> bool:
        """Whether this flight waits, directly or through others, for `other`."""
        seen: set[Flight] = set()
        todo = [self]
        while todo:
            flight = todo.pop()
            if flight is other:
                return True
            if flight not in seen:
                seen.add(flight)
                todo.extend(flight.blocked_on)
        return False


def own_exception(error: BaseException) -> BaseException:
    """An exception of the same class and facts for one more caller, chained to the original.

    Two callers must not share one: each adds its own traceback to it. A class that cannot be copied gives a
    `ComputationError`.
    """
    kind = type(error)
    try:
        if kind.__module__ == "builtins":
            fresh = copy.copy(error)
        else:
            # Not by calling the class: SDKs' exceptions take arguments that are not in `args`.
            fresh = kind.__new__(kind, *error.args)
            fresh.args = error.args
            fresh.__dict__.update(error.__dict__)
        if type(fresh) is not kind or fresh is error or fresh.args != error.args:
            raise TypeError
    except Exception:  # noqa: BLE001 - a foreign class may refuse in any way
        fresh = ComputationError(f"the computation raised {kind.__name__}")
    fresh.__cause__ = error
    fresh.__traceback__ = None
    return fresh
