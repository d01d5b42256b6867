"""A process that defers and delivers invalidations and tells what was acknowledged, until it is killed.

Run as `python -m tests.faults.deferred_worker FOLDER TURN MODE`. Each acknowledgement is one line on standard
output, `owed FIRST COUNT` or, before the delivery begins, `given FIRST COUNT`. MODE `sound` is what the log
promises; the planted bugs are `early`, which acknowledges before the file is written, and `forgetful`, which
takes what was added again while it was delivered for delivered.
"""

from __future__ import annotations

import random
import sys

import anyio

from llmcache_fast.actors.deferred import DeferredLog
from tests.faults.disk_worker import say

BATCH = 8
SPACE = "kills"


def target(turn: int, number: int) -> int:
    return turn << 32 | number


class EarlyLog(DeferredLog):
    async def _sync(self) -> bool:
        if len(self._lines) > 100:
            return await super()._sync()
        return True


class ForgetfulLog(DeferredLog):
    def begin(self) -> int:
        return super().begin() + 1


async def main(folder: str, turn: int, mode: str) -> None:
    log = {"early": EarlyLog, "forgetful": ForgetfulLog}.get(mode, DeferredLog)(folder, authority="postgres")
    rng = random.Random(turn)
    await log.open()
    say("ready")
    first = 0
    while True:
        batch = [target(turn, number) for number in range(first, first + BATCH)]
        async with anyio.create_task_group() as group:
            for one in batch:
                group.start_soon(log.add, SPACE, [one])
        say(f"owed {first} {BATCH}")
        if rng.random() < 0.5:
            through = log.begin()
            say(f"given {first} {BATCH}")
            # The first is invalidated again while it is delivered.
            assert await log.add(SPACE, batch[:1])
            say(f"owed {first} 1")
            await log.delivered(SPACE, batch, through=through)
        first += BATCH


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
