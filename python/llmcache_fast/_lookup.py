"""The way below memory: reading the lower tiers, filling the upper ones, writing behind.

What belongs here: the order of the tiers, promotion, what a tier's failure means (nothing to the caller).
What does not: computing, waiting, what a caller gets (`_cache`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.abc

from llmcache_fast._answer import entry_of
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Entry, from_envelope, pack_facts, stored_form, to_envelope
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._floor import Floor
from llmcache_fast.actors.write_behind import WriteReport
from llmcache_fast.tiers.base import Authority, StoredRecord, Tier
from llmcache_fast.tiers.budget import within
from llmcache_fast.tiers.disk import DiskTier

_log = logging.getLogger("llmcache_fast")

SYNC_EVERY = 1.0
"""Seconds after which the markers of a namespace are asked for again before a lower tier is read."""


class Lookup:
    """The tiers below memory, fastest first."""

    def __init__(self, engine: Engine, tiers: Sequence[Tier], clock: Any) -> None:
        self._engine = engine
        self._clock = clock
        self.floors = [Floor(tier, clock) for tier in tiers]
        self._authority: Floor | None = None
        """The last tier that can root the clock, be it usable or not: two clocks would hide from each other
        what was invalidated by the other."""
        for floor in self.floors:
            if hasattr(floor.tier, "raise_markers"):
                self._authority = floor
        self._namespace = ""
        self._synced: dict[str, float] = {}
        """By namespace: when all markers of that moment were known here."""
        self._doubt = 0.0
        """The end of the last outage: what was known before is not enough."""
        self._ask_after = 0.0
        """The authority did not answer in time: until then nobody waits for it again."""
        self._asking: dict[str, anyio.Event] = {}
        self._tasks: Any = None
        self._heard: dict[str, tuple[int, int]] = {}
        """By namespace: epoch and seq up to which all the authority's markers are known here. Not the clock's
        own seq: an invalidation made here moves that past markers of other processes not yet asked for."""
        self._adopted: set[str] = set()
        self._deferred: list[tuple[str, list[int]]] = []

    async def open(self, tasks: anyio.abc.TaskGroup, namespace: str) -> None:
        """Open the tiers and start their actors. A tier that does not open joins when it does."""
        self._tasks, self._namespace = tasks, namespace
        try:
            async with anyio.create_task_group() as starting:
                for floor in self.floors:
                    catch_up = partial(self._catch_up, floor)
                    run = partial(floor.run, tasks, catch_up, self._is_valid_record)
                    starting.start_soon(tasks.start, run)
        except ExceptionGroup as group:
            # An option that cannot work, found out on opening; one of them will do.
            raise group.exceptions[0] from None
        await self.prepare(namespace)

    async def aclose(self, timeout: float) -> dict[str, WriteReport]:
        """Drain what is buffered, at most `timeout` seconds, and close the tiers, all at once."""
        reports = {}

        async def close(floor: Floor) -> None:
            if floor.is_open:
                reports[floor.tier.name] = await floor.writer.aclose(timeout)
            await floor.aclose()

        async with anyio.create_task_group() as closing:
            for floor in self.floors:
                closing.start_soon(close, floor)
        return reports

    async def flush(self, timeout: float | None) -> dict[str, WriteReport]:
        """Wait until all that is buffered now is written or given up."""
        return {floor.tier.name: await floor.writer.flush(timeout) for floor in self._usable()}

    # -- clocks and markers ---------------------------------------------------------------------------

    async def prepare(self, namespace: str) -> bool:
        """Know the namespace's clock and markers, as of `SYNC_EVERY` seconds ago or later.

        Waits for the authority at most its read budget, and not again until it answers. False: it has not
        answered since its last outage, or has used up its time; its entries are not to be read now.
        """
        floor = self._authority
        if floor is None:
            return True
        now = anyio.current_time()
        if self._synced.get(namespace, -1.0) >= max(now - SYNC_EVERY, self._doubt):
            return True
        if not floor.is_open or floor.tier.breaker("markers").state != "closed" or now < self._ask_after:
            return False
        asking = self._asking.get(namespace)
        if asking is None:
            # One for all who come meanwhile, and a task of the cache: no caller's cancellation stops it.
            asking = self._asking[namespace] = anyio.Event()
            self._tasks.start_soon(self._ask_for_all, floor, namespace, asking)
        if not await within(floor.tier.read_budget, asking):
            floor.failed("markers", TimeoutError())
            self._ask_after = anyio.current_time() + floor.tier.read_budget
            return False
        return self._synced.get(namespace, -1.0) >= self._doubt

    async def _ask_for_all(self, floor: Floor, namespace: str, done: anyio.Event) -> None:
        try:
            await self._ask(floor, namespace)
        finally:
            del self._asking[namespace]
            done.set()

    async def _ask(self, floor: Floor, namespace: str) -> bool:
        """Ask the authority for clock and markers of a namespace; whether it answered."""
        authority: Any = floor.tier
        space = self._engine._namespace_id(namespace)
        now = anyio.current_time()
        try:
            await self._deliver(authority)
            heard_epoch, heard = self._heard.get(namespace, (0, 0))
            epoch, seq = await authority.epoch(space)
            # Markers first: a snap that runs ahead of its markers would hide them.
            since = heard if epoch == heard_epoch else 0
            markers = await authority.markers_since(space, since)
        except TierError as error:
            floor.failed("markers", error)
            return False
        self._engine._adopt(space, epoch, 0)
        for target, marked in markers:
            self._engine._raise(space, [target], marked)
        self._engine._adopt(space, epoch, seq)
        self._adopted.add(namespace)
        self._heard[namespace] = epoch, seq
        self._synced[namespace] = now
        return True

    async def _catch_up(self, floor: Floor) -> bool:
        """Ask for all markers anew after an outage of `floor`; whether all are known that can be."""
        authority = self._authority
        if authority is None or (authority is not floor and not authority.is_readable):
            return True
        self._doubt = anyio.current_time()
        for namespace in {self._namespace, *self._adopted}:
            if not await self._ask(authority, namespace):
                return False
        return True

    async def raise_markers(self, namespace: str, targets: list[int]) -> bool:
        """Invalidate. False when the authority could not be told: it is told before anything else later."""
        space = self._engine._namespace_id(namespace)
        floor = self._authority
        if floor is None:
            self._engine._raise(space, targets)
            return True
        if not floor.is_open:
            self._engine._raise(space, targets)
            self._deferred.append((namespace, targets))
            return False
        authority: Any = floor.tier
        try:
            await self._deliver(authority)
            epoch, seq = await authority.raise_markers(space, targets)
        except TierError as error:
            floor.failed("invalidate", error)
            self._engine._raise(space, targets)
            self._deferred.append((namespace, targets))
            return False
        except BaseException:
            # Cancelled: the authority may have done it, so it holds here too.
            self._engine._raise(space, targets)
            raise
        self._engine._adopt(space, epoch, 0)
        self._engine._raise(space, targets, seq)
        self._adopted.add(namespace)
        return True

    async def _deliver(self, authority: Authority) -> None:
        while self._deferred:
            first = namespace, targets = self._deferred[0]
            space = self._engine._namespace_id(namespace)
            epoch, seq = await authority.raise_markers(space, targets)
            self._engine._adopt(space, epoch, 0)
            self._engine._raise(space, targets, seq)
            # Another task may have delivered it meanwhile, and more.
            if self._deferred and self._deferred[0] is first:
                self._deferred.pop(0)

    # -- entries --------------------------------------------------------------------------------------

    async def read(self, key: bytes, namespace: str) -> tuple[Entry, str] | None:
        """The first valid entry below memory that is not gone, and the name of its tier.

        It is put into memory and the tiers above, with its own stamp and times (I7).
        """
        if not self.floors:
            return None
        current = await self.prepare(namespace)
        missed: list[Floor] = []
        for floor in self.floors:
            envelope = floor.writer.get(key)
            if envelope is None:
                if not floor.is_readable or (floor is self._authority and not current):
                    continue
                answered, envelope = await self._read_floor(floor, key)
                # What was written meanwhile is newer than what was read.
                envelope = floor.writer.get(key) or envelope
                if not answered and envelope is None:
                    continue
            entry = None if envelope is None else self._checked(floor, envelope, namespace, key)
            if entry is None:
                missed.append(floor)
                continue
            floor.hits += 1
            return self._promote(entry, missed) or (entry, floor.tier.name)
        return None

    def _promote(self, entry: Entry, missed: Sequence[Floor]) -> tuple[Entry, str] | None:
        """Put an entry of a lower tier into memory and the tiers that do not have it. It is no news: nobody
        is told. What memory has got meanwhile, if that is newer, is returned and stays."""
        view = self._engine._peek(entry.key)
        if view is not None and view.epoch == entry.epoch and view.created > entry.created:
            return entry_of(view, entry.key, entry.namespace), "memory"
        self.put_memory(entry)
        for floor in missed:
            if floor.writer.get(entry.key) is None:
                self._write(floor, entry)
        return None

    async def _read_floor(self, floor: Floor, key: bytes) -> tuple[bool, bytes | None]:
        """Whether the tier answered, and what."""
        floor.reads += 1
        try:
            return True, await floor.reader.get(key, floor.tier.read_budget)
        except (TierError, TimeoutError) as error:
            floor.failed("read", error)
            return False, None

    def _checked(self, floor: Floor, envelope: bytes, namespace: str, key: bytes) -> Entry | None:
        entry, reason = from_envelope(envelope, namespace, key)
        if entry is None:
            floor.incidents[reason] += 1
            if reason in ("wrong_namespace", "wrong_fingerprint"):
                floor.tier.suspect()
            _log.warning("tier %s: a record was not what was asked for (%s)", floor.tier.name, reason)
            return None
        if self._clock() >= entry.stale_until or not self.is_valid(entry):
            return None
        return entry

    def is_valid(self, entry: Entry) -> bool:
        """Whether no invalidation that is known here covers the entry."""
        facts = entry.facts
        targets = self._engine._entry_targets(
            entry.namespace, entry.key, list(facts.tags), facts.label, list(facts.depends_on)
        )
        return self._engine._valid(targets[0], entry.epoch, entry.snap, targets)

    def _is_valid_record(self, record: StoredRecord) -> bool:
        """As `is_valid`, of a buffered record. One that hides its facts is left to its readers to judge."""
        if record.namespace is None or record.facts is None:
            return True
        facts = record.facts
        targets = self._engine._entry_targets(
            record.namespace, record.key, list(facts.tags), facts.label, list(facts.depends_on)
        )
        return self._engine._valid(targets[0], record.epoch, record.snap, targets)

    def put_memory(self, entry: Entry) -> str:
        """Put an entry into L1; what became of it."""
        facts = entry.facts
        return self._engine._insert(
            entry.key,
            stored_form(entry),
            namespace=entry.namespace,
            tags=list(facts.tags),
            label=facts.label,
            versions=list(facts.depends_on),
            facts=pack_facts(facts),
            created=entry.created,
            fresh_until=entry.fresh_until,
            stale_until=entry.stale_until,
            cost=entry.cost,
            epoch=entry.epoch,
            snap=entry.snap,
        )

    def put(self, entry: Entry) -> str:
        """Put an entry into all tiers; what memory did with it. Lower tiers are written behind."""
        outcome = self.put_memory(entry)
        if outcome not in ("invalid", "older"):
            for floor in self._usable():
                self._write(floor, entry)
        return outcome

    def _write(self, floor: Floor, entry: Entry) -> None:
        # Before the authority was heard, a stamp is of an epoch that nobody else knows.
        if floor.is_open and (self._authority is None or entry.namespace in self._adopted):
            floor.writer.put_nowait(
                StoredRecord(
                    entry.key,
                    to_envelope(entry),
                    entry.epoch,
                    entry.snap,
                    entry.stale_until,
                    entry.cost,
                    entry.created,
                    entry.fresh_until,
                    entry.namespace,
                    entry.facts,
                )
            )

    async def remove(self, key: bytes, namespace: str) -> bool:
        """Delete an entry everywhere, after it was invalidated; whether it was anywhere."""
        found = self._engine._remove(key)
        stamp = self._engine._stamp(self._engine._namespace_id(namespace))
        for floor in self._usable():
            found |= bool(floor.writer.drop([key]))
            try:
                await floor.writer.settled([key])
                found |= bool(await floor.tier.delete_many([key], stamp))
            except TierError as error:
                floor.failed("delete", error)
        return found

    async def expire(self, key: bytes, namespace: str) -> bool:
        """End an entry's freshness everywhere, keeping its stale window; whether there was one."""
        found = self._engine._expire(key)
        now = self._clock()
        for floor in self._usable():
            envelope = floor.writer.get(key) or (await self._read_floor(floor, key))[1]
            entry = self._checked(floor, envelope, namespace, key) if envelope is not None else None
            if entry is not None:
                found = True
                self._write(floor, entry._replace(fresh_until=min(now, entry.fresh_until)))
        # Again: a read that was under way may have put it into memory while the tiers were asked.
        return self._engine._expire(key) or found

    def _usable(self) -> list[Floor]:
        return [floor for floor in self.floors if floor.is_open]


def tiers_of(tiers: Sequence[str | Tier], clock: Clock) -> list[Tier]:
    """The tiers that addresses name; objects are taken as they are.

    Raises:
        ConfigurationError: no list, or an address of no tier of this version.
    """
    if isinstance(tiers, str) or not isinstance(tiers, Iterable):
        raise ConfigurationError("tiers: must be a list, such as ['disk:///var/lib/app/cache']")
    return [_tier_of(tier, clock) if isinstance(tier, str) else tier for tier in tiers]


def _tier_of(address: str, clock: Clock) -> Tier:
    scheme = address.split(":", 1)[0]
    if scheme == "disk":
        return DiskTier.from_url(address, clock=clock)
    raise ConfigurationError(f"tiers: {scheme!r} is no tier of this version; known is disk:///absolute/path")
