"""Dead letters: records that a tier did not take, kept in a file for a person to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from llmcache_fast import _core
from llmcache_fast._errors import TierError
from llmcache_fast.actors.journal import facts_of, record_of
from llmcache_fast.tiers.base import StoredRecord, clock_micros

_log = logging.getLogger("llmcache_fast.dead_letters")

FOLDER = "dead-letters"
"""Name of the folder inside the journal's."""
DEFAULT_MAX_BYTES = 64 << 20


class DeadLetter(NamedTuple):
    """A record that was given up."""

    id: bytes
    """16 bytes that name it."""
    at: int
    """When: microseconds since 1970."""
    reason: str
    """`refused`, or the reason of the last failure."""
    tier: str
    record: StoredRecord


class DeadLetters:
    """The letters of one folder, shared by processes. Bounded: the older half goes when the newer is full."""

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], int] = clock_micros,
    ) -> None:
        self.folder = Path(folder)
        self._core = _core.DeadLetters(str(folder), max_bytes)
        self._clock = clock
        self.written = 0
        self.dropped = 0
        """Older letters given up for room."""
        self.lost = 0
        """Records that could not even be written here."""
        self.lost_cost = 0

    async def add(self, letters: Sequence[tuple[str, str, StoredRecord]]) -> None:
        """Write `(tier, reason, record)`s durably. A disk that fails is counted and logged, not raised."""
        now = self._clock()
        rows = [(now, reason, tier, record, facts_of(record)) for tier, reason, record in letters]
        try:
            self.dropped += await anyio.to_thread.run_sync(self._core.add, rows)
            self.written += len(rows)
        except TierError as error:
            self.lost += len(rows)
            self.lost_cost += sum(record.cost for _, _, record in letters)
            _log.error("%d records that no tier took are lost: %s", len(rows), error.message)

    async def all(self) -> tuple[list[DeadLetter], int]:
        """All letters, oldest first, and how many places of the files were damaged.

        Raises:
            TierError: they cannot be read.
        """
        rows, damaged = await anyio.to_thread.run_sync(self._core.all)
        return [DeadLetter(*row[:4], record_of(row[4])) for row in rows], damaged

    async def remove(self, ids: Sequence[bytes]) -> int:
        """Remove letters; how many were there.

        Raises:
            TierError: the files cannot be written; all letters are still there.
        """
        return await anyio.to_thread.run_sync(self._core.remove, list(ids))
