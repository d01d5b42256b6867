"""The way below memory: reading the lower tiers, filling the upper ones, writing behind.

What belongs here: the order of the tiers, promotion, what a tier's failure means (nothing to the caller).
What does not: computing, waiting, what a caller gets (`_cache`); the clock of invalidations (`_markers`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.abc

from llmcache_fast._answer import entry_of
from llmcache_fast._core import Engine
from llmcache_fast._entry import (
    Content,
    Entry,
    Facts,
    pack_facts,
    stored_form,
    unpack_for_memory,
    without_vector,
)
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._floor import Floor, Lease
from llmcache_fast._markers import Markers
from llmcache_fast._wire import INCIDENTS, PLAIN, Wire
from llmcache_fast.actors.deferred import FOLDER, DeferredLog
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.leases import LEASE
from llmcache_fast.actors.ledger import Receipt
from llmcache_fast.actors.reader import Untaken
from llmcache_fast.actors.write_report import WriteReport
from llmcache_fast.actors.writers import Writers
from llmcache_fast.tiers.base import FoundRecord, SearchPage, StoredRecord, Tier

_log = logging.getLogger("llmcache_fast")

SEARCH_BUDGET = 10.0
"""Seconds a search may take: a caller asks for it, and no answer waits for it."""

Found: TypeAlias = tuple[Entry, str]
"""An entry and the name of the tier it was found in."""


class Lookup:
    """The tiers below memory, fastest first."""

    def __init__(
        self,
        engine: Engine,
        tiers: Sequence[Tier],
        clock: Any,
        wire: Wire = PLAIN,
        writers: Writers | None = None,
        *,
        lease_wait: float = 0.0,
        coherence_lease: float = 2.0,
        strict: bool = False,
        journal: str | None = None,
    ) -> None:
        """`writers` has no tiers yet. `lease_wait` is how long another process's computation is waited for,
        in seconds; 0 never. `coherence_lease`: see `Markers`; `strict`: nothing is read past it. `journal`:
        the folder for what the authority could not be told."""
        self._engine = engine
        self._clock = clock
        self.wire = wire
        self.writers = writers or Writers(clock=clock)
        self.floors = [Floor(tier, self.writers, clock) for tier in tiers]
        self._strict = strict
        self.noted: Callable[[Entry], None] | None = None
        """Told of each entry that came into memory with a vector."""
        self._first = None if strict or not self.floors else self.floors[0]
        """Where a read may begin without looking at anything before; see `join`."""
        self._tier_key = wire.tier_key if wire.blinds else None
        for floor in self.floors:
            floor.reader.take = partial(self._take, floor)
        authority = bus = None
        self._leasing: Floor | None = None
        """The first tier that has leases: where the others look first, too."""
        for floor in self.floors:
            if hasattr(floor.tier, "raise_markers"):
                authority = floor
            if bus is None and hasattr(floor.tier, "tell"):
                bus = floor
            if lease_wait and self._leasing is None and hasattr(floor.tier, "get_or_lease_many"):
                self._leasing = floor
                floor.lend(lease_wait)
        log = None
        if journal is not None and authority is not None:
            log = DeferredLog(Path(journal) / FOLDER, authority=authority.name, keyring=wire.keyring)
        if bus is None and authority is not None and hasattr(authority.tier, "follow"):
            bus = authority
        self.markers = Markers(engine, authority, bus, wire, lease=coherence_lease, clock=clock, log=log)
        self._tasks: Any = None

    async def open(
        self, tasks: anyio.abc.TaskGroup, namespace: str, supersede: Callable[[str], None] | None = None
    ) -> None:
        """Open the tiers and start their actors. A tier that does not open joins when it does. `supersede` is
        called with a namespace of which others invalidated something."""
        self._tasks = tasks
        if self.floors:
            await self.writers.open(tasks)
        try:
            async with anyio.create_task_group() as starting:
                for floor in self.floors:
                    catch_up = partial(self.markers.catch_up, floor)
                    run = partial(floor.run, tasks, catch_up, self._is_valid_record)
                    starting.start_soon(tasks.start, run)
        except ExceptionGroup as group:
            # An option that cannot work, found out on opening; one of them will do.
            raise group.exceptions[0] from None
        await self.markers.restore()
        self.markers.open(tasks, namespace, supersede)
        await self.markers.prepare(namespace)

    async def aclose(self, timeout: float) -> dict[str, WriteReport]:
        """Drain what is buffered, at most `timeout` seconds, and close the tiers, all at once. A tier in an
        outage is given the time of one probe and one write."""
        closed = {floor.name for floor in self.floors if not floor.is_open}
        hopeless = {floor.name: floor.hopeless for floor in self.floors}
        reports = await self.writers.aclose(timeout, closed=closed, hopeless=hopeless)
        async with anyio.create_task_group() as closing:
            for floor in self.floors:
                closing.start_soon(floor.aclose)
            closing.start_soon(self.markers.aclose)
        return {name: report for name, report in reports.items() if name not in closed}

    async def flush(self, timeout: float | None) -> dict[str, WriteReport]:
        """Wait until all that is buffered now is written or given up."""
        return await self.writers.flush(timeout, only=[floor.name for floor in self._usable()])

    # -- reading --------------------------------------------------------------------------------------

    def peek(self, key: bytes, namespace: str) -> Entry | None:
        """The valid entry in memory, fresh or stale, if it may be served: a strict cache serves only what is
        vouched for. Counts no hit."""
        if not self.may_serve(namespace):
            return None
        view = self._engine._peek(key)
        return None if view is None else entry_of(view, key, namespace)

    async def read(self, key: bytes, namespace: str, lease: Lease | None = None) -> Found | None:
        """The first valid entry below memory that is not gone.

        It is put into memory and the tiers above, with its own stamp and times (I7). With `lease`, the right
        to compute it is asked for in the same round trip, and if another process has it, its answer is
        waited for: see `LeaseActor.claim`. Give the lease back by `release`.
        """
        found = await self._read(key, namespace, lease) if self.floors else None
        assert found is None or isinstance(found, tuple)  # noqa: S101 - values are for `get`
        return found

    def join(self, key: bytes, namespace: str) -> Awaitable[bytes | str | Untaken] | None:
        """The value of a fresh entry of the first tier, read and taken into memory together with what others
        read now. `Untaken`, for `get` to go on with, if it is anything else. None, where `get` is to read.
        """
        floor = self._first
        tier_key = key if self._tier_key is None else self._tier_key(key)
        if floor is None or floor.writer.holds(tier_key):
            return None
        item = tier_key, namespace, key
        found = floor.reader.join(tier_key, floor.read_budget, item, namespace, self._may_join)
        floor.reads += found is not None
        return found

    def _may_join(self, namespace: str) -> bool:
        return self.floors[0].is_readable and self.markers.is_prepared(namespace)

    def _take(
        self, floor: Floor, found: list[tuple[bytes | None, tuple[bytes, str, bytes]]]
    ) -> list[bytes | str | Untaken]:
        """What those who joined get, for all of a batch at once."""
        holds, buffered = floor.writer.holds, floor.writer.get
        # What was written meanwhile is newer than what was read.
        newest = [
            (buffered(tier_key) if holds(tier_key) else envelope, namespace, key)
            for envelope, (tier_key, namespace, key) in found
        ]
        values = self._engine._promote_many(newest, self.wire.keyring, unpack_for_memory)
        floor.hits += len(values) - values.count(None)
        pairs = zip(values, newest, strict=True)
        return [Untaken(True, envelope) if value is None else value for value, (envelope, _, _) in pairs]

    async def get(
        self, key: bytes, namespace: str, first: Untaken | None = None
    ) -> tuple[Content, bytes | str] | None:
        """As `read`, of an entry that is fresh: its content type and payload. `first` came of `join`."""
        if first is not None and first.error is not None:
            self.floors[0].failed("read", first.error)
        found = await self._read(key, namespace, None, quick=True, first=first)
        if isinstance(found, tuple):
            entry, _ = found
            return (entry.content, entry.payload) if self._clock() < entry.fresh_until else None
        return None if found is None else ("text" if isinstance(found, str) else "bytes", found)

    async def _read(
        self,
        key: bytes,
        namespace: str,
        lease: Lease | None,
        *,
        quick: bool = False,
        first: Untaken | None = None,
    ) -> Found | bytes | str | None:
        """What `read` returns; or with `quick`, where that is less work, the value of a fresh entry. `first`
        is what the first tier has answered already."""
        current = await self.markers.prepare(namespace)
        if self._strict:
            # The engine did not serve what was not vouched for; now it may be.
            entry = self.peek(key, namespace)
            if entry is not None and self._clock() < entry.fresh_until:
                return entry, "memory"
            if not self.may_serve(namespace):
                return None
        tier_key = self.wire.tier_key(key)
        missed: list[Floor] = []
        for floor in self.floors:
            envelope, answered = floor.writer.get(tier_key), True
            if first is not None:
                answered, envelope, first = first.answered, envelope or first.found, None
            elif envelope is None:
                if not floor.is_readable or (floor is self.markers.authority and not current):
                    continue
                if lease is not None and floor is self._leasing:
                    claim = await self._claim(floor, key, namespace, lease)
                    answered, envelope = claim is not None or lease.held, claim
                else:
                    answered, envelope = await self._read_floor(floor, tier_key)
                # What was written meanwhile is newer than what was read.
                envelope = floor.writer.get(tier_key) or envelope
            if not answered and envelope is None:
                continue
            if not self.may_serve(namespace):
                return None  # the tier, or another process, was waited for beyond it
            if quick and envelope is not None and not missed:
                value = self._engine._promote(envelope, namespace, key, self.wire.keyring, unpack_for_memory)
                if value is not None:
                    floor.hits += 1
                    return value
            entry = None if envelope is None else self._checked(floor, envelope, namespace, key)
            if entry is None:
                missed.append(floor)
                continue
            floor.hits += 1
            return self._promote(entry, missed) or (entry, floor.tier.name)
        return None

    def _promote(self, entry: Entry, missed: Sequence[Floor]) -> Found | None:
        """Put an entry of a lower tier into memory and the tiers that do not have it. It is no news: nobody
        is told. What memory has got meanwhile, if that is newer, is returned and stays."""
        view = self._engine._peek(entry.key)
        if view is not None and view.epoch == entry.epoch and view.created > entry.created:
            return entry_of(view, entry.key, entry.namespace), "memory"
        self.put_memory(entry)
        missed = [floor for floor in missed if floor.writer.get(self.wire.tier_key(entry.key)) is None]
        self._write(missed, entry, journalled=False)
        return None

    async def _read_floor(self, floor: Floor, tier_key: bytes) -> tuple[bool, bytes | None]:
        """Whether the tier answered, and what."""
        floor.reads += 1
        try:
            return True, await floor.reader.get(tier_key, floor.tier.read_budget)
        except (TierError, TimeoutError) as error:
            floor.failed("read", error)
            return False, None

    def _checked(self, floor: Floor, envelope: bytes, namespace: str, key: bytes) -> Entry | None:
        entry, reason = self.wire.entry(envelope, namespace, key)
        if entry is None:
            floor.incident(reason)
            if reason in INCIDENTS:
                floor.tier.suspect()
            return None
        return entry if self._is_usable(entry) else None

    def _is_usable(self, entry: Entry) -> bool:
        return self._clock() < entry.stale_until and self.is_valid(entry)

    async def search(self, namespace: str, **conditions: Any) -> SearchPage:
        """What the last tier that can be searched finds, without what was invalidated.

        Raises:
            ConfigurationError: there is none, or a condition cannot be.
            TierError: it failed.
        """
        for floor in reversed(self.floors):
            tier: Any = floor.tier.inner
            if hasattr(tier, "search"):
                work = partial(tier.search, namespace, **conditions)
                page: SearchPage = await floor.tier.call("read", "search", work, budget=SEARCH_BUDGET)
                return page._replace(
                    rows=[row for row in page.rows if self._is_valid_stamp(row.namespace, row, row)]
                )
        raise ConfigurationError("no tier of this cache can be searched: add a postgresql:// tier")

    # -- leases ---------------------------------------------------------------------------------------

    async def _claim(
        self, floor: Floor, key: bytes, namespace: str, lease: Lease, *, there: bool = False
    ) -> bytes | None:
        def is_answer(envelope: bytes) -> bool:
            entry = self._checked(floor, envelope, namespace, key)
            return entry is not None and lease.is_answer(entry)

        assert floor.leases is not None  # noqa: S101 - made with `_leasing`
        floor.reads += 1
        claim = await floor.leases.claim(self.wire.tier_key(key), is_answer, there=there)
        lease.asked, lease.held, lease.there = True, claim.held, claim.envelope is not None
        if lease.there and not await self.markers.prepare(namespace) and floor is self.markers.authority:
            return None  # it may have been invalidated while it was waited for
        return claim.envelope

    async def claim(self, key: bytes, namespace: str, lease: Lease | None) -> Found | None:
        """After a `read` that found nothing of use: ask for the right to compute, if the tier that grants it
        was not asked: because it holds something, or because one above did. What another process stored, or
        None: compute."""
        floor = self._leasing
        if floor is None or lease is None or not floor.is_readable:
            return None
        current = lease.asked or await self.markers.prepare(namespace) or floor is not self.markers.authority
        for there in (True,) if lease.asked else (False, True):
            if lease.held or not current or there > lease.there:
                break
            envelope = await self._claim(floor, key, namespace, lease, there=there)
            entry = None if envelope is None else self._checked(floor, envelope, namespace, key)
            if entry is not None and lease.is_answer(entry) and self.may_serve(namespace):
                floor.hits += 1
                above = [each for each in self.floors[: self.floors.index(floor)] if each.is_open]
                return self._promote(entry, above) or (entry, floor.tier.name)
        return None

    def release(self, key: bytes, lease: Lease | None) -> None:
        """Give a lease back, as soon as what is buffered for its tier has been written: who is woken by it
        looks there. Returns at once."""
        if lease is not None and lease.held:
            lease.held = False
            self._tasks.start_soon(self._give_back, self._leasing, self.wire.tier_key(key))

    async def _give_back(self, floor: Floor, tier_key: bytes) -> None:
        assert floor.leases is not None  # noqa: S101 - made with `_leasing`
        await floor.writer.flush(LEASE)
        await floor.leases.release(tier_key)

    # -- validity -------------------------------------------------------------------------------------

    def may_serve(self, namespace: str) -> bool:
        """Whether entries of a namespace may be answers now: a strict cache serves what is vouched for."""
        return not self._strict or self.markers.is_vouched(namespace)

    def is_valid(self, entry: Entry) -> bool:
        """Whether no invalidation that is known here covers the entry."""
        return self._is_valid_stamp(entry.namespace, entry, entry.facts)

    def _is_valid_record(self, record: StoredRecord) -> bool:
        """As `is_valid`, of a buffered record. One that hides its facts is left to its readers to judge."""
        if record.namespace is None or record.facts is None:
            return True
        return self._is_valid_stamp(record.namespace, record, record.facts)

    def _is_valid_stamp(
        self, namespace: str, stored: Entry | StoredRecord | FoundRecord, facts: Facts | FoundRecord
    ) -> bool:
        targets = self._engine._entry_targets(
            namespace, stored.key, list(facts.tags), facts.label, list(facts.depends_on)
        )
        return self._engine._valid(targets[0], stored.epoch, stored.snap, targets, facts.label)

    def is_current(self, flight: Flight) -> bool:
        """Whether no invalidation that is known here came after a value began to be made, and covers it."""
        since, targets = flight.since, list(flight.targets)
        return since is None or self._engine._valid(flight.space, *since, targets, flight.label)

    # -- writing --------------------------------------------------------------------------------------

    def put_memory(self, entry: Entry) -> str:
        """Put an entry into L1; what became of it. Memory keeps no vector: the index does."""
        facts = without_vector(entry.facts)
        packed = pack_facts(facts)
        outcome = self._engine._insert(
            entry.key,
            stored_form(entry),
            entry.namespace,
            (facts.tags, facts.label, facts.depends_on, packed) if packed else None,
            entry.created,
            entry.fresh_until,
            entry.stale_until,
            entry.cost,
            entry.epoch,
            entry.snap,
        )
        if facts is not entry.facts and self.noted is not None and outcome in ("stored", "replaced"):
            self.noted(entry)
        return outcome

    def put(self, entry: Entry) -> tuple[str, Receipt | None]:
        """Put an entry into all tiers; what memory did with it, and the receipt of the write behind to the
        lower tiers, for `writers.kept`: None if it is not written."""
        outcome = self.put_memory(entry)
        if outcome in ("invalid", "older"):
            return outcome, None
        return outcome, self._write(self._usable(), entry)

    def _write(self, floors: Sequence[Floor], entry: Entry, *, journalled: bool = True) -> Receipt | None:
        if not floors or not self.markers.is_shared(entry.namespace):
            return None
        names = [floor.name for floor in floors]
        return self.writers.put_nowait(self.wire.record(entry), only=names, journalled=journalled)

    async def remove(self, key: bytes, namespace: str) -> bool:
        """Delete an entry everywhere, after it was invalidated; whether it was anywhere."""
        found = self._engine._remove(key)
        stamp = self._engine._stamp(self._engine._namespace_id(namespace))
        keys = [self.wire.tier_key(key)]
        found |= bool(self.writers.drop(keys))
        for floor in self._usable():
            try:
                await floor.writer.settled(keys)
                found |= bool(await floor.tier.delete_many(keys, stamp))
            except TierError as error:
                floor.failed("delete", error)
        return found

    async def expire(self, key: bytes, namespace: str) -> bool:
        """End an entry's freshness everywhere, keeping its stale window; whether there was one."""
        found = self._engine._expire(key)
        now = self._clock()
        tier_key = self.wire.tier_key(key)
        for floor in self._usable():
            envelope = floor.writer.get(tier_key) or (await self._read_floor(floor, tier_key))[1]
            entry = self._checked(floor, envelope, namespace, key) if envelope is not None else None
            if entry is not None:
                found = True
                self._write([floor], entry._replace(fresh_until=min(now, entry.fresh_until)))
        # Again: a read that was under way may have put it into memory while the tiers were asked.
        return self._engine._expire(key) or found

    def _usable(self) -> list[Floor]:
        return [floor for floor in self.floors if floor.is_open]
