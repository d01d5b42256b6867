"""Storing: what becomes of a value that was computed or given.

What belongs here: encoding it, its lifetime and cost, admission, and what is counted when it is not stored.
What does not: computing it (`_computing`), the tiers (`_lookup`).
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from llmcache_fast._answer import Landing
from llmcache_fast._codec import encode
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Computed, Content, Entry, Facet, Facts
from llmcache_fast._errors import ConfigurationError, UnstorableValueError
from llmcache_fast._freshness import lifetime
from llmcache_fast._lookup import Lookup
from llmcache_fast._options import UNSET, CallOptions, Options, names, seconds
from llmcache_fast._usage import PriceTable
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights
from llmcache_fast.actors.ledger import Receipt


class Stamped(NamedTuple):
    """When a computation began, by the two clocks that matter to its entry."""

    epoch: int
    snap: int
    started: int
    """Microseconds since 1970."""


class _Form(NamedTuple):
    """A value made ready: nothing of it can fail any more."""

    content: Content
    payload: bytes | str
    ttl: float | None
    tags: tuple[str, ...]


class Storing:
    """Puts values into the tiers, if they may be stored."""

    def __init__(
        self,
        engine: Engine,
        lookup: Lookup,
        flights: Flights,
        options: Options,
        *,
        clock: Clock,
        admit: Callable[[Any], bool],
        prices: PriceTable,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._lookup = lookup
        self._flights = flights
        self._options = options
        self._clock = clock
        self._admit = admit
        self._prices = prices
        self._rng = rng
        self.stored = 0
        """Values that memory took."""
        self.not_stored: Counter[str] = Counter()
        """By reason."""

    def targets(self, key: bytes, namespace: str, options: CallOptions) -> list[int]:
        """All targets by which an entry of this call can be invalidated; the first is its namespace."""
        return self._engine._entry_targets(
            namespace, key, list(options.tags), options.label, list(options.depends_on)
        )

    def add_targets(self, flight: Flight, options: CallOptions) -> bool:
        """A caller that joins brings its own tags and versions: the entry must go with any of them.

        False: one of them was invalidated, and the authority could not be told yet, so nobody can say whether
        the flight began before. An entry has one label, that of the caller who started its flight.
        """
        tags = tuple(tag for tag in options.tags if tag not in flight.tags)
        versions = tuple(name for name in options.depends_on if name not in flight.depends_on)
        if tags or versions:
            flight.tags += tags
            flight.depends_on += versions
            named = self._engine._named_targets(flight.namespace, tags=list(tags), versions=list(versions))
            flight.targets.update(named)
            # What starts now is not covered by any marker, only by what is deferred.
            return self._engine._valid(flight.space, *self._engine._stamp(flight.space), named)
        return True

    def keep(
        self,
        flight: Flight,
        computed: Computed[Any],
        kind: Any,
        options: CallOptions,
        stamped: Stamped,
        content: Content | None = None,
        *,
        here: bool = True,
    ) -> Landing:
        """Store a computed value if it may be, and make it what the waiters get.

        `here`: in the event loop of the lower tiers; elsewhere it is kept in memory only.
        """
        try:
            form = self._form(computed, kind, flight.tags, options)
        except (UnstorableValueError, ConfigurationError) as error:
            # Nothing that was paid for is lost: the callers get it, and the program is told.
            self.not_stored["unstorable"] += 1
            warnings.warn(f"a computed value was not stored: {error}", RuntimeWarning, stacklevel=2)
            return Landing(None, computed.value, "miss", None)
        entry = self._entry(flight, form, computed, options, stamped, content)
        self._store(flight, entry, computed, options, form.ttl, here)
        return Landing(entry, None, "miss", None)

    async def put(
        self,
        key: bytes,
        namespace: str,
        computed: Computed[Any],
        kind: Any,
        options: CallOptions,
        facet: Facet | None = None,
    ) -> bool:
        """Store a value that the caller has; whether memory took it, or where the cache promises more than
        memory, whether it is as durable as that.

        Raises:
            UnstorableValueError: it cannot be stored so that a hit returns the same.
            ConfigurationError: one of its own options cannot work.
            TierUnavailableError: it is not durable, and the cache is strict.
        """
        form = self._form(computed, kind, options.tags, options)
        targets = self.targets(key, namespace, options)
        late = self._engine._named_targets(namespace, tags=list(form.tags))
        flight = Flight(key, namespace, targets[0], 0, {*targets, *late}, options.tags)
        flight.label, flight.facet = options.label, facet
        if self._lookup.markers.is_shared(namespace):
            flight.since = self._engine._stamp(flight.space)
        with self._flights.writing(flight):
            await self._lookup.markers.prepare(namespace)
            if flight.since is None:
                flight.since = self._engine._stamp(flight.space)
            await self._lookup.writers.room(key, len(form.payload))
        self._flights.supersede_flight(key)
        self._flights.supersede_writes(key)
        # The caller had the value before: what was invalidated while the clock was asked for covers it.
        stamp = self._engine._stamp(flight.space)
        if flight.since[0] == stamp[0]:
            stamp = flight.since
        stamped = Stamped(*stamp, self._clock())
        entry = self._entry(flight, form, computed, options, stamped)
        stored, receipt = self._store(flight, entry, computed, options, form.ttl)
        if self._lookup.writers.durability == "memory":
            return stored
        if receipt is None and not stored:
            return False  # it may not be stored
        return await self._lookup.writers.kept(receipt)

    def _form(self, computed: Computed[Any], kind: Any, tags: tuple[str, ...], options: CallOptions) -> _Form:
        content, payload = encode(computed.value, kind)
        ttl = options.ttl if computed.ttl is UNSET else computed.ttl
        ttl = None if ttl is None else seconds("ttl", ttl)
        return _Form(content, payload, ttl, names("tags", (*tags, *computed.tags)))

    def _entry(
        self,
        flight: Flight,
        form: _Form,
        computed: Computed[Any],
        options: CallOptions,
        stamped: Stamped,
        content: Content | None = None,
    ) -> Entry:
        now = self._clock()
        stale = max(options.stale_while_revalidate, options.stale_if_error)
        life = lifetime(now, form.ttl, stale, self._options.jitter, self._rng())
        return Entry(
            key=flight.key,
            namespace=flight.namespace,
            content=content or form.content,
            payload=form.payload,
            facts=Facts(
                tags=form.tags,
                label=options.label,
                depends_on=tuple(dict.fromkeys((*options.depends_on, *flight.depends_on))),
                model=computed.model,
                usage=computed.usage,
                compute_micros=max(0, now - stamped.started),
                semantic=flight.facet,
            ),
            created=now,
            fresh_until=life.fresh_until,
            stale_until=life.stale_until,
            epoch=stamped.epoch,
            snap=stamped.snap,
            cost=self._cost(computed),
        )

    def _store(
        self,
        flight: Flight,
        entry: Entry,
        computed: Computed[Any],
        options: CallOptions,
        ttl: float | None,
        here: bool = True,
    ) -> tuple[bool, Receipt | None]:
        """Whether memory took it, and the receipt of what is on its way below."""
        if not (options.store and computed.store) or ttl == 0:
            return self._refused("option")
        if not self._admitted(computed.value):
            return self._refused("admission")
        with self._flights.deciding:
            if flight.superseded:
                return self._refused("superseded")
            outcome, receipt = self._lookup.put(entry) if here else (self._lookup.put_memory(entry), None)
        if outcome == "invalid":
            # By a tag that the computation named only now.
            flight.superseded = True
            return self._refused("superseded")
        if outcome not in ("stored", "replaced"):
            return self._refused(outcome)[0], receipt
        self.stored += 1
        return True, receipt

    def _refused(self, reason: str) -> tuple[bool, None]:
        self.not_stored[reason] += 1
        return False, None

    def _admitted(self, value: Any) -> bool:
        try:
            return bool(self._admit(value))
        except Exception as error:  # noqa: BLE001 - what was paid for goes to the callers, whatever the rule does
            warnings.warn(
                f"a computed value was not stored: the admission rule raised {type(error).__name__}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False

    def _cost(self, computed: Computed[Any]) -> int:
        if computed.cost is not None:
            return max(0, int(computed.cost))
        if computed.usage is not None and computed.model is not None:
            return self._prices.cost(computed.model, computed.usage) or 0
        return 0
