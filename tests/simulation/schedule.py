"""What happens in a world, as data: drawn from a seed, printed for a replay, shortened by `shrink`.

A *session* is one world: its processes, servers and options. A *schedule* is one sequence of operations and
faults in a namespace of its own, drawn from a seed of its own, with its own checks; a session runs some of
them one after another, because opening caches costs more than running a schedule. What does not belong here:
what the operations do (`session`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Layout = Literal["redis", "postgres", "redis+postgres", "disk+redis"]

REQUESTS = 2
TAGS = ("a", "b")
LABELS = ("x/1", "x/2", "y")
VERSIONS = ("v",)
PATTERNS = ("x/*", "*/1", "?/2", "**/2")
KINDS = ("key", "key", "tag", "tag", "label", "pattern", "namespace", "version", "delete", "erase", "expire")
SCHEDULES = 12
"""Schedules of a session."""


class Operation(NamedTuple):
    """One thing that happens, `after` seconds after the last one."""

    after: float
    kind: str
    process: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"+{self.after:g}s p{self.process} {self.kind}({said})"


@dataclass(frozen=True)
class World:
    """The options of a session."""

    processes: int
    layout: Layout
    ttl: float
    stale: float
    lease_wait: float
    lease: float
    """The cache's `coherence_lease`."""
    durability: Literal["memory", "journal", "sync"]
    strict: bool
    crashes: bool
    shuffled: bool
    delay: float
    skews: tuple[int, ...] = field(default=())
    """Microseconds by which the clocks of servers and processes are wrong."""


def world_of(seed: int) -> World:
    """The world of a session."""
    chance = random.Random(f"world {seed}")
    crashes = chance.random() < 0.25
    return World(
        processes=chance.choice((1, 2, 2, 2, 2, 2, 3)),
        layout=chance.choice(("redis", "redis", "postgres", "redis+postgres", "disk+redis")),
        ttl=chance.choice((3600.0, 3600.0, 3600.0, 3.0)),
        stale=chance.choice((0.0, 0.0, 3.0)),
        lease_wait=chance.choice((0.0, 0.0, 1.0)),
        lease=chance.choice((1.0, 2.0, 2.0)),
        durability=chance.choice(("journal", "journal", "memory", "sync")) if crashes else "memory",
        strict=chance.random() < 0.3,
        crashes=crashes,
        shuffled=chance.random() < 0.5,
        delay=chance.choice((0.0, 0.002, 0.02)),
        skews=tuple(chance.choice((0, 0, -3_000_000, 3_000_000, 500_000)) for _ in range(6)),
    )


_PAUSES = (0.0, 0.0, 0.001, 0.001, 0.01, 0.05, 0.05, 0.2)
_COMPUTING = (0.0, 0.0, 0.01, 0.05, 0.05, 0.3)


def schedule_of(seed: int, number: int, world: World) -> list[Operation]:
    """The operations of one schedule of a session."""
    chance = random.Random(f"schedule {seed}/{number}")
    faulty = chance.random() < 0.6
    operations = []
    for _ in range(chance.randint(4, 9)):
        after = chance.choice(_PAUSES)
        process = chance.randrange(world.processes)
        draw = chance.random()
        if draw < 0.52:
            operations.append(_call(chance, after, process))
        elif draw < 0.62 + 0.1 * world.crashes:
            operations.append(_set(chance, after, process))
        elif draw < 0.87 or not faulty:
            operations.append(_invalidation(chance, after, process))
        else:
            operations += _fault(chance, after, process, world)
    return operations


def _options(**options: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in options.items() if value not in (None, ()))


def _names(chance: random.Random) -> dict[str, Any]:
    return {
        "tags": tuple(tag for tag in TAGS if chance.random() < 0.4),
        "label": chance.choice((None, None, *LABELS)),
        "depends_on": VERSIONS if chance.random() < 0.2 else (),
    }


def _call(chance: random.Random, after: float, process: int) -> Operation:
    outcome = chance.choice(("good",) * 8 + ("error", "empty", "unstored", "late"))
    options = _options(
        request=chance.randrange(REQUESTS),
        **_names(chance),
        seconds=chance.choice(_COMPUTING),
        outcome=outcome,
        refresh=True if chance.random() < 0.08 else None,
        timeout=0.02 if chance.random() < 0.05 else None,
        leave=0.01 if chance.random() < 0.05 else None,
    )
    return Operation(after, "call", process, options)


