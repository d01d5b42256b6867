"""A process that stores what one person said, erases it, and is killed in the midst of that.

Run as `python -m tests.faults.erase_worker FOLDER TURN MODE TIER...`. It says `erasing` when all is stored,
`marked` when the invalidation is acknowledged, and `erased` at the end. MODE `sound` is what erasure
promises; the planted bug `unmarked` deletes without having invalidated first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from llmcache_fast import Invalidation, LLMCache, _cache
from llmcache_fast._invalidation import Invalidations
from tests.faults.disk_worker import say

ENTRIES = 600
LATE = 100
"""Of them, those that are still on their way to the tiers when the erasure begins."""
PERSON = ["user:42"]


def canary(number: int) -> str:
    return f"what only this person ever said, {number} " * 8


def opened(folder: str, tiers: list[str], **options: Any) -> LLMCache:
    return LLMCache(
        tiers=tiers, journal=Path(folder) / "journal", compress=False, ttl=None, sweep_rate=0, **options
    )


class Marked(Invalidations):
    """Says when the invalidation is acknowledged."""

    async def apply(
        self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()
    ) -> Invalidation:
        done = await super().apply(namespace, targets, patterns)
        say("marked")
        return done


class Unmarked(Invalidations):
    async def apply(
        self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()
    ) -> Invalidation:
        say("marked")
        return Invalidation(seq=0)


async def main(folder: str, turn: int, mode: str, tiers: list[str]) -> None:
    _cache.Invalidations = Marked if mode == "sound" else Unmarked  # type: ignore[attr-defined]
    async with opened(folder, tiers) as cache:
        for number in range(ENTRIES):
            if number == ENTRIES - LATE:
                await cache.flush()
            mine = number % 2 == 0
            await cache.set(
                {"turn": turn, "n": number},
                canary(number) if mine else f"of somebody else {number}",
                tags=PERSON if mine else ["user:7"],
            )
        say("erasing")
        await cache.erase(tags=PERSON)
        say("erased")
        await anyio.sleep(60)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
