"""Planted bugs: each changes the real code so that a promise does not hold, and must be found.

To add one: a context manager here, that says what is wrong, under its name in `BUGS`; `test_bugs` runs all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import anyio

from llmcache_fast import LLMCache
from llmcache_fast._entry import from_envelope
from llmcache_fast._errors import TierError
from llmcache_fast._knowledge import Knowledge, Known
from llmcache_fast._lookup import Lookup
from llmcache_fast._markers import Markers
from llmcache_fast._storing import Stamped, Storing
from llmcache_fast._untold import Untold
from llmcache_fast._wire import Wire
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights
from llmcache_fast.actors.journal import Journal
from llmcache_fast.actors.ledger import Ledger
from llmcache_fast.actors.pending import Pending
from llmcache_fast.actors.write_behind import WriteBehind

Bug = Callable[[], AbstractContextManager[Any]]


def _validity_ignored_below() -> AbstractContextManager[Any]:
    """What is found below memory is judged by its age alone."""

    def is_usable(self: Lookup, entry: Any) -> bool:
        return bool(self._clock() < entry.stale_until)

    return mock.patch.multiple(Lookup, _is_usable=is_usable)


def _snap_after_computation() -> AbstractContextManager[Any]:
    """The clock is read when the value is there."""
    keep = Storing.keep

    def late(
        self: Storing,
        flight: Flight,
        computed: Any,
        kind: Any,
        options: Any,
        stamped: Any,
        *rest: Any,
        **more: Any,
    ) -> Any:
        now = Stamped(*self._engine._stamp(flight.space), stamped.started)
        return keep(self, flight, computed, kind, options, now, *rest, **more)

    return mock.patch.object(Storing, "keep", late)


@contextmanager
def _applied_after_acknowledging() -> Iterator[None]:
    """The process that invalidates believes it 30 ms later."""
    tell = Markers._tell

    async def tell_late(self: Markers, *arguments: Any) -> Any:
        engine = self._engine
        late: list[Any] = []
        with mock.patch.object(self, "_engine", _Late(engine, late)):
            result = await tell(self, *arguments)
        for work in late:
            asyncio.get_running_loop().call_later(0.03, work)
        return result

    with mock.patch.object(Markers, "_tell", tell_late):
        yield


class _Late:
    """An engine that puts raising off."""

    def __init__(self, engine: Any, late: list[Any]) -> None:
        self._engine, self._late_work = engine, late

    def __getattr__(self, name: str) -> Any:
        if name == "_raise":
            return lambda *arguments, **more: self._late_work.append(
                partial(self._engine._raise, *arguments, **more)
            )
        return getattr(self._engine, name)


def _gap_not_detected() -> AbstractContextManager[Any]:
    """Each message is taken for the next one."""

    def hear(self: Known, message: Any) -> str:
        if message.epoch != self.epoch or not self.asked:
            return "gap"
        if message.seq <= self.seq:
            return "old"
        self.seq = message.seq
        return "next"

    return mock.patch.object(Known, "hear", hear)


def _own_raise_skips_others() -> AbstractContextManager[Any]:
    """An own invalidation is taken to say that all before it is known."""

    def raised(self: Known, raised: Any, sent: float, now: float) -> bool:
        if not self._enter(raised.epoch, sent, now):
            return False
        self.seq = max(self.seq, raised.seq)
        return True

    return mock.patch.object(Known, "raised", raised)


@contextmanager
def _lease_by_wall_clock() -> Iterator[None]:
    """The lease is measured with a clock that may be set back."""
    ask = Markers._ask

    async def asked(self: Markers, floor: Any, all_known: Any) -> bool:
        spaces = list(all_known)
        result = await ask(self, floor, spaces)
        if result:
            for known in spaces:
                known_at[id(self), known.namespace] = self._clock()
        return result

    known_at: dict[tuple[int, str], int] = {}

    def is_vouched(self: Markers, namespace: str) -> bool:
        if self.authority is None:
            return True
        at = known_at.get((id(self), namespace))
        return at is not None and self._clock() <= at + self._knowledge.lease * 1e6

    with mock.patch.object(Markers, "_ask", asked), mock.patch.object(Markers, "is_vouched", is_vouched):
        yield


def _always_vouched() -> AbstractContextManager[Any]:
    """Nobody looks at when the authority was heard last."""
    return mock.patch.object(Knowledge, "vouched", return_value=True)


def _epoch_ignored() -> AbstractContextManager[Any]:
    """A clock that began anew is taken for the old one."""
    adopt = LLMCache._adopt

    def adopted(self: LLMCache, space: int, epoch: int, seq: int) -> None:
        mine = epochs.setdefault((id(self), space), epoch)
        adopt(self, space, mine, seq)

    epochs: dict[tuple[int, int], int] = {}
    return mock.patch.object(LLMCache, "_adopt", adopted, create=True)


def _deferred_by_local_clock() -> AbstractContextManager[Any]:
    """What the authority cannot be told is a marker by this process's own clock."""

    def add(self: Untold, engine: Any, known: Any, targets: Any, patterns: Any) -> None:
        self._targets |= set(targets)
        self._patterns |= set(patterns)
        engine._raise(known.space, list(targets), rules=list(patterns))

    def told(self: Untold, engine: Any, known: Any, seq: int) -> None:
        engine._raise(known.space, list(self._under_way[0]), seq)
        self._under_way = frozenset(), frozenset()

    return mock.patch.multiple(Untold, add=add, told=told)


