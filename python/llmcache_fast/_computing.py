"""Computing an answer: the body of a flight, and what callers are told meanwhile.

What belongs here: stale answers, admission, what becomes of a computed value. What does
not: waiting and cancellation (`actors.flights`), the tiers (`_lookup`), remembered failures (`_failures`).
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

from llmcache_fast._answer import Answer, Landing, entry_of
from llmcache_fast._codec import decode, encode, fits
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Computed, Content, Entry, Facts, Status
from llmcache_fast._errors import ConfigurationError, NotCachedError, UnstorableValueError
from llmcache_fast._failures import Failures
from llmcache_fast._freshness import lifetime, state
from llmcache_fast._lookup import Lookup
from llmcache_fast._options import UNSET, CallOptions, Options, names, seconds
from llmcache_fast._usage import PriceTable
from llmcache_fast.actors.flights import Flight, Flights


class Context(msgspec.Struct, frozen=True):
    """What a computation is told, if it takes an argument."""

    fingerprint: bytes
    stale: Any = None
    """The value that is being computed anew, if there is one."""
    attempt: int = 1


class Recorder(Protocol):
    """The part of a stream's recorder that is used here."""

    facts: Facts | None
    cost: int

    def result(self) -> Computed[bytes] | None: ...

    def end(self) -> None: ...


R = TypeVar("R", bound=Recorder)


