"""The journal of write-behind: what is acknowledged as durable survives the process (I8).

The core's `Journal` writes the files; here its groups are synced from a worker thread, callers wait for their
group, and a disk that fails is a counted and logged loss of durability, never an error of a caller.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskStatus

from llmcache_fast import _core
from llmcache_fast._entry import SPACE, Facet, Facts, pack_facts, unpack_facts
from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import StoredRecord

_log = logging.getLogger("llmcache_fast.journal")

T = TypeVar("T")

DEFAULT_MAX_BYTES = 256 << 20
SEGMENT_BYTES = 16 << 20
"""Large enough that making a file is rare, small enough that a process costs little disk."""
RETRY_AFTER = 1.0
"""Seconds after a failure of the disk in which nothing is journalled, so that a full disk costs little."""
_DONE_BATCH = 512
"""Records that are done are handed on in lists of this length, or with the next group."""
_READ_ITEMS, _READ_BYTES = 512, 4 << 20


@dataclass(slots=True)
class JournalStatistics:
    """Counts since the journal was opened; costs in micro-USD."""

    appended: int = 0
    syncs: int = 0
    failures: int = 0
    """Groups that could not be written, and records that could not be taken."""
    undurable: int = 0
    """Records that went on without the journal because of it."""
    lanes: int = 0
    """Lanes adopted from processes that are gone."""
    recovered: int = 0
    recovered_cost: int = 0
    damaged: int = 0
    """Places in adopted lanes where acknowledged records may have been lost."""
    damaged_bytes: int = 0
    torn_bytes: int = 0
    missing_files: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """An open lane: this process's own, or one adopted from a process that is gone."""

    core: _core.Journal
    done: list[tuple[int, int]] = field(default_factory=list)
    replayed: bool = False
    """Whether all it held when it was adopted has been handed out."""


_open: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_in_child() -> None:
    # A forked child has the parent's locks: as long as it lives, nobody could adopt the parent's lanes.
    for journal in list(_open):
        for lane in journal.lanes:
            lane.core.leave()


os.register_at_fork(after_in_child=_leave_in_child)


