"""The disk store, beside diskcache and beside the plainest use of Python's own sqlite3.

Processor time, as everywhere here: what a disk adds depends on the disk, and with `synchronous=NORMAL`
none of the contenders waits for it except at checkpoints.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

from benches.figure import OURS, Figure, from_times
from benches.rounds import Contender, interleave, pedantic
from benches.workloads import keys
from llmcache_fast._core import DiskStore

BASE = "sqlite3, a table"
ENTRIES = 20_000
BATCH = 100
VALUE = os.urandom(2048)
NEVER = 2**63 - 1


class Plain:
    """A table of key and value, WAL, `synchronous=NORMAL`: what one would write by hand, with no bound,
    no expiry, no order of writes and no eviction."""

    def __init__(self, folder: str) -> None:
        self._db = sqlite3.connect(Path(folder) / "plain.sqlite3", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB)")

    def get(self, key: bytes) -> bytes | None:
        row = self._db.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", pairs)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


@contextlib.contextmanager
def entrants(work: str) -> Iterator[dict[str, Contender]]:
    """All stores open, each holding the same entries."""
    own = keys(ENTRIES)
    fresh = (os.urandom(32) for _ in itertools.count())
    with tempfile.TemporaryDirectory() as folder:
        plain = Plain(folder)
        store = DiskStore(f"{folder}/ours", 1 << 30)
        other = diskcache.Cache(f"{folder}/diskcache", size_limit=1 << 30)
        plain.put([(key, VALUE) for key in own])
        store.put_many([(key, VALUE, 1, 1, NEVER, 100) for key in own], 0)
        with other.transact():
            for key in own:
                other.set(key, VALUE, expire=3600)

        def prepare(size: int) -> list[bytes]:
            return [own[(number * 7919) % ENTRIES] for number in range(size)]

        def prepare_new(size: int) -> list[list[bytes]]:
            return [[next(fresh) for _ in range(BATCH)] for _ in range(max(size // BATCH, 1))]

        def each(get: Any) -> Any:
            def run(batch: list[bytes]) -> None:
                for key in batch:
                    get(key)

            return run

        def read_many(batch: list[bytes]) -> None:
            for start in range(0, len(batch), BATCH):
                store.get_many(batch[start : start + BATCH])

        def write_ours(batches: list[list[bytes]]) -> None:
            for batch in batches:
                store.put_many([(key, VALUE, 1, 1, NEVER, 100) for key in batch], 0)

        def write_plain(batches: list[list[bytes]]) -> None:
            for batch in batches:
                plain.put([(key, VALUE) for key in batch])

        def write_diskcache(batches: list[list[bytes]]) -> None:
            for batch in batches:
                with other.transact():
                    for key in batch:
                        other.set(key, VALUE, expire=3600)

        if work == "read":
            yield {
                BASE: Contender(prepare, each(plain.get)),
                OURS: Contender(prepare, each(lambda key: store.get_many([key]))),
                f"{OURS} ({BATCH} at once)": Contender(prepare, read_many),
                "diskcache": Contender(prepare, each(other.get)),
            }
        else:
            yield {
                BASE: Contender(prepare_new, write_plain),
                OURS: Contender(prepare_new, write_ours),
                "diskcache": Contender(prepare_new, write_diskcache),
            }
        plain.close()
        store.close()
        other.close()


WORKS = {
    "read": "disk: read one of 20,000 entries of 2 KB",
    "write": f"disk: write entries of 2 KB, {BATCH} a transaction",
}


def figures(rounds: int) -> Iterator[Figure]:
    for work, title in WORKS.items():
        with entrants(work) as contenders:
            times = interleave(contenders, size=1000, rounds=rounds)
        yield from_times(title, times, BASE)


@pytest.mark.parametrize("work", list(WORKS))
@pytest.mark.parametrize("name", [BASE, OURS, "diskcache"])
def test_disk(benchmark: Any, work: str, name: str) -> None:
    with entrants(work) as contenders:
        pedantic(benchmark, contenders[name], size=500)
