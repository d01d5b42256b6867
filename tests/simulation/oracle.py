"""What the cache promised, checked: the invariants I1 to I9 of docs/explanation/semantics.md.

The oracle knows what was computed, from when, what was invalidated, when, and who must know of it. It looks
at what callers get and at nothing inside the cache.

*Stale* means: the computation began before the invalidation was asked for. One that began in between may have
read either state of the source, so it may be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmcache_fast import CacheResult

SLACK = 0.001
"""Seconds of the world for what takes none: a reply that has arrived is processed in the same instant."""


NEVER = 1 << 62


class Violation(NamedTuple):
    """A promise was broken."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass(slots=True, eq=False)
class Computation:
    """A value that was computed, or was given to `set`."""

    number: int
    process: str
    namespace: str
    request: int
    tags: set[str]
    label: str | None
    depends_on: tuple[str, ...]
    step: int
    time: float
    ended: int | None = None
    stamped: int | None = None
    """Of a value given to `set`: the step at its return. Of two calls that run at once either may be the
    first, so an invalidation that was asked for meanwhile may count as before it."""
    created: int = 0
    """By the clock of its process, in microseconds."""
    window: float = 1000.0
    """Microseconds by which `created` may be wrong: the moment in which `set` stamps a value is not seen."""
    complete: bool = False
    """It may be stored."""
    durable: int | None = None
    """The step at which it was acknowledged as durable."""
    undone: bool = False
    """What was acknowledged as durable need not be there any more: something replaced or ended it."""

    @property
    def value(self) -> str:
        return f"{self.number}|{self.namespace}|{self.request}|answer"


@dataclass(slots=True, eq=False)
class Invalidated:
    """One call of `invalidate`, `bump_version` or `delete`."""

    process: str
    namespace: str
    kind: str
    name: Any
    space: int
    targets: frozenset[int | bytes]
    step: int
    time: float
    acknowledged: int | None = None
    """The step; None: it failed, or runs."""
    acknowledged_at: float = 0.0
    deferred: bool = False
    committed_at: float | None = None
    """When the authority had it."""
    lost: bool = False
    """The authority acknowledged it and lost it in a failover."""
    heard: dict[str, float] = field(default_factory=dict)
    """By process: from when it must know, because it was told."""

    def covers(self, computation: Computation) -> bool:
        started = computation.step if computation.stamped is None else computation.stamped
        return self.names(computation) and started < self.step

    def names(self, computation: Computation) -> bool:
        """Whether it is about such entries, whenever they were computed."""
        if self.namespace != computation.namespace:
            return False
        if self.kind == "key":
            return bool(computation.request == self.name)
        if self.kind == "tag":
            return self.name in computation.tags
        if self.kind == "pattern":
            return computation.label is not None and matches(self.name, computation.label)
        if self.kind == "label":
            label = computation.label
            return label is not None and (
                label == self.name or (self.name.endswith("/") and label.startswith(self.name))
            )
        return self.kind == "namespace" or self.name in computation.depends_on


def matches(pattern: str, label: str) -> bool:
    """Whether a label matches a pattern, read literally: `?`, `*` within a part, `**` for any parts."""
    parts = (
        "(?:[^/]+/)*"
        if part == "**/"
        else "[^/]*"
        if part == "*"
        else "[^/]"
        if part == "?"
        else re.escape(part)
        for part in re.split(r"(\*\*/|\*|\?)", pattern)
    )
    return re.fullmatch("".join(parts), label) is not None


def _host(process: str) -> str:
    """Of a process, whatever its incarnation."""
    return process.partition(".")[0]


