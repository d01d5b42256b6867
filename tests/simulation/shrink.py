"""Making a failing run short: schedules that are not needed, then operations that are not.

After A. Zeller and R. Hildebrandt, *Simplifying and Isolating Failure-Inducing Input* (2002), at its
plainest: ever smaller parts are left out for as long as the same promise is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.oracle import Violation
from tests.simulation.schedule import Operation, World
from tests.simulation.session import play

Run = dict[int, list[Operation]]
"""Schedules by their numbers."""


def shrink(seed: int, world: World, run: Run, found: Violation, *, tries: int = 400) -> tuple[Run, Violation]:
    """A part of `run` that breaks the same promise, and how; after at most `tries` runs."""
    left = tries

    def breaks(candidate: Run) -> Violation | None:
        nonlocal left
        left -= 1
        violation = play(seed, world, candidate)[1] if left >= 0 else None
        return violation if violation is not None and violation.invariant == found.invariant else None

    def reduced(items: list[int], build: Callable[[Sequence[int]], Run]) -> list[int]:
        nonlocal found
        size = max(1, len(items) // 2)
        while size and left > 0:
            at = 0
            while at < len(items) and left > 0:
                rest = items[:at] + items[at + size :]
                violation = breaks(build(rest)) if rest else None
                if violation is None:
                    at += size
                else:
                    items, found = rest, violation
            size //= 2
        return items

    # The last schedule is the one that failed; those before it only led there.
    last = max(run)
    before = reduced([*sorted(set(run) - {last}), last], lambda kept: {n: run[n] for n in kept})
    run = {number: run[number] for number in before}
    for number in before:
        operations = run[number]

        def with_only(kept: Sequence[int], run: Run = run, number: int = number) -> Run:
            return {**run, number: [run[number][at] for at in kept]}

        run = with_only(reduced(list(range(len(operations))), with_only))
    return run, found