@contextmanager
def _deferred_never_delivered() -> Iterator[None]:
    """What the authority could not be told, it is never told."""

    async def deliver(self: Markers) -> None:
        pass

    with mock.patch.object(Markers, "_deliver", deliver):
        yield


@contextmanager
def _deferred_not_hidden() -> Iterator[None]:
    """What the authority could not be told does not hold here either."""

    def add(self: Untold, engine: Any, known: Any, targets: Any, patterns: Any) -> None:
        self._targets |= set(targets)
        self._patterns |= set(patterns)

    with mock.patch.object(Untold, "add", add):
        yield


def _promotion_rejuvenates() -> AbstractContextManager[Any]:
    """What is found below lives anew."""
    promote = Lookup._promote

    def younger(self: Lookup, entry: Any, missed: Any) -> Any:
        return promote(self, entry._replace(created=self._clock()), missed)

    return mock.patch.object(Lookup, "_promote", younger)


def _identity_not_checked() -> AbstractContextManager[Any]:
    """A record of another request is taken for the answer."""
    entry_of = Wire.entry

    def entry(self: Wire, envelope: bytes, namespace: str, key: bytes) -> Any:
        found, reason = entry_of(self, envelope, namespace, key)
        if reason == "wrong_fingerprint":
            for at in range(len(envelope) - 32):
                other = from_envelope(envelope, namespace, envelope[at : at + 32])[0]
                if other is not None:
                    return other._replace(key=key), ""
        return found, reason

    return mock.patch.object(Wire, "entry", entry)


def _empty_answers_stored() -> AbstractContextManager[Any]:
    """Whatever was computed is kept."""
    return mock.patch.object(Storing, "_admitted", return_value=True)


def _tier_failure_raised() -> AbstractContextManager[Any]:
    """A tier that cannot be read fails the call."""

    async def read(self: Lookup, floor: Any, tier_key: bytes) -> Any:
        try:
            return True, await floor.reader.get(tier_key, floor.tier.read_budget)
        except TimeoutError as error:
            raise TierError("late", tier=floor.tier.name) from error

    return mock.patch.object(Lookup, "_read_floor", read)


def _failure_not_told() -> AbstractContextManager[Any]:
    """Who waits for a computation that fails waits for ever."""
    land = Flight.land

    def landed(self: Flight, value: Any = None, error: BaseException | None = None) -> bool:
        if error is not None and type(error).__name__ == "PlannedError":
            return False
        return land(self, value, error)

    return mock.patch.object(Flight, "land", landed)


def _flights_not_shared() -> AbstractContextManager[Any]:
    """Each caller computes."""
    return mock.patch.object(Flights, "get", return_value=None)


@contextmanager
def _newest_write_dropped() -> Iterator[None]:
    """A write that waits is not replaced by a newer one."""
    put = WriteBehind.put_nowait

    def put_nowait(self: WriteBehind, record: Any, receipt: Any = None) -> bool:
        if record.key in self._items:
            self._tell(Pending(record, 0, receipt), "superseded")
            return False
        return put(self, record, receipt)

    with mock.patch.object(WriteBehind, "put_nowait", put_nowait):
        yield


@contextmanager
def _replay_stamps_anew() -> Iterator[None]:
    """What comes back from the journal gets the stamp of now."""
    init, back = Lookup.__init__, Ledger._back
    lookups: dict[int, Lookup] = {}

    def made(self: Lookup, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        lookups[id(self.writers._ledger)] = self

    async def again(self: Ledger, record: Any, receipt: Any, name: str) -> None:
        lookup = lookups[id(self)]
        entry = from_envelope(record.envelope, record.namespace, record.key)[0]
        if entry is not None:
            await anyio.sleep(0.3)  # until the clock is known
            epoch, snap = lookup._engine._stamp(lookup._engine._namespace_id(entry.namespace))
            record = lookup.wire.record(entry._replace(epoch=epoch, snap=snap))
        await back(self, record, receipt, name)

    with mock.patch.object(Lookup, "__init__", made), mock.patch.object(Ledger, "_back", again):
        yield


def _acknowledged_before_synced() -> AbstractContextManager[Any]:
    """The journal says that it has on the disk what it will write next."""

    async def durable(self: Journal, number: int) -> bool:
        return True

    return mock.patch.object(Journal, "durable", durable)


BUGS: dict[str, Bug] = {
    "validity ignored below memory": _validity_ignored_below,
    "snap read after the computation": _snap_after_computation,
    "marker applied after acknowledging": _applied_after_acknowledging,
    "gap not detected": _gap_not_detected,
    "own raise skips those of others": _own_raise_skips_others,
    "lease by the wall clock": _lease_by_wall_clock,
    "always vouched for": _always_vouched,
    "epoch change ignored": _epoch_ignored,
    "deferred by the local clock": _deferred_by_local_clock,
    "deferred and never delivered": _deferred_never_delivered,
    "deferred and not hidden": _deferred_not_hidden,
    "promotion with a new age": _promotion_rejuvenates,
    "identity not checked": _identity_not_checked,
    "empty answers stored": _empty_answers_stored,
    "tier failure raised": _tier_failure_raised,
    "failure not told": _failure_not_told,
    "flights not shared": _flights_not_shared,
    "newest write dropped": _newest_write_dropped,
    "journal replay with a new stamp": _replay_stamps_anew,
    "acknowledged before it is synced": _acknowledged_before_synced,
}
"""By name."""
