"""A process that writes to a disk store and tells what was acknowledged, until it is killed.

Run as `python -m tests.faults.disk_worker FOLDER WORKER ROUND MODE`. Each acknowledgement is one line on
standard output, written with one system call, so that SIGKILL cuts between lines: `put FIRST COUNT` or
`mark TARGET SEQ`. MODE `sound` is what the store promises; `early` is the planted bug: it acknowledges
before it has committed; `opening` makes one new store after the other, `migrating` opens those that are
there; `scrubbing` scrubs for ever.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import sys
from pathlib import Path

from llmcache_fast._core import DiskStore

BATCH = 16
MAX_BYTES = 4 << 30
NEVER = 2**63 - 1


def key(worker: int, turn: int, number: int) -> bytes:
    return hashlib.sha256(f"{worker}/{turn}/{number}".encode()).digest()


def envelope(worker: int, turn: int, number: int) -> bytes:
    """Bytes that only this record has, of 32 to 8 KiB."""
    digest = hashlib.sha256(f"envelope {worker}/{turn}/{number}".encode()).digest()
    return digest * (1 + digest[0])


def batch(worker: int, turn: int, first: int) -> list[tuple[bytes, bytes, int, int, int, int]]:
    numbers = range(first, first + BATCH)
    return [(key(worker, turn, n), envelope(worker, turn, n), 1, 1, NEVER, 1000) for n in numbers]


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    folder, worker, turn, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if mode == "opening":
        say("ready")
        for number in itertools.count():
            DiskStore(f"{folder}/{number}", MAX_BYTES, 10.0).put_many(batch(worker, turn, 0), 0)
            say(f"put {number} 1")
    if mode == "migrating":
        say("ready")
        for number in range(len(list(Path(folder).iterdir()))):
            DiskStore(f"{folder}/{number}", MAX_BYTES, 10.0)
            say(f"opened {number}")
        signal.pause()
    store = DiskStore(folder, MAX_BYTES, 10.0)
    say("ready")
    while mode == "scrubbing":
        store.scrub()
        say("scrubbed")
    first = 0
    while True:
        records = batch(worker, turn, first)
        if mode == "early":
            say(f"put {first} {BATCH}")
        store.put_many(records, 0)
        if mode == "sound":
            say(f"put {first} {BATCH}")
        # What was acknowledged must be readable at once, whoever else writes.
        if store.get_many([records[0][0]]) != [records[0][1]]:
            say("unreadable")
        first += BATCH
        if first % (8 * BATCH) == 0:
            target = worker * 10**9 + turn * 10**5 + first
            _, seq, _ = store.raise_markers(1, [target], [], [], 0)
            say(f"mark {target} {seq}")


if __name__ == "__main__":
    main()