class Journal:
    """Records appended here are durable when `durable` says so, until they are `done` in all their tiers.

    One per process and folder; several processes may share a folder. A child made by fork opens its own.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        retry_after: float = RETRY_AFTER,
    ) -> None:
        """`max_bytes` bounds the records that are not done; files take up to twice that and some segments."""
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.bytes = 0
        """Of the records of the own lane that are not done; kept by who appends and ends them."""
        self.counts = JournalStatistics()
        self.lanes: list[Lane] = []
        self._own: Lane | None = None
        self._segment_bytes = segment_bytes
        self._retry_after, self._retry_at = retry_after, 0.0
        self._through = 0
        self._last = 0
        self._broken: deque[tuple[int, int]] = deque(maxlen=1024)
        """Numbers `low < n <= high` of groups that were not written."""
        self._failing = False
        self._wake = anyio.Event()
        self._turn = anyio.Event()
        self._running = False
        self._limiter = anyio.CapacityLimiter(2)

    async def open(self) -> None:
        """Make this process's lane and adopt those of processes that are gone.

        Raises:
            TierError: the folder cannot be used; `reason` says why.
        """
        await self._adopt()
        _open.add(self)
        self._own = Lane(await self._in_thread(_core.Journal, str(self.folder), self._segment_bytes))
        self.lanes.append(self._own)

    async def adopt(self) -> list[Lane]:
        """Adopt lanes of processes that have gone since; those."""
        if self._own is None:
            return []
        try:
            return await self._adopt()
        except TierError as error:
            self._failed(error)
            return []

    async def _adopt(self) -> list[Lane]:
        adopted, errors = await self._in_thread(_core.Journal.adopt, str(self.folder), self._segment_bytes)
        for error in errors:
            self.counts.failures += 1
            _log.error("journal %s: a lane cannot be read: %s", self.folder, error.message)
        lanes = []
        for core in adopted:
            self._report(core)
            lanes.append(Lane(core))
        self.lanes += lanes
        return lanes

    def _report(self, core: _core.Journal) -> None:
        found, counts = core.recovery(), self.counts
        counts.lanes += 1
        counts.recovered += found["records"]
        counts.recovered_cost += found["cost"]
        counts.damaged += found["damaged"]
        counts.damaged_bytes += found["damaged_bytes"]
        counts.torn_bytes += found["torn_bytes"]
        counts.missing_files += found["missing_files"]
        if found["damaged"] or found["missing_files"]:
            _log.error(
                "journal %s: damaged in %d places (%d bytes), %d files missing; what they held is lost",
                core.path,
                found["damaged"],
                found["damaged_bytes"],
                found["missing_files"],
            )

    @property
    def adopted(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane is not self._own]

    @property
    def own(self) -> Lane | None:
        return self._own

    # -- appending ----------------------------------------------------------------------------------

    def append_nowait(self, record: StoredRecord, tiers: str) -> int | None:
        """Take a record for `tiers` (names, one a line) into the next group; its number.

        None when it cannot be journalled: counted, and logged once until the journal works again.
        """
        own = self._own
        if own is None or (self._failing and anyio.current_time() < self._retry_at):
            self.counts.undurable += 1
            return None
        try:
            self._last = own.core.append(record, facts_of(record), tiers)
        except TierError as error:
            self.counts.undurable += 1
            self._failed(error)
            return None
        self.counts.appended += 1
        self._wake.set()
        return self._last

    async def durable(self, number: int) -> bool:
        """Wait for the record's group; whether it is on the disk."""
        while self._through < number:
            if not self._running:
                return False
            await self._turn.wait()
        return self.is_durable(number)

    def is_durable(self, number: int) -> bool:
        """Whether the record of the own lane is on the disk by now."""
        return number <= self._through and not any(low < number <= high for low, high in self._broken)

    def done(self, lane: Lane, number: int, bits: int) -> None:
        """The tiers of the bits have the record, or never will."""
        lane.done.append((number, bits))
        if len(lane.done) >= _DONE_BATCH:
            self._hand_on(lane)
            self._wake.set()

    def _hand_on(self, lane: Lane) -> None:
        done, lane.done = lane.done, []
        if done:
            try:
                lane.core.done(done)
            except TierError as error:
                self._failed(error)

    # -- reading back -------------------------------------------------------------------------------

    async def read(
        self, lane: Lane, after: int = 0, items: int = _READ_ITEMS
    ) -> list[tuple[int, int, str, StoredRecord]]:
        """`(number, bits left, tiers, record)` of up to `items` records after a number; empty: no more."""
        self._hand_on(lane)
        try:
            rows = await self._in_thread(lane.core.read, after, items, _READ_BYTES)
        except TierError as error:
            self._failed(error)
            return []
        return [(number, left, tiers, record_of(fields)) for number, left, tiers, fields in rows]

    async def compact(self) -> None:
        """Delete from the disk all that is done.

        Raises:
            TierError: a file could not be written or deleted.
        """
        for lane in list(self.lanes):
            self._hand_on(lane)
            await self._in_thread(lane.core.compact)

    async def survey(self, matches: Callable[[bytes], bool]) -> int:
        """Of how many records in the lanes of other living processes `matches(envelope)` is true; that is
        called in a worker thread.

        Raises:
            TierError: the folder cannot be read.
        """
        own = [lane.core.path for lane in self.lanes]
        return await self._in_thread(_core.Journal.survey, str(self.folder), own, matches)

    # -- the task's side ----------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sync groups until cancelled; start it once, in a task group that outlives the callers."""
        self._running = True
        try:
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                await self.sync()
        finally:
            self._running = False
            self._announce()

    async def sync(self) -> None:
        """Write what has arrived as one group. No timer: while one group is synced, the next one gathers."""
        for lane in list(self.lanes):
            self._hand_on(lane)
            if lane is not self._own:
                await self._finish(lane)
        if self._own is None:
            return
        try:
            through, error = await self._in_thread(self._own.core.sync)
        except TierError as failure:
            through, error = self._last, failure
        if error is None:
            self._failing = False
            self.counts.syncs += 1
        else:
            self._broken.append((self._through, through))
            self.counts.undurable += through - self._through
            self._failed(error)
        self._through = through
        self._announce()

    async def _finish(self, lane: Lane) -> None:
        """Remove an adopted lane when every record is done."""
        try:
            # Two may sync at once: the journal's own task, and an erasure.
            if lane in self.lanes and lane.replayed and not lane.core.stats()["records"]:
                self.lanes.remove(lane)
                await self._in_thread(lane.core.close)
        except TierError as error:
            self._failed(error)

    async def aclose(self) -> None:
        """Write what is pending and let go of the lanes; those that still hold records are adopted later."""
        with anyio.CancelScope(shield=True):
            await self.sync()
            lanes, self.lanes, self._own = self.lanes, [], None
            for lane in lanes:
                self._hand_on(lane)
                try:
                    await self._in_thread(lane.core.close)
                except TierError as error:
                    self._failed(error)

    def _announce(self) -> None:
        self._turn.set()
        self._turn = anyio.Event()

    def unusable(self, error: TierError) -> None:
        """Count and log that the journal could not be opened."""
        self._failed(error)

    def _failed(self, error: TierError) -> None:
        self.counts.failures += 1
        self._retry_at = anyio.current_time() + self._retry_after
        if not self._failing:
            _log.error("journal %s: going on without durability: %s", self.folder, error.message)
        # A record too large says nothing of the disk.
        self._failing = error.reason != "too_large"

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await anyio.to_thread.run_sync(work, *args, limiter=self._limiter)


def facts_of(record: StoredRecord) -> bytes | None:
    """A record's facts, packed, for the core to write. The partition is among them, as tiers know it."""
    facts = record.facts
    if record.partition is not None:
        facet = Facet(record.partition, bytes(SPACE), "", b"")
        facts = msgspec.structs.replace(facts or Facts(), semantic=facet)
    return None if facts is None else pack_facts(facts)


def record_of(fields: tuple[object, ...]) -> StoredRecord:
    """The record of what the core read; facts that cannot be read are left out."""
    record = StoredRecord._make((*fields, None))
    packed = fields[9]
    if not isinstance(packed, bytes):
        return record
    try:
        facts = unpack_facts(packed)
    except msgspec.DecodeError:
        return record._replace(facts=None)
    if facts.semantic is None:
        return record._replace(facts=facts)
    shown = None if record.namespace is None else msgspec.structs.replace(facts, semantic=None)
    return record._replace(facts=shown, partition=facts.semantic.partition)
