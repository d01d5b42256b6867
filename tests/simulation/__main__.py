"""Run many schedules, or one of them again: `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext

from tests.simulation.bugs import BUGS
from tests.simulation.runs import explain, run_sessions
from tests.simulation.schedule import SCHEDULES


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