def _set(chance: random.Random, after: float, process: int) -> Operation:
    return Operation(after, "set", process, _options(request=chance.randrange(REQUESTS), **_names(chance)))


def _invalidation(chance: random.Random, after: float, process: int) -> Operation:
    kind = chance.choice(KINDS)
    name: Any = None
    if kind in ("key", "delete", "expire"):
        name = chance.randrange(REQUESTS)
    elif kind == "pattern":
        name = chance.choice(PATTERNS)
    elif kind in ("tag", "erase"):
        name = chance.choice(TAGS)
    elif kind == "label":
        name = chance.choice(("x/", "x/1", "y"))
    elif kind == "version":
        name = VERSIONS[0]
    return Operation(after, "invalidate", process, (("kind", kind), ("name", name)))


def _fault(chance: random.Random, after: float, process: int, world: World) -> list[Operation]:
    if world.crashes and chance.random() < 0.5:
        return _crash(chance, after, process, world)
    kind = chance.choice(
        (
            "outage",
            "cut",
            "cut",
            "slow",
            "lose",
            "double",
            "deafen",
            "deafen",
            "step",
            "swap",
            "copy",
            "failover",
        )
    )
    if kind == "step":
        step = chance.choice((-3600.0, -2.0, -0.5, 0.5, 2.0))
        return [Operation(after, kind, process, (("seconds", step), ("who", chance.randrange(4))))]
    if kind == "cut" and chance.random() < 0.4:
        return _isolation(chance, after, process, world)
    if kind == "failover":
        copy = Operation(0.0, "copy", 0)
        between = _invalidation(chance, 0.001, process) if chance.random() < 0.7 else None
        # Who takes over has another clock.
        step = chance.choice((0.0, 0.0, -2.0, -0.5, 2.0))
        over = Operation(after, "failover", 0, (("seconds", step),) if step else ())
        return [copy, *([between] if between else ()), over]
    server = chance.randrange(2)
    lasts = chance.choice((0.01, 0.1, 0.4))
    options = (("server", server),)
    begin = Operation(after, kind, process, options)
    if kind in ("swap", "copy"):
        return [begin]
    during = [_invalidation(chance, 0.001, process)] if chance.random() < 0.5 else []
    return [begin, *during, Operation(lasts, "mend", process, options)]


def _isolation(chance: random.Random, after: float, process: int, world: World) -> list[Operation]:
    """For longer than the lease, a process cannot reach the servers while others invalidate."""
    cut = [Operation(after, "cut", process, (("server", server),)) for server in (0, 1)]
    operations = [*cut, _invalidation(chance, 0.01, chance.randrange(world.processes))]
    if chance.random() < 0.5:
        step = chance.choice((-3600.0, -3.0, 3.0))
        operations.append(Operation(0.01, "step", process, (("seconds", step), ("who", 1))))
    operations += [
        Operation(world.lease * chance.choice((0.5, 1.2)), "look", process, (("request", request),))
        for request in range(REQUESTS)
    ]
    return [*operations, Operation(0.01, "mend", process)]


def _crash(chance: random.Random, after: float, process: int, world: World) -> list[Operation]:
    """A process ends, perhaps with writes that the servers do not have, and comes back."""
    operations = []
    if chance.random() < 0.5:
        operations += [Operation(0.0, "cut", process, (("server", server),)) for server in (0, 1)]
    if chance.random() < 0.7:
        operations.append(_set(chance, 0.001, process))
    if chance.random() < 0.3:
        operations.append(_invalidation(chance, 0.001, process))
    operations.append(Operation(chance.choice((0.0, 0.001, 0.003, 0.01, after)), "crash", process))
    if chance.random() < 0.5:
        operations.append(_invalidation(chance, 0.001, chance.randrange(world.processes)))
    operations.append(Operation(0.01, "mend", process))
    return [*operations, Operation(chance.choice(_PAUSES), "restart", process)]
