"""SIGKILL at any moment: nothing acknowledged is lost, nothing is invented, the file opens again.

`LLMCACHE_KILLS` sets the length of the default run (30); the marker `long` runs 1000.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmcache_fast._core import DiskStore
from tests.faults.disk_worker import BATCH, MAX_BYTES, batch, envelope, key
from tests.golden.test_disk_schema import DATABASE, placed, shape
from tests.golden.test_disk_schema import verify as verify_golden

KILLS = int(os.environ.get("LLMCACHE_KILLS", "30"))
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    """What a run of kills came to, in records."""

    acknowledged: int = 0
    lost: int = 0
    invented: int = 0
    torn: int = 0
    """Batches of which a part is there."""
    markers_lost: int = 0
    unreadable: int = 0
    landed: int = 0
    """Batches that were written but not acknowledged when the kill came: allowed, and they show that
    kills do come in the middle of the work."""
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (
            self.lost or self.invented or self.torn or self.markers_lost or self.unreadable or self.problems
        )


class Worker:
    """A running `disk_worker`."""

    def __init__(self, folder: Path, number: int, turn: int, mode: str) -> None:
        self.number, self.turn = number, turn
        command = [
            sys.executable,
            "-m",
            "tests.faults.disk_worker",
            str(folder),
            str(number),
            str(turn),
            mode,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> list[list[str]]:
        """Kill it and return all it said."""
        self.process.send_signal(signal.SIGKILL)
        output, _ = self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL
        return [line.split() for line in output.decode().splitlines()]


def verify(store: DiskStore, worker: Worker, said: list[list[str]], outcome: Outcome) -> None:
    acknowledged = 0
    markers = {}
    for line in said:
        if line[0] == "put":
            assert int(line[1]) == acknowledged
            acknowledged += int(line[2])
        elif line[0] == "mark":
            markers[int(line[1])] = int(line[2])
        else:
            outcome.unreadable += 1
    outcome.acknowledged += acknowledged
    # One batch may have been under way; look two further to see what nobody wrote.
    numbers = range(acknowledged + 3 * BATCH)
    found = store.get_many([key(worker.number, worker.turn, n) for n in numbers])
    expected = [envelope(worker.number, worker.turn, n) for n in numbers]
    outcome.lost += sum(found[n] is None for n in range(acknowledged))
    outcome.invented += sum(
        got is not None and got != want for got, want in zip(found, expected, strict=True)
    )
    outcome.invented += sum(got is not None for got in found[acknowledged + BATCH :])
    under_way = sum(got is not None for got in found[acknowledged : acknowledged + BATCH])
    outcome.torn += under_way not in {0, BATCH}
    outcome.landed += under_way == BATCH
    ((_, _, markers_there, _),) = store.changes([(1, 0, 0)], 0)
    raised = dict(markers_there)
    outcome.markers_lost += sum(raised.get(target, 0) < seq for target, seq in markers.items())


def kill_loop(folder: Path, kills: int, mode: str = "sound", *, seed: int = 1) -> Outcome:
    """Half of the kills beside a second writer that lives on, half with the file to themselves."""
    rng = random.Random(seed)
    outcome = Outcome()
    companion = Worker(folder, 2, 0, "sound")
    for turn in range(kills):
        if turn == kills // 2:
            said = companion.kill()
            verify(DiskStore(str(folder), MAX_BYTES, 10.0), companion, said, outcome)
        worker = Worker(folder, 1, turn, mode)
        time.sleep(rng.random() * 0.03)
        said = worker.kill()
        store = DiskStore(str(folder), MAX_BYTES, 10.0)
        assert store.set_aside is None
        verify(store, worker, said, outcome)
        if turn % 25 == 24 or turn == kills - 1:
            outcome.problems += store.check()
        assert store.stats()["evicted"] == 0
        store.close()
    return outcome


def test_nothing_acknowledged_is_lost_and_nothing_is_invented(tmp_path: Path) -> None:
    outcome = kill_loop(tmp_path, KILLS)
    assert outcome.sound, outcome
    assert outcome.acknowledged > KILLS * BATCH


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_kills(tmp_path: Path) -> None:
    outcome = kill_loop(tmp_path, 1000, seed=2)
    assert outcome.sound, outcome


def test_a_store_killed_while_it_is_made_opens(tmp_path: Path) -> None:
    rng = random.Random(3)
    unfinished = 0
    for turn in range(max(KILLS // 3, 3)):
        folder = tmp_path / str(turn)
        worker = Worker(folder, 1, turn, "opening")
        time.sleep(rng.random() * 0.05)
        acknowledged = len(worker.kill())
        for path in sorted(folder.glob("*"), key=lambda path: int(path.name)):
            store = DiskStore(str(path), MAX_BYTES, 10.0)
            assert store.set_aside is None
            found = store.get_many([key(1, turn, 0)])
            assert found == [envelope(1, turn, 0)] or int(path.name) >= acknowledged
            unfinished += found == [None]
            assert store.check() == []
            store.put_many([(key(1, turn, 0), b"x", 1, 1, 2**63 - 1, 0)], 0)
    assert unfinished > 0


def test_a_file_of_version_1_killed_while_it_is_opened_has_it_all(tmp_path: Path) -> None:
    rng = random.Random(4)
    half_way = 0
    for turn in range(max(KILLS // 5, 3)):
        folders = [placed(1, tmp_path / str(turn) / str(number)) for number in range(60)]
        worker = Worker(tmp_path / str(turn), 1, turn, "migrating")
        time.sleep(rng.random() * 0.05)
        opened = len(worker.kill())
        half_way += opened < len(folders)
        for number, folder in enumerate(folders[: opened + 2]):
            if number < opened:
                assert shape(folder / DATABASE)["marks"] == [(3,)]
            elif number == opened:
                assert shape(folder / DATABASE)["marks"] in ([(1,)], [(2,)], [(3,)])
            store = DiskStore(str(folder), MAX_BYTES, 10.0)
            assert store.set_aside is None
            verify_golden(store, 1)
            store.close()
    assert half_way > 0


def test_a_store_killed_while_it_is_scrubbed_has_it_all(tmp_path: Path) -> None:
    rng = random.Random(5)
    store = DiskStore(str(tmp_path), MAX_BYTES, 10.0)
    for first in range(0, 800, BATCH):
        store.put_many(batch(1, 0, first), 0)
    store.delete_many([key(1, 0, n) for n in range(0, 800, 2)])
    raised = store.raise_markers(1, [5], [], [], 0)
    store.close()
    for turn in range(max(KILLS // 3, 3)):
        worker = Worker(tmp_path, 1, turn, "scrubbing")
        time.sleep(rng.random() * 0.05)
        worker.kill()
        store = DiskStore(str(tmp_path), MAX_BYTES, 10.0)
        assert store.set_aside is None
        assert store.check() == []
        found = store.get_many([key(1, 0, n) for n in range(800)])
        assert found == [envelope(1, 0, n) if n % 2 else None for n in range(800)]
        ((epoch, seq, markers, _),) = store.changes([(1, 0, 0)], 0)
        assert (epoch, seq, markers) == (*raised[:2], [(5, raised[1])])
        store.close()


def test_the_loop_catches_a_store_that_acknowledges_before_it_commits(tmp_path: Path) -> None:
    """The planted bug: were it not caught, the test above would prove nothing."""
    outcome = Outcome()
    for attempt in range(10):
        outcome = kill_loop(tmp_path / str(attempt), 6, "early", seed=attempt)
        if outcome.lost:
            return
    pytest.fail(f"the planted bug was not caught: {outcome}")
