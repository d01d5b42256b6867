"""Running sessions by their seeds: one, many at once, or one again, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

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
    try:
        ran, violation = play(seed, world_of(seed), schedules_of(seed))
    except Exception as error:
        # A task of a cache failed, and the cache with it.
        return Result(seed, 0, f"I6: a cache ended: {error!r}")
    return Result(seed, ran, None if violation is None else str(violation))


def run_sessions(first: int, count: int, workers: int) -> Iterator[Result]:
    """Run sessions, in so many processes at once, as they are asked for."""
    seeds = range(first, first + count)
    if workers <= 1:
        yield from map(run_session, seeds)
        return
    # Started anew: a fork would take over whatever the parent runs.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(run_session, seeds, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


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
    again = play(seed, world, run, trace=trace)[1]
    lines = [f"seed {seed}: {violation}", f"world: {world}"]
    for number, operations in run.items():
        lines += [f"schedule {number}:", *(f"  {operation}" for operation in operations)]
    lines += ["what happened:", *(f"  {line}" for line in trace)]
    if again is None:
        lines.append("it did not happen again: something in the run is not decided by the seed")
    return "\n".join(lines)
