"""The way below memory: reading the lower tiers, filling the upper ones, writing behind.

What belongs here: the order of the tiers, promotion, what a tier's failure means (nothing to the caller).
What does not: computing, waiting, what a caller gets (`_cache`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import anyio
import anyio.abc

from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Entry, from_envelope, pack_facts, stored_form, to_envelope
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._stats import TierStats
from llmcache_fast.actors.reader import ReadActor, within
from llmcache_fast.actors.write_behind import WriteBehind, WriteReport
from llmcache_fast.tiers.base import Authority, StoredRecord, Tier
from llmcache_fast.tiers.disk import DiskTier

_log = logging.getLogger("llmcache_fast")

READ_BUDGET = 0.25
"""Seconds a read of a lower tier may take before the caller goes on without it (I6)."""
ASK_LIMIT = 5.0
"""Seconds after which asking for markers is given up, for the next caller to try again."""
SYNC_EVERY = 1.0
"""Seconds after which the markers of a namespace are asked for again before a lower tier is read."""
PURGE_EVERY = 60.0
"""Seconds between two clean-ups of a tier."""


class Floor:
    """One tier below memory with its actors and counts."""

    def __init__(self, tier: Tier, clock: Any) -> None:
        self.tier = tier
        self.reader = ReadActor(tier)
        self.writer = WriteBehind(tier, clock=clock)
        self.available = False
        self.reads = self.hits = self.errors = 0
        self.incidents: Counter[str] = Counter()

    def statistics(self) -> TierStats:
        writes = self.writer.statistics()
        return TierStats(
            name=self.tier.name,
            available=self.available,
            reads=self.reads,
            hits=self.hits,
            errors=self.errors,
            incidents=dict(self.incidents),
            writes={name: getattr(writes, name) for name in writes.__slots__},
        )

    def failed(self, operation: str, error: BaseException) -> None:
        """Count a failure; log the first of a row."""
        self.errors += 1
        reason = getattr(error, "reason", "") or type(error).__name__
        level = logging.WARNING if self.errors == 1 else logging.DEBUG
        _log.log(level, "tier %s: %s failed (%s); going on without it", self.tier.name, operation, reason)


class Lookup:
    """The tiers below memory, fastest first."""

    def __init__(self, engine: Engine, tiers: Sequence[Tier], clock: Any) -> None:
        self._engine = engine
        self._clock = clock
        self.floors = [Floor(tier, clock) for tier in tiers]
        self._synced: dict[str, float] = {}
        self._asking: dict[str, anyio.Event] = {}
        self._tasks: Any = None
        self._heard: dict[str, tuple[int, int]] = {}
        """By namespace: epoch and seq up to which all the authority's markers are known here. Not the clock's
        own seq: an invalidation made here moves that past markers of other processes not yet asked for."""
        self._adopted: set[str] = set()
        self._deferred: list[tuple[str, list[int]]] = []

    async def open(self, tasks: anyio.abc.TaskGroup, namespace: str) -> None:
        """Open the tiers and start their actors. A tier that does not open is left out, with a log line."""
        self._tasks = tasks
        for floor in self.floors:
            try:
                await floor.tier.open()
            except TierError as error:
                floor.errors += 1
                _log.warning("tier %s cannot be used, going on without it: %s", floor.tier.name, error)
                continue
            floor.available = True
            await tasks.start(floor.reader.run)
            await tasks.start(floor.writer.run)
            tasks.start_soon(self._keep_clean, floor)
        await self.prepare(namespace)

    async def aclose(self, timeout: float) -> dict[str, WriteReport]:
        """Drain what is buffered, at most `timeout` seconds, and close the tiers."""
        reports = {}
        for floor in self.floors:
            if floor.available:
                reports[floor.tier.name] = await floor.writer.aclose(timeout)
                floor.available = False
                try:
                    await floor.tier.aclose()
                except TierError as error:
                    floor.failed("close", error)
        return reports

    async def flush(self, timeout: float | None) -> dict[str, WriteReport]:
        """Wait until all that is buffered now is written or given up."""
        return {floor.tier.name: await floor.writer.flush(timeout) for floor in self._usable()}

    # -- clocks and markers ---------------------------------------------------------------------------

    async def prepare(self, namespace: str) -> None:
        """Know the namespace's clock and markers, as of `SYNC_EVERY` seconds ago or later."""
        floor = self._authority()
        if floor is None:
            return
        now = anyio.current_time()
        last = self._synced.get(namespace)
        if last is not None and now - last < SYNC_EVERY:
            return
        asking = self._asking.get(namespace)
        if asking is None:
            # One for all who come meanwhile, and a task of the cache: no caller's cancellation stops it.
            asking = self._asking[namespace] = anyio.Event()
            self._tasks.start_soon(self._ask, floor, namespace, now, asking)
        if not await within(READ_BUDGET, asking):
            floor.failed("markers", TimeoutError())

    async def _ask(self, floor: Floor, namespace: str, now: float, done: anyio.Event) -> None:
        authority: Any = floor.tier
        space = self._engine._namespace_id(namespace)
        try:
            with anyio.fail_after(ASK_LIMIT):
                await self._deliver(authority)
                heard_epoch, heard = self._heard.get(namespace, (0, 0))
                epoch, seq = await authority.epoch(space)
                # Markers first: a snap that runs ahead of its markers would hide them.
                since = heard if epoch == heard_epoch else 0
                markers = await authority.markers_since(space, since)
            self._engine._adopt(space, epoch, 0)
            for target, marked in markers:
                self._engine._raise(space, [target], marked)
            self._engine._adopt(space, epoch, seq)
            self._adopted.add(namespace)
            self._heard[namespace] = epoch, seq
            self._synced[namespace] = now
        except Exception as error:  # noqa: BLE001 - whatever a tier raises must not end the cache's tasks
            floor.failed("markers", error)
        finally:
            del self._asking[namespace]
            done.set()

    async def raise_markers(self, namespace: str, targets: list[int]) -> bool:
        """Invalidate. False when the authority could not be told: it is told before anything else later."""
        space = self._engine._namespace_id(namespace)
        floor = self._authority()
        if floor is None:
            self._engine._raise(space, targets)
            return True
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
            namespace, targets = self._deferred[0]
            space = self._engine._namespace_id(namespace)
            epoch, seq = await authority.raise_markers(space, targets)
            self._engine._adopt(space, epoch, 0)
            self._engine._raise(space, targets, seq)
            self._deferred.pop(0)

    # -- entries --------------------------------------------------------------------------------------

    async def read(self, key: bytes, namespace: str) -> tuple[Entry, str] | None:
        """The first valid entry below memory that is not gone, and the name of its tier.

        It is put into memory and the tiers above, with its own stamp and times (I7).
        """
        if not self.floors:
            return None
        await self.prepare(namespace)
        for index, floor in enumerate(self.floors):
            if not floor.available:
                continue
            envelope = floor.writer.get(key)
            if envelope is None:
                envelope = await self._read_floor(floor, key)
                # What was written meanwhile is newer than what was read.
                envelope = floor.writer.get(key) or envelope
            if envelope is None:
                continue
            entry = self._checked(floor, envelope, namespace, key)
            if entry is None:
                continue
            floor.hits += 1
            self.put_memory(entry)
            for upper in self.floors[:index]:
                self._write(upper, entry)
            return entry, floor.tier.name
        return None

    async def _read_floor(self, floor: Floor, key: bytes) -> bytes | None:
        floor.reads += 1
        try:
            return await floor.reader.get(key, READ_BUDGET)
        except (TierError, TimeoutError) as error:
            floor.failed("read", error)
            return None

    def _checked(self, floor: Floor, envelope: bytes, namespace: str, key: bytes) -> Entry | None:
        entry, reason = from_envelope(envelope, namespace, key)
        if entry is None:
            floor.incidents[reason] += 1
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
        if floor.available and (self._authority() is None or entry.namespace in self._adopted):
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
            envelope = floor.writer.get(key) or await self._read_floor(floor, key)
            entry = self._checked(floor, envelope, namespace, key) if envelope is not None else None
            if entry is not None:
                found = True
                self._write(floor, entry._replace(fresh_until=min(now, entry.fresh_until)))
        # Again: a read that was under way may have put it into memory while the tiers were asked.
        return self._engine._expire(key) or found

    async def _keep_clean(self, floor: Floor) -> None:
        while True:
            await anyio.sleep(PURGE_EVERY)
            try:
                while floor.available and await floor.tier.purge(self._clock()) >= 1000:  # noqa: ASYNC110 - a pace
                    await anyio.sleep(0.05)  # between two batches, so that writers get in
            except TierError as error:
                floor.failed("purge", error)

    def _usable(self) -> list[Floor]:
        return [floor for floor in self.floors if floor.available]

    def _authority(self) -> Floor | None:
        """The last usable tier that can root the clock."""
        for floor in reversed(self.floors):
            if floor.available and hasattr(floor.tier, "raise_markers"):
                return floor
        return None


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
    if scheme in ("postgresql", "postgres"):
        return _postgres_tier(address)
    raise ConfigurationError(f"tiers: {scheme!r} is no tier of this version; known is disk:///absolute/path")


def _postgres_tier(address: str) -> Tier:
    try:
        from llmcache_fast.tiers.postgres import PostgresTier
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"tiers: a postgresql:// tier needs {missing.name}: pip install 'llmcache-fast[postgres]'"
        ) from None
    return PostgresTier.from_url(address)
