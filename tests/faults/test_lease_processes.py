"""Several processes, one cold key: one of them computes (I4), and none waits for one that is gone.

The long form is 1,000 rounds, with and without kills and pauses: `make test-long`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.servers.redis import RedisServer

PROCESSES = 8
WORKER = Path(__file__).with_name("lease_worker.py")
COMPUTING = 0.02
"""Seconds a computation takes: long enough for all to ask while it runs."""


class Process:
    """One worker."""

    def __init__(self, tier: str, log: Path, lease_wait: float) -> None:
        self._arguments = [sys.executable, str(WORKER), tier, str(log), str(COMPUTING), str(lease_wait)]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def read(self) -> str:
        return self._out.readline()

    def ask(self, number: int) -> None:
        self._in.write(f"{number}\n")
        self._in.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        with suppress(BrokenPipeError):  # what it was asked last was not read
            self._in.close()

    def restart(self) -> None:
        self.kill()
        self._start()
        assert self.read() == "ready\n"

    def pause(self, seconds: float) -> None:
        """Stop the process for a while, longer than a lease lasts or not."""
        self._process.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, self._process.send_signal, (signal.SIGCONT,)).start()


@contextmanager
def processes(tier: str, log: Path, lease_wait: float) -> Iterator[list[Process]]:
    with ExitStack() as exits:
        workers = [Process(tier, log, lease_wait) for _ in range(PROCESSES)]
        for worker in workers:
            exits.callback(worker.kill)
        for worker in workers:
            assert worker.read() == "ready\n"
        yield workers


def rounds(tier: str, folder: Path, count: int, *, lease_wait: float = 60.0) -> Counter[int]:
    """How often each of `count` cold keys was computed, when all processes ask for it at once."""
    log = folder / "computed"
    with processes(tier, log, lease_wait) as workers:
        for number in range(count):
            for worker in workers:
                worker.ask(number)
            for worker in workers:
                assert worker.read() == f"{number} {number * 7}\n"
    return Counter(int(line) for line in log.read_text().splitlines())


def disturbed_rounds(tier: str, folder: Path, count: int, seed: int) -> Counter[int]:
    """The same; in each round one process is killed or stands still for a moment, and answers or not."""
    log = folder / "computed"
    rng = random.Random(seed)
    with processes(tier, log, 60.0) as workers:
        for number in range(count):
            for worker in workers:
                worker.ask(number)
            victim = rng.choice(workers)
            kill = rng.random() < 0.5
            if kill:
                victim.restart()
            else:
                victim.pause(0.2)
            for worker in workers:
                if not (kill and worker is victim):
                    assert worker.read() == f"{number} {number * 7}\n"
    return Counter(int(line) for line in log.read_text().splitlines())


@pytest.fixture(params=["redis", "postgres"])
def tier(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.url}?prefix={request.getfixturevalue('redis_prefix')}"
    address: str = request.getfixturevalue("postgres_url")
    return address


def test_one_process_computes(tier: str, tmp_path: Path) -> None:
    counts = rounds(tier, tmp_path, 40)
    assert counts == dict.fromkeys(range(40), 1)


def test_without_leases_many_do(tier: str, tmp_path: Path) -> None:
    """The fault that the test above must find: nobody asks for the right to compute."""
    counts = rounds(tier, tmp_path, 5, lease_wait=0)
    assert sum(counts.values()) > 5


def test_a_process_that_dies_or_stands_still_costs_one_computation_more(tier: str, tmp_path: Path) -> None:
    counts = disturbed_rounds(tier, tmp_path, 6, seed=1)
    assert set(counts) == set(range(6))
    assert max(counts.values()) <= 2


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_one_process_computes_in_a_thousand_rounds(tier: str, tmp_path: Path) -> None:
    assert rounds(tier, tmp_path, 1000) == dict.fromkeys(range(1000), 1)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_deaths_and_pauses_in_a_hundred_rounds(tier: str, tmp_path: Path) -> None:
    counts = disturbed_rounds(tier, tmp_path, 100, seed=2)
    assert set(counts) == set(range(100))
    assert max(counts.values()) <= 2
