"""All that is on its way into the tiers: a write-behind buffer for each, one journal in front of them.

A record is appended to the journal once and is done there when each of its tiers has it or gave it up. What a
tier does not take ends as a dead letter; what does not fit into memory stays in the journal and comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.abc

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.dead_letters import DeadLetters
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.ledger import Ledger, Receipt
from llmcache_fast.actors.write_behind import Hopeless, WriteBehind
from llmcache_fast.actors.write_report import Durability, WriteReport, WritersStatistics
from llmcache_fast.tiers.base import StoredRecord, Tier, clock_micros

Matches: TypeAlias = Callable[[bytes], bool]
"""Of an envelope."""


class Writers:
    """The write-behind of all tiers, with one of three durabilities.

    `put` returns when the record is as durable as promised: `memory`, when it is buffered; `journal`, when it
    is on this machine's disk; `sync`, when the last tier has it. It answers False when that failed; with
    `strict` it raises.
    """

    def __init__(
        self,
        durability: Durability = "memory",
        *,
        journal: Journal | None = None,
        dead_letters: DeadLetters | None = None,
        strict: bool = False,
        sync_deadline: float = 30.0,
        room_deadline: float = 0.05,
        clock: Callable[[], int] = clock_micros,
        **options: Any,
    ) -> None:
        """`sync_deadline` is how long `put` waits for the last tier, `room_deadline` for room, in seconds.

        `options` go to each `WriteBehind`.

        Raises:
            ValueError: durability `journal` without a journal.
        """
        if durability == "journal" and journal is None:
            raise ValueError("durability 'journal' needs a journal: give a directory")
        self.durability = durability
        self._strict = strict
        self._sync_deadline, self._room_deadline = sync_deadline, room_deadline
        self._clock, self._options = clock, options
        self._buffers: dict[str, WriteBehind] = {}
        self._names: tuple[str, ...] = ()
        self._ledger = Ledger(self._buffers, journal, dead_letters, clock)

    # -- life cycle ---------------------------------------------------------------------------------

    def add(self, tier: Tier) -> str:
        """Buffer what is to be written to `tier`, which may open later: whoever opens it starts the `run` of
        its `buffer`. Its name here: that of the tier, or the tier's with a number if there is one of it."""
        name = tier.name
        if name in self._buffers:
            name = f"{name}#{len(self._buffers) + 1}"
        ended = partial(self._ledger.ended, name)
        self._buffers[name] = WriteBehind(tier, clock=self._clock, ended=ended, **self._options)
        self._names = tuple(self._buffers)
        return name

    def buffer(self, name: str) -> WriteBehind:
        """The buffer of a tier."""
        return self._buffers[name]

    async def open(
        self, tasks: anyio.abc.TaskGroup, tiers: Sequence[Tier] = (), *, closed: Iterable[str] = ()
    ) -> None:
        """Start writing to `tiers`, all of them open, slowest last; what earlier processes left comes first.

        `closed` names configured tiers that could not be opened: what is journalled for them waits for the
        next start, where that for a tier nobody knows becomes a dead letter. A journal that cannot be opened
        is counted and logged; with `strict` it raises.

        Raises:
            TierError: the journal cannot be used, and `strict`.
        """
        ledger, journal = self._ledger, self._ledger.journal
        for tier in tiers:
            await tasks.start(self._buffers[self.add(tier)].run)
        if ledger.letters is not None:
            tasks.start_soon(ledger.bury_forever)
        if journal is None:
            ledger.replayed.set()
            return
        try:
            await journal.open()
        except TierError as error:
            if self._strict:
                raise
            journal.unusable(error)
        await tasks.start(journal.run)
        tasks.start_soon(ledger.refill_forever, journal, frozenset((*self._names, *closed)))

    async def aclose(
        self,
        timeout: float | None = 10.0,
        *,
        closed: Container[str] = (),
        hopeless: Mapping[str, Hopeless] | None = None,
    ) -> dict[str, WriteReport]:
        """Drain within `timeout` seconds, whatever is cancelled meanwhile; by tier what happened. `closed`
        names those of no use to wait for, `hopeless` has by name what says so later.

        `remaining` of a report stays in the journal, if there is one, for the next start.
        """
        reports: dict[str, WriteReport] = {}

        async def close(name: str, buffer: WriteBehind) -> None:
            reports[name] = await buffer.aclose(0 if name in closed else timeout, (hopeless or {}).get(name))

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for name, buffer in self._buffers.items():
                    group.start_soon(close, name, buffer)
            await self._ledger.bury()
            if self._ledger.journal is not None:
                await self._ledger.journal.aclose()
        return reports

    # -- callers' side ------------------------------------------------------------------------------

    async def put(self, record: StoredRecord, *, only: Sequence[str] | None = None) -> bool:
        """Write to all tiers, or those named; whether the record is as durable as promised.

        Raises:
            TierUnavailableError: it is not, and `strict`.
        """
        await self.room(record.key, len(record.envelope))
        return await self.kept(self.put_nowait(record, only=only))

    async def room(self, key: bytes, size: int) -> None:
        """Wait, `room_deadline` at most, until an envelope of `size` bytes can be taken and nothing is shed.

        What has no place in memory is left to the journal, if there is one: then its room counts.
        """
        ledger, journal = self._ledger, self._ledger.journal
        buffers = self._buffers.values() if journal is None or journal.own is None else ()
        if ledger.fits(size) and all(buffer.fits(key, size) for buffer in buffers):
            return
        with anyio.move_on_after(self._room_deadline):
            await ledger.room(size)
            for buffer in buffers:
                await buffer.room(key, size)

    async def kept(self, receipt: Receipt | None) -> bool:
        """Whether the record of a receipt is as durable as promised, once that is known. Without one, because
        no tier can be written to, it is not.

        Raises:
            TierUnavailableError: it is not, and `strict`.
        """
        kept = receipt is not None and await self._kept(receipt)
        if self._strict and not kept:
            raise TierUnavailableError(
                "the record is not durable", tier="journal", operation="put", reason="not_durable"
            )
        return kept

    async def _kept(self, receipt: Receipt) -> bool:
        if self.durability == "sync":
            if not receipt.stored and receipt.left:
                receipt.ended = anyio.Event()
                with anyio.move_on_after(self._sync_deadline):
                    await receipt.ended.wait()
            return receipt.stored
        journal = self._ledger.journal
        if self.durability == "memory" or journal is None:
            return bool(receipt.left) or receipt.stored
        if not receipt.number or not await journal.durable(receipt.number):
            return False
        self._ledger.release(receipt)
        return True

    def put_nowait(
        self, record: StoredRecord, *, only: Sequence[str] | None = None, journalled: bool = True
    ) -> Receipt:
        """Write to all tiers, or those named, without waiting; `journalled=False`: it can be had again. What
        it returns is for `kept`."""
        names = self._names if only is None else tuple(only)
        return self._ledger.enter(record, names, journalled=journalled)

    def get(self, key: bytes, tier: str) -> bytes | None:
        """The newest envelope on its way into `tier`, if it is in memory."""
        buffer = self._buffers.get(tier)
        return None if buffer is None else buffer.get(key)

    def drop(self, keys: Sequence[bytes]) -> int:
        """Forget the pending writes of `keys`, in memory and in the journal; how many there were."""
        return sum(buffer.drop(keys) for buffer in self._buffers.values()) + self._ledger.drop(keys)

    def drop_where(self, predicate: Callable[[StoredRecord], bool]) -> int:
        """Forget the pending writes whose record fulfils `predicate`; how many there were.

        What is in the journal alone (spilled, or of an earlier process) is left: the stamp of an invalidated
        record makes its replay harmless. To be rid of it, `erase`.
        """
        return sum(buffer.drop_where(predicate) for buffer in self._buffers.values())

    # -- erasing: records are named by what their envelopes hold, for nothing else of them is told apart ---

    async def erase_buffered(self, matches: Matches) -> int:
        """Forget matching writes that are buffered, and wait for those under way; how many there were."""
        erased = self.drop_where(lambda record: matches(record.envelope))
        for buffer in self._buffers.values():
            await buffer.settled()
        return erased

    async def erase_journal(self, matches: Matches) -> int:
        """Delete matching records from the journal's files, in the lanes of this process and of those that
        are gone; how many writes were still to be done.

        Cost: all that the journal holds is read, and what stays is written anew.

        Raises:
            TierError: a file could not be read or written; the erasure is not finished.
        """
        journal = self._ledger.journal
        if journal is None:
            return 0
        if journal.own is None:
            raise TierUnavailableError(
                "it could not be opened", tier="journal", operation="erase", reason="closed"
            )
        await journal.sync()
        erased = await self._ledger.erase(journal, lambda record: matches(record.envelope))
        self.drop_where(lambda record: matches(record.envelope))  # what came back from the journal meanwhile
        await journal.compact()
        return erased

    async def erase_letters(self, matches: Matches) -> int:
        """Delete matching dead letters; how many there were.

        Raises:
            TierError: the files could not be read or written.
        """
        letters = self._ledger.letters
        if letters is None:
            return 0
        await self._ledger.bury()
        found, _ = await letters.all()
        return await letters.remove([letter.id for letter in found if matches(letter.record.envelope)])

    async def held_elsewhere(self, matches: Matches) -> int:
        """How many matching records other living processes have in the journal's files, done or not.

        Raises:
            TierError: the folder cannot be read.
        """
        journal = self._ledger.journal
        return 0 if journal is None else await journal.survey(matches)

    def count_where(self, matches: Matches) -> int:
        """How many matching records are buffered, each once."""
        found = {
            record.key: record.envelope
            for buffer in self._buffers.values()
            for record in buffer.records()
            if matches(record.envelope)
        }
        return len(found)

    async def settled(self, keys: Sequence[bytes]) -> None:
        """Wait until no write of `keys` that was under way at the call still is, in any tier."""
        for buffer in self._buffers.values():
            await buffer.settled(keys)

    async def flush(
        self, timeout: float | None = None, *, only: Iterable[str] | None = None
    ) -> dict[str, WriteReport]:
        """Wait until all that is buffered now, for all tiers or those named, is written or given up; by tier
        what happened."""
        reports: dict[str, WriteReport] = {}

        async def flush(name: str, buffer: WriteBehind) -> None:
            reports[name] = await buffer.flush(timeout)

        async with anyio.create_task_group() as group:
            for name in self._names if only is None else only:
                group.start_soon(flush, name, self._buffers[name])
        return reports

    async def replayed(self) -> None:
        """Wait until all that earlier processes left has been handed to the tiers' buffers."""
        await self._ledger.replayed.wait()

    def statistics(self) -> WritersStatistics:
        tiers = {name: buffer.statistics() for name, buffer in self._buffers.items()}
        counts, journal, letters = self._ledger.counts, self._ledger.journal, self._ledger.letters
        dead, dead_cost = counts["dead"], counts["dead_cost"]
        if letters is not None:
            dead, dead_cost = dead - letters.lost, dead_cost - letters.lost_cost
        lost = sum(tier.lost for tier in tiers.values())
        lost_cost = sum(tier.lost_cost for tier in tiers.values())
        shed = sum(tier.shed for tier in tiers.values())
        shed_cost = sum(tier.shed_cost for tier in tiers.values())
        degraded = self.durability == "journal" and (journal is None or journal.own is None)
        return WritersStatistics(
            durability="memory" if degraded else self.durability,
            lost=lost + counts["lost"] - counts["kept"] - dead,
            lost_cost=lost_cost + counts["lost_cost"] - counts["kept_cost"] - dead_cost,
            shed=shed - counts["spilled"] + counts["shed"],
            shed_cost=shed_cost - counts["spilled_cost"] + counts["shed_cost"],
            spilled=counts["spilled"],
            kept=counts["kept"],
            kept_cost=counts["kept_cost"],
            replayed=counts["replayed"],
            dead=dead,
            dead_cost=dead_cost,
            journal=journal.counts if journal else None,
            tiers=tiers,
        )
