"""One process of `test_coherence_processes.py`: reads, computes, stores and invalidates at random, and checks
each value against a table that all processes share (`Table`).

Standard output: one line of JSON with what it counted (`Counts`).
"""

from __future__ import annotations

import fcntl
import json
import mmap
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from llmcache_fast import LLMCache
from llmcache_fast._knowledge import Known
from llmcache_fast._markers import Markers
from llmcache_fast.tiers.base import Asked, Changes

KEYS = 64
LEASE = 2.0
CALLERS = 4
MARGIN = 0.25
"""Seconds by which a process may find out late that its lease is over: eight share two cores."""


class Table:
    """The truth, in a file mapped by all: for each key the version of its source, the last version whose
    invalidation was acknowledged, and when (the monotonic clock, which processes of a machine share)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("q")

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(8 * 3 * KEYS))

    def source(self, key: int) -> int:
        return self._numbers[3 * key]

    def acknowledged(self, key: int) -> tuple[int, int]:
        """Version, and the nanosecond at which all was said."""
        with self._alone():
            return self._numbers[3 * key + 1], self._numbers[3 * key + 2]

    def change(self, key: int) -> int:
        with self._alone():
            self._numbers[3 * key] += 1
            return self._numbers[3 * key]

    def acknowledge(self, key: int, version: int) -> None:
        with self._alone():
            if version > self._numbers[3 * key + 1]:
                self._numbers[3 * key + 1 : 3 * key + 3] = memoryview(
                    version.to_bytes(8, "little") + time.monotonic_ns().to_bytes(8, "little")
                ).cast("q")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


@dataclass
class Counts:
    """Of one process."""

    operations: int = 0
    values: int = 0
    invalidations: int = 0
    deferred: int = 0
    unverified: int = 0
    own: int = 0
    """Values older than an invalidation by this process (I1): 0 is right."""
    late: int = 0
    """Values older than an invalidation that was acknowledged longer than a lease before the call (I2)."""
    messages: int = 0
    gaps: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Worker:
    def __init__(self, cache: LLMCache, table: Table, seed: int, *, strict: bool, pause: float) -> None:
        self.cache, self.table, self.strict, self.pause = cache, table, strict, pause
        self.rng = random.Random(seed)
        self.counts = Counts()
        self.known = [0] * KEYS

    async def caller(self, operations: int) -> None:
        for _ in range(operations):
            self.counts.operations += 1
            if self.pause:
                await anyio.sleep(self.pause)
            try:
                await self.one(self.rng.randrange(KEYS))
            except Exception as error:
                name = type(error).__name__
                self.counts.errors[name] = self.counts.errors.get(name, 0) + 1

    async def one(self, key: int) -> None:
        draw = self.rng.random()
        if draw < 0.02:
            await self.invalidate(key)
        elif draw < 0.05:
            await self.cache.set(
                self.request(key), self.table.source(key), tags=[f"doc:{key}"], label=self.label(key)
            )
        else:
            await self.read(key, compute=draw < 0.8)
        if draw > 0.9:
            await anyio.lowlevel.checkpoint()

    async def read(self, key: int, *, compute: bool) -> None:
        own, (version, said) = self.known[key], self.table.acknowledged(key)
        due = time.monotonic_ns() - said > (LEASE + MARGIN) * 1e9

        async def work() -> int:
            started = self.table.source(key)
            await anyio.sleep(self.rng.random() * 0.01)
            return started

        options: dict[str, Any] = {"tags": [f"doc:{key}"], "label": self.label(key)}
        unverified = False
        if not compute:
            value = await self.cache.get(self.request(key))
            # Not marked, so only a strict cache may be held to it.
            unverified = not self.strict
        elif self.strict:
            value = await self.cache.get_or_compute(self.request(key), work, **options)
        else:
            result = await self.cache.resolve(self.request(key), work, **options)
            value, unverified = result.value, result.unverified
            self.counts.unverified += unverified
        if value is not None:
            self.counts.values += 1
            self.counts.own += value < own
            self.counts.late += due and not unverified and value < version

    async def invalidate(self, key: int) -> None:
        version = self.table.change(key)
        match self.rng.randrange(4):
            case 0:
                done = await self.cache.invalidate(label=self.label(key))
            case 1:
                done = await self.cache.invalidate(self.request(key))
            case 2 if self.rng.random() < 0.1:
                done = await self.cache.invalidate(pattern=f"*/{key:02}")
            case _:
                done = await self.cache.invalidate(tags=[f"doc:{key}"])
        self.counts.invalidations += 1
        self.counts.deferred += done.deferred
        self.known[key] = max(self.known[key], version)
        if not done.deferred:
            self.table.acknowledge(key, version)

    def request(self, key: int) -> dict[str, int]:
        return {"key": key}

    def label(self, key: int) -> str:
        return f"keys/{key:02}"


async def main(tiers: list[str], path: Path, operations: int, seed: int, bug: str) -> None:
    pause = 0.0
    if bug == "hears nothing":
        # So that what a process holds grows old enough to be found out, however fast the machine is: what it
        # does itself with a key hides what it did not hear of it.
        pause = 0.02
        learn = Markers._learn

        def only_the_clock(self: Markers, known: Known, asked: Asked, changes: Changes, sent: float) -> bool:
            return learn(self, known, asked, changes._replace(markers=[], rules=()), sent)

        Markers.hear = lambda self, message: None  # type: ignore[method-assign]
        Markers._learn = only_the_clock  # type: ignore[method-assign]
    strict = seed % 2 == 0
    async with LLMCache(
        tiers=tiers, namespace="coherence", strict=strict, coherence_lease=LEASE, lease_wait=1.0
    ) as cache:
        worker = Worker(cache, Table(path), seed, strict=strict, pause=pause)
        async with anyio.create_task_group() as tasks:
            for _ in range(CALLERS):
                tasks.start_soon(worker.caller, operations // CALLERS)
        coherence = cache.stats().coherence
        assert coherence is not None
        worker.counts.messages, worker.counts.gaps = coherence.messages, coherence.gaps
    sys.stdout.write(json.dumps(asdict(worker.counts)) + "\n")


if __name__ == "__main__":
    urls, table, count, number, planted = sys.argv[1:]
    anyio.run(main, urls.split(), Path(table), int(count), int(number), planted)
