"""SIGKILL at any moment of write-behind: nothing acknowledged is lost, nothing is invented.

`LLMCACHE_KILLS` sets the length of the default run (30); the marker `long` runs 1000.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from llmcache_fast._core import DiskStore
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.writers import Writers
from llmcache_fast.tiers.disk import DiskTier
from tests.faults.disk_worker import MAX_BYTES, envelope, key
from tests.faults.journal_worker import BATCH, WORKER

KILLS = int(os.environ.get("LLMCACHE_KILLS", "30"))
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    """What a run of kills came to, in records."""

    acknowledged: int = 0
    lost: int = 0
    invented: int = 0
    replayed: int = 0
    damaged: int = 0
    longest: float = 0.0
    """Seconds of the longest recovery: reported, not judged."""

    @property
    def sound(self) -> bool:
        return not (self.lost or self.invented or self.damaged)


def killed(folder: Path, turn: int, mode: str, after: float) -> int:
    """Run a worker and kill it; how many records it acknowledged."""
    command = [sys.executable, "-m", "tests.faults.journal_worker", str(folder), str(turn), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after)  # when the kill comes is the test's input, not something it waits for
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return BATCH * len(output.splitlines())


async def recover(folder: Path, outcome: Outcome) -> None:
    """Start again, as the next process would, until all that was journalled is in the tier."""
    began = time.perf_counter()
    journal = Journal(folder / "journal")
    writers = Writers("journal", journal=journal)
    tier = DiskTier(folder / "disk", budget=10.0)
    await tier.open()
    async with anyio.create_task_group() as group:
        await writers.open(group, [tier])
        await writers.replayed()
        await writers.aclose()
        group.cancel_scope.cancel()
    await tier.aclose()
    outcome.longest = max(outcome.longest, time.perf_counter() - began)
    outcome.replayed += writers.statistics().replayed
    outcome.damaged += journal.counts.damaged + journal.counts.missing_files
    assert not list((folder / "journal").glob("lane-*"))


def verify(folder: Path, turn: int, acknowledged: int, outcome: Outcome) -> None:
    store = DiskStore(str(folder / "disk"), MAX_BYTES, 10.0)
    # What was under way may be there too; look further to see what nobody wrote.
    numbers = range(acknowledged + 3 * BATCH)
    found = store.get_many([key(WORKER, turn, number) for number in numbers])
    store.close()
    for number, got in zip(numbers, found, strict=True):
        outcome.lost += got is None and number < acknowledged
        outcome.invented += got is not None and got != envelope(WORKER, turn, number)
    outcome.invented += sum(got is not None for got in found[acknowledged + BATCH :])
    outcome.acknowledged += acknowledged


def kill_loop(folder: Path, kills: int, mode: str = "sound", *, seed: int = 1) -> Outcome:
    rng = random.Random(seed)
    outcome = Outcome()
    for turn in range(kills):
        acknowledged = killed(folder, turn, mode, rng.random() * 0.08)
        anyio.run(recover, folder, outcome)
        verify(folder, turn, acknowledged, outcome)
    return outcome


def test_nothing_acknowledged_is_lost_and_nothing_is_invented(tmp_path: Path) -> None:
    outcome = kill_loop(tmp_path, KILLS)
    assert outcome.sound, outcome
    assert outcome.acknowledged > KILLS
    assert outcome.replayed > 0, "the kills found nothing that only the journal had"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_kills(tmp_path: Path) -> None:
    outcome = kill_loop(tmp_path, 1000, seed=2)
    assert outcome.sound, outcome


@pytest.mark.parametrize("mode", ["early", "forgetful"])
def test_the_loop_catches_planted_bugs(tmp_path: Path, mode: str) -> None:
    """Were they not caught, the test above would prove nothing."""
    outcome = Outcome()
    for attempt in range(10):
        outcome = kill_loop(tmp_path / str(attempt), 3, mode, seed=attempt)
        if outcome.lost:
            return
    pytest.fail(f"the planted bug was not caught: {outcome}")
