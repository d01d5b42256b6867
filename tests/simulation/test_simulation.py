"""The promises hold in simulated worlds; and a run is decided by its seed alone.

How many schedules: LLMCACHE_SCHEDULES, or 100,000, on all cores. `make soak` runs as many as it may.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.oracle import Oracle
from tests.simulation.runs import explain, run_session, schedules_of
from tests.simulation.schedule import SCHEDULES, Operation, World, world_of
from tests.simulation.session import play
from tests.simulation.shrink import shrink

SCHEDULES_HERE = int(os.environ.get("LLMCACHE_SCHEDULES", "100000"))
ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(0)
def test_no_schedule_breaks_a_promise() -> None:
    done = simulate("--schedules", str(SCHEDULES_HERE))

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 violations" in done.stdout


@pytest.mark.soak
def test_no_schedule_breaks_a_promise_for_as_long_as_told() -> None:
    seconds = os.environ.get("LLMCACHE_SOAK_SECONDS", "600")
    done = simulate("--schedules", "10000000", "--first", "1000000", "--seconds", seconds)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 violations" in done.stdout


def test_the_seed_decides_what_happens() -> None:
    # With crashes, a shuffled loop, and other hashes of strings and addresses of objects.
    program = (
        "import sys, hashlib; from tests.simulation.session import play;"
        "from tests.simulation.schedule import world_of; from tests.simulation.runs import schedules_of;"
        "ballast = [object() for _ in range(int(sys.argv[1]))]; trace = [];"
        "[play(seed, world_of(seed), schedules_of(seed, 4), trace=trace) for seed in range(24)];"
        "print(len(trace), hashlib.sha256('\\n'.join(trace).encode()).hexdigest())"
    )
    worlds = [world_of(seed) for seed in range(24)]
    assert any(world.crashes and world.shuffled for world in worlds)

    said = {
        subprocess.run(
            [sys.executable, "-c", program, ballast],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hashes},
        ).stdout
        for ballast, hashes in (("1", "1"), ("70001", "2"))
    }

    assert len(said) == 1
    assert int(said.pop().split()[0]) > 1000


def test_a_failing_run_is_shrunk_to_what_it_needs() -> None:
    with BUGS["empty answers stored"]():
        seed = next(seed for seed in range(100) if run_session(seed).violation)
        world, run = world_of(seed), schedules_of(seed)
        ran, found = play(seed, world, run)
        assert found is not None
        short, still = shrink(seed, world, {number: run[number] for number in range(ran)}, found)
        again = play(seed, world, short)[1]

    assert still.invariant == found.invariant == "I5"
    assert str(again) == str(still)
    assert sum(map(len, short.values())) <= 3
    assert play(seed, world, short)[1] is None


def test_a_replay_tells_what_happened() -> None:
    with BUGS["marker applied after acknowledging"]():
        seed = next(seed for seed in range(100) if run_session(seed).violation)
        text = explain(seed)

    assert text is not None
    assert f"seed {seed}: I1" in text
    assert "invalidates" in text
    assert "did not happen again" not in text


def test_what_a_session_runs_is_counted() -> None:
    assert run_session(0).schedules == len(schedules_of(0)) == SCHEDULES


def test_who_comes_when_a_stale_answer_was_invalidated_waits_for_no_flight_that_gave_it() -> None:
    # Once a recursion without end: the flight computes on, has answered already, and is not superseded.
    world = World(
        processes=2,
        layout="redis",
        ttl=3.0,
        stale=3.0,
        lease_wait=0.0,
        lease=2.0,
        durability="memory",
        strict=False,
        crashes=False,
        shuffled=False,
        delay=0.002,
        skews=(0, 4_000_000, 0, 0, 0, 0),
    )
    run = [
        Operation(0.0, "call", 0, (("request", 1), ("tags", ("b",)), ("seconds", 0.0), ("outcome", "good"))),
        Operation(0.1, "call", 1, (("request", 1), ("seconds", 0.3), ("outcome", "good"))),
        Operation(0.1, "invalidate", 0, (("kind", "tag"), ("name", "b"))),
        Operation(0.1, "call", 1, (("request", 1), ("seconds", 0.0), ("outcome", "good"))),
    ]
    trace: list[str] = []

    assert play(0, world, {0: run}, trace=trace) == (1, None)
    assert any("stale" in line for line in trace)


def test_who_brings_a_tag_that_was_invalidated_while_the_authority_was_away_joins_no_older_flight() -> None:
    # What is deferred moves no clock, so the clock does not tell which of the two was first.
    world = World(
        processes=1,
        layout="redis",
        ttl=3600.0,
        stale=0.0,
        lease_wait=0.0,
        lease=2.0,
        durability="memory",
        strict=False,
        crashes=False,
        shuffled=False,
        delay=0.0,
        skews=(0, 0, 0, 0, 0, 0),
    )
    call = (("request", 1), ("seconds", 0.05), ("outcome", "good"))
    run = [
        Operation(0.01, "call", 0, call),
        Operation(0.001, "cut", 0, (("server", 0),)),
        Operation(0.001, "invalidate", 0, (("kind", "tag"), ("name", "b"))),
        Operation(0.01, "call", 0, (*call, ("tags", ("b",)))),
    ]

    assert all(play(seed, world, {0: run})[1] is None for seed in range(20))


def test_a_late_answer_of_a_life_that_is_over_stops_no_process_from_asking() -> None:
    # At a failover the last answer of the old life comes after the first of the new one. Once what was
    # deferred then was told in vain for ever, and nothing was told or asked of any other namespace.
    world = World(
        processes=1,
        layout="redis",
        ttl=3600.0,
        stale=0.0,
        lease_wait=0.0,
        lease=2.0,
        durability="memory",
        strict=False,
        crashes=False,
        shuffled=False,
        delay=0.02,
        skews=(0, 0, 0, 0, 0, 0),
    )
    run = [
        Operation(0.0, "invalidate", 0, (("kind", "key"), ("name", 0))),
        Operation(0.0, "copy", 0),
        Operation(0.001, "invalidate", 0, (("kind", "tag"), ("name", "a"))),
        Operation(0.0, "failover", 0),
        Operation(0.001, "invalidate", 0, (("kind", "namespace"), ("name", None))),
    ]
    deferred = 0
    for seed in range(100):
        trace: list[str] = []
        assert play(seed, world, {0: run, 1: run[:1]}, trace=trace) == (2, None)
        deferred += any("deferred" in line for line in trace)

    assert deferred > 1


def oracle() -> Oracle:
    return Oracle(ttl=3600.0, stale=0.0, lease=2.0, journalled=False)


def test_an_invalidation_covers_what_was_computed_before_it_was_asked_for() -> None:
    world = oracle()
    before = world.begin("p0.1", "n", 0, 0.0, tags=("a",))
    invalidated = world.invalidating("p0.1", "n", "tag", "a", 7, [8], 1.0)
    after = world.begin("p0.1", "n", 0, 1.5, tags=("a",))
    other = world.begin("p0.1", "n", 0, 0.0, tags=("b",))

    assert invalidated.covers(before)
    assert not invalidated.covers(after)
    assert not invalidated.covers(other)
