"""SIGKILL at any moment of deferring: no invalidation that was answered is forgotten before it is delivered.

`LLMCACHE_KILLS` sets the length of the run (30).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from llmcache_fast.actors.deferred import DeferredLog
from tests.faults.deferred_worker import SPACE, target

KILLS = int(os.environ.get("LLMCACHE_KILLS", "30"))
ROOT = Path(__file__).resolve().parents[2]


def killed(folder: Path, turn: int, mode: str, after: float) -> tuple[set[int], set[int]]:
    """Run a worker and kill it: the targets it owes for certain, and those that it may have delivered."""
    command = [sys.executable, "-m", "tests.faults.deferred_worker", str(folder), str(turn), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after)  # when the kill comes is the test's input, not something it waits for
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    owed: set[int] = set()
    given: set[int] = set()
    for line in output.decode().splitlines():
        what, first, count = line.split()
        numbers = {target(turn, number) for number in range(int(first), int(first) + int(count))}
        owed, given = (owed | numbers, given) if what == "owed" else (owed - numbers, given | numbers)
    return owed, given


async def found_in(folder: Path) -> set[int]:
    log = DeferredLog(folder, authority="postgres")
    deferrals = await log.open()
    assert not log.statistics().damaged
    await log.aclose()
    return {one for deferral in deferrals if deferral.namespace == SPACE for one in deferral.targets}


def lost_in(folder: Path, kills: int, mode: str = "sound", *, seed: int = 1) -> tuple[int, int]:
    """How many targets were acknowledged, and how many of them were not found again."""
    rng = random.Random(seed)
    acknowledged = lost = 0
    owed: set[int] = set()
    for turn in range(1, kills + 1):
        more, _ = killed(folder, turn, mode, rng.random() * 0.05)
        owed |= more
        found = anyio.run(found_in, folder)
        acknowledged += len(more)
        lost += len(owed - found)
        owed &= found
    return acknowledged, lost


def test_no_acknowledged_deferral_is_lost(tmp_path: Path) -> None:
    acknowledged, lost = lost_in(tmp_path, KILLS)
    assert not lost
    assert acknowledged > KILLS


@pytest.mark.parametrize("mode", ["early", "forgetful"])
def test_the_loop_catches_planted_bugs(tmp_path: Path, mode: str) -> None:
    """Were they not caught, the test above would prove nothing."""
    for attempt in range(10):
        if lost_in(tmp_path / str(attempt), 3, mode, seed=attempt)[1]:
            return
    pytest.fail("the planted bug was not caught")
