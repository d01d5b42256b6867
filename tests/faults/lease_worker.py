"""One process of `test_lease_processes.py`: computes what it is asked for, and notes each computation.

Standard input: `ROUND` lines. Standard output: `ready`, then `ROUND VALUE` for each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import anyio.to_thread

from llmcache_fast import LLMCache


async def main(tier: str, log: str, seconds: float, lease_wait: float) -> None:
    # Lines this short are appended whole, whoever else writes.
    with Path(log).open("a", buffering=1) as computed:
        async with LLMCache(tiers=[tier], namespace="leases", lease_wait=lease_wait) as cache:
            print("ready", flush=True)
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                number = int(line)

                async def compute(number: int = number) -> int:
                    computed.write(f"{number}\n")
                    await anyio.sleep(seconds)
                    return number * 7

                value = await cache.get_or_compute({"round": number}, compute)
                print(number, value, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
