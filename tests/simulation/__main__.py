"""Run many schedules, or one of them again: `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

from tests.simulation.bugs import BUGS
from tests.simulation.oracle import Violation
from tests.simulation.schedule import SCHEDULES, schedule_of, world_of
from tests.simulation.session import play
from tests.simulation.shrink import Run, shrink


class Result(NamedTuple):
    """What came of a session."""

    seed: int
    schedules: int
    violation: str | None


def schedules_of(seed: int, count: int = SCHEDULES) -> Run:
    """The first `count` schedules of a session."""
    world = world_of(seed)
    return {number: schedule_of(seed, number, world) for number in range(count)}


def run_session(seed: int) -> Result:
    """Run the schedules of a session."""
    ran, violation = play(seed, world_of(seed), schedules_of(seed))
    return Result(seed, ran, None if violation is None else str(violation))


def run_sessions(first: int, count: int, workers: int) -> Iterator[Result]:
    """Run sessions one after another, in so many processes at once; in no order."""
    seeds = range(first, first + count)
    if workers <= 1:
        yield from map(run_session, seeds)
        return
    # Started anew: a fork would take over whatever the parent runs.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=2000) as pool:
        yield from pool.imap_unordered(run_session, seeds, chunksize=8)


def explain(seed: int, *, short: bool = True) -> str | None:
    """A failing session, shrunk, step by step; None if it does not fail."""
    world, run = world_of(seed), schedules_of(seed)
    ran, violation = play(seed, world, run)
    if violation is None:
        return None
    run = {number: run[number] for number in sorted(run)[:ran]}
    if short:
        run, violation = shrink(seed, world, run, violation)
    trace: list[str] = []
    again: Violation | None = play(seed, world, run, trace=trace)[1]
    lines = [f"seed {seed}: {violation}", f"world: {world}"]
    for number, operations in run.items():
        lines += [f"schedule {number}:", *(f"  {operation}" for operation in operations)]
    lines += ["what happened:", *(f"  {line}" for line in trace)]
    if again is None:
        lines.append("it did not happen again: something in the run is not decided by the seed")
    return "\n".join(lines)


def main() -> int:
    """The command line; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000, help="how many to run (10000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first session (0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long, if not before")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one session, shrunk and step by step")
    parser.add_argument("--bug", choices=sorted(BUGS), help="with --replay: plant this bug")
    parser.add_argument("--whole", action="store_true", help="with --replay: do not shrink")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        with BUGS[arguments.bug]() if arguments.bug else nullcontext():
            text = explain(arguments.replay, short=not arguments.whole)
        print(text or "no promise was broken")  # noqa: T201 - a command
        return int(text is not None)
    began, busy = time.monotonic(), os.times()
    done = broken = 0
    for result in run_sessions(arguments.first, -(-arguments.schedules // SCHEDULES), arguments.workers):
        done += result.schedules
        if result.violation is not None:
            broken += 1
            print(f"seed {result.seed}: {result.violation}", flush=True)  # noqa: T201
        if arguments.seconds and time.monotonic() - began > arguments.seconds:
            break
    took, now = time.monotonic() - began, os.times()
    spent = sum(now[:4]) - sum(busy[:4])
    print(  # noqa: T201
        f"{done} schedules, {broken} violations, in {took:.0f} s"
        + (f" ({1e3 * spent / max(done, 1):.2f} ms of processor time each)" if spent else "")
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