class Computing:
    """Answers for what is not fresh in memory."""

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
        self._failures = Failures(engine, options.negative_ttl, clock)
        self.counts: Counter[str] = Counter()
        self.not_stored: Counter[str] = Counter()
        self.saved = 0

    async def answer(
        self,
        key: bytes,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        options: CallOptions,
        since: tuple[int, int] | None = None,
    ) -> Answer:
        """The answer to one call that found nothing fresh in memory.

        `since` is the stamp at the call's start, if that was earlier.
        """
        if since is None:
            since = self._engine._stamp(self._engine._namespace_id(namespace))
        started = anyio.current_time()
        if not options.refresh:
            stale = self._stale(key, compute, kind, namespace, options)
            if stale is not None:
                return self._told(stale, stale.status)
            refusal = self._failures.refusal(key)
            if refusal is not None:
                self.counts["negative"] += 1
                raise refusal
        flight = self._flights.get(key)
        if flight is not None and not options.refresh and self._outlived(flight):
            self._flights.supersede_flight(key)
            flight = None
        if flight is not None and not options.refresh:
            self.add_targets(flight, options)
            self._flights.joined()
            status: Status | None = "joined"
        elif options.only_if_cached:
            answer = await self.found(key, namespace, options)
            if answer is None or not _is_for(answer.landing.entry, kind):
                raise NotCachedError("there is no entry for this request, and only_if_cached was asked")
            return answer
        else:
            flight = self._start(key, compute, kind, namespace, options)
            status = None
        landing: Landing = await self._flights.join(flight, options.timeout)
        if status == "joined" and self.predates(landing, since):
            if options.timeout is not None:
                left = max(0.0, options.timeout - (anyio.current_time() - started))
                options = msgspec.structs.replace(options, timeout=left)
            return await self.answer(key, compute, kind, namespace, options, since)
        if status is None or landing.status == "stale":
            status = landing.status
        return self._told(landing, status, superseded=flight.superseded)

    def predates(self, landing: Landing, since: tuple[int, int]) -> bool:
        """Whether a value may have been invalidated before the call that joined its flight: by a tag that was
        known only at the end, so that the flight could be joined. A later flight is none such."""
        entry = landing.entry
        if entry is None or (entry.epoch == since[0] and entry.snap >= since[1]):
            return False
        return not self._lookup.is_valid(entry)

    def _outlived(self, flight: Flight) -> bool:
        """Whether a flight gave its waiters a stale value that is gone by now, and computes on."""
        if not isinstance(flight.value, Landing) or flight.value.entry is None:
            return False
        return self._clock() >= flight.value.entry.stale_until

    async def found(self, key: bytes, namespace: str, options: CallOptions) -> Answer | None:
        """What any tier holds, fresh or stale, without computing."""
        view = self._engine._view(key)
        if view is not None:
            found: tuple[Entry, str] | None = (entry_of(view, key, namespace), "memory")
        else:
            found = await self._lookup.read(key, namespace)
        if found is None:
            return None
        now = self._state(found[0], options)
        if now not in ("fresh", "stale"):
            return None
        status: Status = "hit" if now == "fresh" else "stale"
        if view is not None and status == "hit":
            self.counts["hit"] -= 1  # `_view` counted this hit in its shard
        return self._told(Landing(found[0], None, status, found[1]), status)

    def _told(self, landing: Landing, status: Status, *, superseded: bool = False) -> Answer:
        self.counts[status] += 1
        if status != "miss" and landing.entry is not None:
            self.saved += landing.entry.cost
        return Answer(landing, status, superseded)

    # -- what is there, but old -----------------------------------------------------------------------

    def _stale(
        self,
        key: bytes,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        options: CallOptions,
    ) -> Landing | None:
        view = self._engine._peek(key)
        if view is None:
            return None
        entry = entry_of(view, key, namespace)
        now = self._state(entry, options)
        if not _is_for(entry, kind):
            return None
        if now == "fresh":
            return Landing(entry, None, "hit", "memory")
        failed_lately = self._failures.failed_lately(key)
        if now == "stale" or (now == "fallback" and failed_lately):
            if not failed_lately and not options.only_if_cached and self._flights.get(key) is None:
                self._start(key, compute, kind, namespace, options)
            return Landing(entry, None, "stale", "memory")
        return None

    def _state(self, entry: Entry, options: CallOptions) -> str:
        return state(self._clock(), entry.fresh_until, entry.stale_until, options.stale_while_revalidate)

    # -- flights --------------------------------------------------------------------------------------

    def _start(
        self,
        key: bytes,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        options: CallOptions,
    ) -> Flight:
        async def run(flight: Flight) -> Landing:
            return await self._run(flight, compute, kind, options)

        if options.refresh:
            # What is running started too early for this caller; its own waiters still get it.
            self._flights.supersede_flight(key)
        flight = self._flights.start(key, namespace, self.targets(key, namespace, options), options.tags, run)
        # Nothing old is there to be returned instead: who comes without options can only wait.
        flight.plain = not options.refresh and self._engine._peek(key) is None
        flight.space = self._engine._namespace_id(namespace)
        return flight

    def plain_flight(self, key: bytes) -> Flight | None:
        """The running flight that a call without options waits for in any case."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.plain and not flight.landed else None

    def joined(self, landing: Landing, kind: Any) -> Any:
        """What one of those who waited gets."""
        self._flights.joined()
        self._told(landing, "stale" if landing.status == "stale" else "joined")
        return landing.copy(kind)

    def targets(self, key: bytes, namespace: str, options: CallOptions) -> list[int]:
        """All targets by which an entry of this call can be invalidated."""
        return self._engine._entry_targets(
            namespace, key, list(options.tags), options.label, list(options.depends_on)
        )

    def add_targets(self, flight: Flight, options: CallOptions) -> None:
        """A caller that joins brings its own tags and versions: the entry must go with any of them.

        An entry has one label, that of the caller who started its flight.
        """
        tags = tuple(tag for tag in options.tags if tag not in flight.tags)
        versions = tuple(name for name in options.depends_on if name not in flight.depends_on)
        if tags or versions:
            flight.tags += tags
            flight.depends_on += versions
            named = self._engine._named_targets(flight.namespace, tags=list(tags), versions=list(versions))
            flight.targets.update(named)

    async def _run(
        self, flight: Flight, compute: Callable[..., Awaitable[Any]], kind: Any, options: CallOptions
    ) -> Landing:
        key, namespace = flight.key, flight.namespace
        await self._lookup.prepare(namespace)
        # Read before anything that ends in the entry: what is invalidated from here on is invalid in it.
        space = self._engine._namespace_id(namespace)
        epoch, snap = self._engine._stamp(space)
        found = None if options.refresh else await self._lookup.read(key, namespace)
        if found is not None and not _is_for(found[0], kind):
            found = None
        if found is not None:
            entry, tier = found
            now = self._state(entry, options)
            if now == "fresh":
                return Landing(entry, None, "hit", tier)
            if now == "stale":
                # The waiters have their answer; the flight goes on to compute the next one.
                flight.land(Landing(entry, None, "stale", tier))
        started = self._clock()
        try:
            value = await _call(compute, Context(key, self._stale_value(found, key, namespace, kind)))
        except Exception as error:
            self.counts["failures"] += 1
            fallback = self._after_failure(flight, error, kind, found, epoch, snap)
            if fallback is None:
                raise
            return fallback
        self.counts["computations"] += 1
        self._failures.forget(key)
        computed = value if isinstance(value, Computed) else Computed(value)
        return self.keep(flight, computed, kind, options, epoch, snap, started)

    async def record(
        self,
        flight: Flight,
        source: Callable[[R], Awaitable[None]],
        recorder: R,
        options: CallOptions,
    ) -> Landing:
        """Run the source of a stream and keep what it commits."""
        await self._lookup.prepare(flight.namespace)
        epoch, snap = self._engine._stamp(self._engine._namespace_id(flight.namespace))
        started = self._clock()
        try:
            await source(recorder)
        except Exception:
            self.counts["failures"] += 1
            raise
        self.counts["computations"] += 1
        self.counts["miss"] += 1
        result = recorder.result()
        if result is None:
            self.not_stored["uncommitted"] += 1
            recorder.end()
            return Landing(None, None, "miss", None)
        landing = self.keep(flight, result, None, options, epoch, snap, started, "stream")
        if landing.entry is not None:
            recorder.facts, recorder.cost = landing.entry.facts, landing.entry.cost
        recorder.end()
        return landing

    def _stale_value(self, found: tuple[Entry, str] | None, key: bytes, namespace: str, kind: Any) -> Any:
        entry = found[0] if found is not None else self._fallback(key, namespace)
        try:
            return None if entry is None else decode(entry.content, entry.payload, kind)
        except UnstorableValueError:
            return None

    def keep(
        self,
        flight: Flight,
        computed: Computed[Any],
        kind: Any,
        options: CallOptions,
        epoch: int,
        snap: int,
        started: int,
        content: Content | None = None,
        here: bool = True,
    ) -> Landing:
        """Store a computed value if it may be, and make it what the waiters get."""
        now = self._clock()
        try:
            kept, payload = encode(computed.value, kind)
            if kind is not None:
                # What is not of the type the callers ask for would be a miss for ever.
                decode(kept, payload, kind)
            ttl = options.ttl if computed.ttl is UNSET else computed.ttl
            ttl = None if ttl is None else seconds("ttl", ttl)
            tags = names("tags", (*flight.tags, *computed.tags))
        except (UnstorableValueError, ConfigurationError) as error:
            # Nothing that was paid for is lost: the callers get it, and the program is told.
            self.not_stored["unstorable"] += 1
            warnings.warn(f"a computed value was not stored: {error}", RuntimeWarning, stacklevel=2)
            return Landing(None, computed.value, "miss", None)
        stale = max(options.stale_while_revalidate, options.stale_if_error)
        life = lifetime(now, ttl, stale, self._options.jitter, self._rng())
        entry = Entry(
            key=flight.key,
            namespace=flight.namespace,
            content=content or kept,
            payload=payload,
            facts=Facts(
                tags=tags,
                label=options.label,
                depends_on=tuple(dict.fromkeys((*options.depends_on, *flight.depends_on))),
                model=computed.model,
                usage=computed.usage,
                compute_micros=max(0, now - started),
            ),
            created=now,
            fresh_until=life.fresh_until,
            stale_until=life.stale_until,
            epoch=epoch,
            snap=snap,
            cost=self._cost(computed),
        )
        self._store(flight, entry, computed, options, ttl, here)
        return Landing(entry, None, "miss", None)

    async def put(
        self, key: bytes, namespace: str, computed: Computed[Any], kind: Any, options: CallOptions
    ) -> bool:
        """Store a value that the caller has; whether memory took it."""
        targets = self.targets(key, namespace, options)
        late = self._engine._named_targets(namespace, tags=list(names("tags", computed.tags)))
        flight = Flight(key, namespace, 0, {*targets, *late}, options.tags)
        with self._flights.writing(flight):
            await self._lookup.prepare(namespace)
        # The caller had the value before: what was invalidated while the clock was asked for covers it.
        self._flights.supersede_flight(key)
        self._failures.forget(key)
        epoch, snap = self._engine._stamp(targets[0])
        before = self.counts["stored"]
        self.keep(flight, computed, kind, options, epoch, snap, self._clock())
        return self.counts["stored"] > before

    async def alone(
        self,
        key: bytes,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        options: CallOptions,
    ) -> Answer:
        """As `answer`, from an event loop the flights do not belong to: computed in the caller's own task,
        kept in memory only."""
        if options.only_if_cached:
            raise NotCachedError("there is no entry for this request, and only_if_cached was asked")
        targets = self.targets(key, namespace, options)
        flight = Flight(key, namespace, 0, set(targets), options.tags)
        epoch, snap = self._engine._stamp(targets[0])
        started = self._clock()
        value = await _call(compute, Context(key))
        computed = value if isinstance(value, Computed) else Computed(value)
        landing = self.keep(flight, computed, kind, options, epoch, snap, started, here=False)
        return self._told(landing, "miss", superseded=flight.superseded)

    def _store(
        self,
        flight: Flight,
        entry: Entry,
        computed: Computed[Any],
        options: CallOptions,
        ttl: float | None,
        here: bool,
    ) -> None:
        if not (options.store and computed.store) or ttl == 0:
            self.not_stored["option"] += 1
        elif not self._admitted(computed.value):
            self.not_stored["admission"] += 1
        elif flight.superseded:
            self.not_stored["superseded"] += 1
        else:
            outcome = self._lookup.put(entry) if here else self._lookup.put_memory(entry)
            if outcome == "invalid":
                # By a tag that the computation named only now.
                flight.superseded = True
                self.not_stored["superseded"] += 1
            elif outcome in ("stored", "replaced"):
                self.counts["stored"] += 1
            else:
                self.not_stored[outcome] += 1

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

    # -- failures -------------------------------------------------------------------------------------

    def _fallback(self, key: bytes, namespace: str) -> Entry | None:
        view = self._engine._peek(key)
        return None if view is None else entry_of(view, key, namespace)

    def _after_failure(
        self,
        flight: Flight,
        error: Exception,
        kind: Any,
        found: tuple[Entry, str] | None,
        epoch: int,
        snap: int,
    ) -> Landing | None:
        """The stale entry that stands in for a failed computation; without one, deterministic refusals are
        remembered."""
        entry = found[0] if found is not None else self._fallback(flight.key, flight.namespace)
        if (
            entry is not None
            and _is_for(entry, kind)
            and self._clock() < entry.stale_until
            and not flight.superseded
            and self._lookup.is_valid(entry)
        ):
            self._failures.put_off(flight.key)
            return Landing(entry, None, "stale", found[1] if found is not None else "memory")
        self._failures.remember(flight, error, epoch, snap)
        return None

    def forget_failure(self, key: bytes) -> None:
        """Forget what is remembered of a failing request."""
        self._failures.forget(key)


def _is_for(entry: Entry | None, kind: Any) -> bool:
    """Whether an entry answers a caller that asks for `kind`. One that an older version of the program stored
    as another type is a miss."""
    return entry is None or fits(entry.content, entry.payload, kind)


async def _call(compute: Callable[..., Awaitable[Any]], context: Context) -> Any:
    awaitable = compute(context) if _takes_argument(compute) else compute()
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"compute must be an async callable; it returned a {type(awaitable).__name__}, no awaitable"
        )
    return await awaitable


def _takes_argument(compute: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        for parameter in parameters
    )
