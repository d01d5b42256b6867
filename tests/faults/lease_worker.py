"""One process of `test_lease_processes.py`: computes what it is asked for, and notes each computation.

Standard input: `ROUND` lines. Standard output: `ready`, then `ROUND VALUE` for each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import anyio
import anyio.to_thread

from llmcache_fast import LLMCache


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(tier: str, log: TextIO, seconds: float, lease_wait: float) -> None:
    async with LLMCache(tiers=[tier], namespace="leases", lease_wait=lease_wait) as cache:
        say("ready")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            number = int(line)

            async def compute(number: int = number) -> int:
                log.write(f"{number}\n")
                await anyio.sleep(seconds)
                return number * 7

            value = await cache.get_or_compute({"round": number}, compute)
            say(f"{number} {value}")


if __name__ == "__main__":
    address, path, *durations = sys.argv[1:]
    # Lines this short are appended whole, whoever else writes.
    with Path(path).open("a", buffering=1) as computed:
        anyio.run(main, address, computed, float(durations[0]), float(durations[1]))