class Oracle:
    """The knowledge of one world."""

    def __init__(self, *, ttl: float, stale: float, lease: float, journalled: bool) -> None:
        """`lease` is the bound of I2, in seconds. `journalled`: what is deferred outlives the process."""
        self._ttl, self._stale, self._lease, self._journalled = ttl, stale, lease, journalled
        self.step = 0
        self.computations: dict[int, Computation] = {}
        self.invalidated: list[Invalidated] = []
        self.violations: list[Violation] = []
        self.expired: set[tuple[str, int]] = set()
        self.trace: list[str] | None = None

    def next(self) -> int:
        """The number of what happens now."""
        self.step += 1
        return self.step

    def note(self, text: str) -> None:
        """Say what happens, if anybody wants to know."""
        if self.trace is not None:
            self.trace.append(f"{self.step:5} {text}")

    def violated(self, invariant: str, text: str) -> None:
        self.violations.append(Violation(invariant, text))
        self.note(f"VIOLATION {invariant} {text}")

    # -- what happens -------------------------------------------------------------------------------

    def begin(
        self,
        process: str,
        namespace: str,
        request: int,
        now: float,
        *,
        tags: tuple[str, ...] = (),
        label: str | None = None,
        depends_on: tuple[str, ...] = (),
    ) -> Computation:
        computation = Computation(
            len(self.computations),
            process,
            namespace,
            request,
            set(tags),
            label,
            depends_on,
            self.next(),
            now,
        )
        self.computations[computation.number] = computation
        self.note(f"{now:.4f} {process} computes {computation.number} of {namespace}/{request}")
        return computation

    def finish(self, computation: Computation, created: int, *, complete: bool) -> None:
        computation.ended = self.next()
        computation.created, computation.complete = created, complete
        self.note(f"computed {computation.number}{'' if complete else ' (not to be stored)'}")

    def invalidating(
        self,
        process: str,
        namespace: str,
        kind: str,
        name: Any,
        space: int,
        targets: Iterable[int | bytes],
        now: float,
    ) -> Invalidated:
        invalidated = Invalidated(process, namespace, kind, name, space, frozenset(targets), self.next(), now)
        self.invalidated.append(invalidated)
        self.note(f"{now:.4f} {process} invalidates {kind} {name} of {namespace}")
        return invalidated

    def acknowledge(self, invalidated: Invalidated, now: float, *, deferred: bool) -> None:
        invalidated.acknowledged, invalidated.acknowledged_at = self.next(), now
        invalidated.deferred = deferred
        self.note(
            f"{now:.4f} acknowledged {invalidated.kind} {invalidated.name}{' deferred' if deferred else ''}"
        )

    def committed(self, process: str, space: int, targets: frozenset[int | bytes], now: float) -> None:
        """The authority raised these markers for a process."""
        for each in self.invalidated:
            if (
                each.committed_at is None
                and (each.process == process or (each.deferred and _host(each.process) == _host(process)))
                and each.space == space
                and (each.targets <= targets or space in targets)
            ):
                each.committed_at = now
                self.note(f"{now:.4f} committed {each.kind} {each.name}")

    def synced(self, process: str, spaces: frozenset[int], sent: float, now: float) -> None:
        """A process has the answer of the authority to a question about namespaces that it sent then."""
        for each in self.invalidated:
            if (each.committed_at or NEVER) < sent and each.space in spaces and not each.lost:
                each.heard.setdefault(process, now + SLACK)

    def failed_over(self, copied: float) -> None:
        """What an authority committed after its last copy was made is lost."""
        for each in self.invalidated:
            if each.committed_at is not None and each.committed_at >= copied:
                each.lost = True

    def stored_is_lost(self) -> None:
        """A server lost what it acknowledged: nothing that was written until now need be there."""
        for computation in self.computations.values():
            computation.undone = True

    # -- what must hold -----------------------------------------------------------------------------

    def _knew(self, each: Invalidated, process: str, started: int, now: float) -> str | None:
        """Whether, when a call started, its process had to know; by which promise."""
        if each.process == process and each.acknowledged is not None and each.acknowledged < started:
            return "I1"
        if each.heard.get(process, now) < now:
            return "I1"
        if self._journalled and each.deferred and _host(each.process) == _host(process):
            return "I1" if (each.acknowledged or NEVER) < started else None
        if each.committed_at is None or each.lost or each.acknowledged is None:
            return None
        since = each.committed_at if each.deferred else max(each.acknowledged_at, each.committed_at)
        return "I2" if now > since + self._lease + SLACK else None

    def returned(
        self,
        process: str,
        namespace: str,
        request: int,
        result: CacheResult[Any],
        started: int,
        started_at: float,
        clock: int,
        tags: tuple[str, ...],
    ) -> None:
        """A call that started then got this. `clock` is its process's, now."""
        self.next()
        text = str(result.value)
        self.note(f"{process} got {text} {result.status} {result.tier} of {namespace}/{request}")
        number = text.partition("|")[0]
        computation = self.computations.get(int(number)) if number.isdigit() else None
        if computation is None:
            if not (text in ("", "cut") and result.status in ("miss", "joined")):
                self.violated("I5", f"{process} got {text!r} ({result.status}), which is no complete answer")
            return
        if (computation.namespace, computation.request, computation.value) != (namespace, request, text):
            self.violated("I9", f"{process} asked for {namespace}/{request} and got {text}")
            return
        if result.status in ("hit", "stale"):
            self._check_life(process, computation, result, clock, f"{process} got {text} ({result.status})")
        if result.status == "joined" and result.tier is None and (computation.ended or 0) > started:
            # A caller that joins brings its tags.
            computation.tags.update(tags)
        self._check_validity(process, computation, result, started, started_at)

    def _check_life(
        self, process: str, computation: Computation, result: CacheResult[Any], clock: int, text: str
    ) -> None:
        if not computation.complete:
            self.violated("I5", f"{text}, which was not to be stored")
        if computation.ended is None:
            self.violated("I5", f"{text}, which is not computed yet")
            return
        age = clock - computation.created
        if abs(round(result.age * 1e6) - max(0, age)) > computation.window:
            self.violated("I7", f"{text} of an age of {result.age} s; it is {age / 1e6} s old")
        if age > (self._ttl + (self._stale if result.status == "stale" else 0.0)) * 1e6 + computation.window:
            self.violated("I7", f"{text} after its time: {age / 1e6} s")

    def _check_validity(
        self,
        process: str,
        computation: Computation,
        result: CacheResult[Any],
        started: int,
        started_at: float,
    ) -> None:
        for each in self.invalidated:
            if not each.covers(computation):
                continue
            promise = self._knew(each, process, started, started_at)
            if promise is None or (promise == "I2" and getattr(result, "unverified", False)):
                continue
            self.violated(
                promise,
                f"{process} got {computation.value} ({result.status}, {result.tier}), computed from"
                f" {computation.time:.4f} on, though {each.kind} {each.name!r} was invalidated by"
                f" {each.process} at {each.time:.4f}, acknowledged at {each.acknowledged_at:.4f};"
                f" the call started at {started_at:.4f}",
            )
            return

    def flying(self, process: str, namespace: str, request: int, flights: int) -> None:
        """A computation begins, and so many of its fingerprint run that are not superseded."""
        if flights > 1:
            self.violated("I4", f"{process} runs {flights} flights of {namespace}/{request}")

    def undelivered(self, living: list[str], *, kept: bool) -> list[Invalidated]:
        """What processes that live, or whose journal does, answered `deferred` and have not delivered."""
        return [
            each
            for each in self.invalidated
            if each.deferred and each.committed_at is None and (kept or each.process in living)
        ]

    # -- durability -----------------------------------------------------------------------------------

    def durable(self, computation: Computation) -> None:
        computation.durable = self.next()
        self.note(f"durable {computation.number}")

    def survived(self, namespace: str, request: int, number: int | None) -> None:
        """After all is well again, this is what is stored of a request (None: nothing)."""
        written = [
            each
            for each in self.computations.values()
            if each.durable is not None and (each.namespace, each.request) == (namespace, request)
        ]
        if not written or (namespace, request) in self.expired:
            return
        newest = max(written, key=lambda each: each.durable or 0)
        if newest.undone or any(
            each.names(newest)
            and (
                each.process != newest.process or each.deferred or (each.acknowledged or NEVER) > newest.step
            )
            for each in self.invalidated
        ):
            return  # a snap may lag, so what others invalidated shortly before may count as after
        if number is None and any(
            each.names(other)
            for other in self.computations.values()
            if (other.namespace, other.request) == (namespace, request)
            for each in self.invalidated
        ):
            return  # what may have taken its place was invalidated, and may be deleted
        if number is None:
            self.violated("I8", f"{newest.value} was acknowledged as durable and is gone")
            return
        found = self.computations[number]
        if _host(found.process) == _host(newest.process) and (found.ended or 0) < newest.step:
            self.violated("I8", f"{newest.value} was acknowledged as durable and is {found.value} again")
