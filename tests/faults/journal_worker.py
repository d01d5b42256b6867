"""A process that writes behind a journal and tells what was acknowledged, until it is killed.

Run as `python -m tests.faults.journal_worker FOLDER TURN MODE`. Each acknowledgement is one line on
standard output, `put FIRST COUNT`, written with one system call, so that SIGKILL cuts between lines. MODE
`sound` is what the journal promises; the planted bugs are `early`, which acknowledges before the group is
synced, and `forgetful`, which is done with a record before the tier has it.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio

from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.ledger import Ledger
from llmcache_fast.actors.writers import Writers
from llmcache_fast.tiers.base import NEVER, PutReport, StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from tests.faults.disk_worker import envelope, key, say

BATCH = 16
WORKER = 7


def record(turn: int, number: int) -> StoredRecord:
    return StoredRecord(key(WORKER, turn, number), envelope(WORKER, turn, number), 1, 1, NEVER, 100)


class SlowTier(DiskTier):
    """A real tier that takes its time, so that a kill finds much that only the journal has."""

    async def put_many(self, records: Any) -> PutReport:
        await anyio.sleep(0.02)
        return await super().put_many(records)


class EarlyJournal(Journal):
    async def durable(self, number: int) -> bool:
        return True


class ForgetfulLedger(Ledger):
    def enter(self, record: StoredRecord, names: tuple[str, ...], *, journalled: bool) -> Any:
        receipt = super().enter(record, names, journalled=journalled)
        for name in names:
            self._end(receipt, name)
        return receipt


async def main(folder: str, turn: int, mode: str) -> None:
    journal = (EarlyJournal if mode == "early" else Journal)(f"{folder}/journal", segment_bytes=256 << 10)
    writers = Writers("journal", journal=journal)
    if mode == "forgetful":
        writers._ledger = ForgetfulLedger(writers._buffers, journal, None, writers._clock)
    tier = SlowTier(f"{folder}/disk", budget=10.0)
    await tier.open()
    async with anyio.create_task_group() as group:
        await writers.open(group, [tier])
        say("ready")
        first = 0
        while True:
            answers: list[bool] = []

            async def put(number: int, answers: list[bool] = answers) -> None:
                answers.append(await writers.put(record(turn, number)))

            async with anyio.create_task_group() as batch:
                for number in range(first, first + BATCH):
                    batch.start_soon(put, number)
            assert all(answers)
            say(f"put {first} {BATCH}")
            first += BATCH


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
