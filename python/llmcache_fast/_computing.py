"""Computing an answer: the body of a flight, and what callers are told meanwhile.

What belongs here: whether a caller waits, computes or is given what is old. What does not: waiting and
cancellation (`actors.flights`), what becomes of a value (`_storing`), remembered failures (`_failures`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from llmcache_fast._answer import Answer, Landing, entry_of
from llmcache_fast._call import Context, call
from llmcache_fast._codec import decode, fits
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Computed, Entry, Status
from llmcache_fast._errors import NotCachedError, UnstorableValueError
from llmcache_fast._failures import Failures
from llmcache_fast._floor import Lease
from llmcache_fast._freshness import state
from llmcache_fast._inquiry import Inquiry
from llmcache_fast._lookup import Found, Lookup
from llmcache_fast._options import CallOptions, Options, call_options, namespace_of
from llmcache_fast._questions import Subject
from llmcache_fast._semantics import Semantics
from llmcache_fast._storing import Stamped, Storing
from llmcache_fast.actors.flight import Flight
from llmcache_fast.actors.flights import Flights

_STANDS_IN: Final = frozenset({"stale", "semantic"})
"""What a caller who joined is told as it is: what it got was not computed for its request, or not now."""


class _Call(NamedTuple):
    """What one caller wants."""

    key: bytes
    compute: Callable[..., Awaitable[Any]]
    kind: Any
    namespace: str
    options: CallOptions
    inquiry: Inquiry | None

    def is_for(self, entry: Entry | None) -> bool:
        """Whether an entry is of the `kind` asked for. One that an older version of the program stored as
        another type is a miss."""
        return entry is None or fits(entry.content, entry.payload, self.kind)


def _is_looser(given: Any, options: CallOptions) -> bool:
    """Whether a flight gives the answer to another question, and a call wants none or a likelier one."""
    if not isinstance(given, Landing) or given.status != "semantic" or given.semantic is None:
        return False
    least = options.semantic
    return least is False or (isinstance(least, float) and given.semantic.score < least)


class Computing:
    """Answers for what is not fresh in memory."""

    def __init__(
        self,
        engine: Engine,
        lookup: Lookup,
        flights: Flights,
        storing: Storing,
        options: Options,
        *,
        clock: Clock,
        missed: Callable[[bytes, Any], None],
        semantics: Semantics | None = None,
    ) -> None:
        """`missed` is told fingerprint and request of each call that computed."""
        self._engine = engine
        self._lookup = lookup
        self._flights = flights
        self._storing = storing
        self._options = options
        self._clock = clock
        self._missed = missed
        self._semantics = semantics
        self._failures = Failures(engine, options.negative_ttl, clock)
        self.counts: Counter[str] = Counter()
        self.saved = 0
        """Micro-USD of answers that were not computed for their call; memory counts its own fresh hits."""

    async def value(
        self,
        key: bytes,
        request: Any,
        compute: Callable[..., Awaitable[Any]],
        kind: Any,
        namespace: str,
        given: Mapping[str, Any] | None,
        profile: str | None = None,
        variant: str | int | None = None,
    ) -> Any:
        """What `get_or_compute` gives of what is not fresh in memory; `given` are the options of the call."""
        if given is None and self._flights.in_own_thread():
            flight = self._flights.get(key)
            if flight is not None and flight.plain and not flight.landed and not self._flights.within():
                # `_answer` and `Flights.join` without frames of their own: of ten thousand callers all but
                # one come here, and each frame is one more object that the collector walks through.
                since = self._engine._stamp(flight.space)
                self._flights.adopt(flight)
                try:
                    await flight.done().wait()
                finally:
                    self._flights.leave(flight)
                landing = self._flights.outcome(flight)
                if not self._predates(landing, since):
                    self._flights.joined()
                    self.told(landing, landing.status if landing.status in _STANDS_IN else "joined")
                    return landing.copy(kind)
        checked = call_options(self._options, given)
        subject = Subject(key, request, namespace_of(namespace), profile, variant, checked)
        return (await self.answer(subject, compute, kind)).landing.copy(kind)

    async def answer(self, subject: Subject, compute: Callable[..., Awaitable[Any]], kind: Any) -> Answer:
        """The answer to one call that found nothing fresh in memory."""
        inquiry = self.inquiry(subject)
        answering = self._answer if self._flights.in_own_loop() else self._alone
        key, request, namespace, *_, options = subject
        answer = await answering(_Call(key, compute, kind, namespace, options, inquiry))
        if answer.status == "miss":
            self._missed(key, request)
        return answer

    def inquiry(self, subject: Subject) -> Inquiry | None:
        """How a call looks for the answer to another question; None: it does not."""
        if self._semantics is None or subject.options.semantic is False:
            return None
        return Inquiry(self._semantics, subject)

    async def _answer(self, asked: _Call, since: tuple[int, int] | None = None) -> Answer:
        """`since` is the stamp at the call's start, if that was earlier."""
        key, namespace, options = asked.key, asked.namespace, asked.options
        flight = self._flights.get(key)
        if since is None:
            space = self._engine._namespace_id(namespace) if flight is None else flight.space
            since = self._engine._stamp(space)
        started = 0.0 if options.timeout is None else anyio.current_time()
        if not options.refresh:
            stale = self._stale(asked)
            if stale is not None:
                return self.told(stale, stale.status)
            refusal = self._failures.refusal(key)
            if refusal is not None:
                self.counts["negative"] += 1
                raise refusal
        if flight is None and asked.inquiry is not None and not options.refresh:
            other = await asked.inquiry.find_at_once(asked.is_for)
            if other is not None:
                return self.told(other, "semantic")
            flight = self._flights.get(key)
        joinable = flight and not (
            options.refresh or flight.streamed or self._outlived(flight) or _is_looser(flight.value, options)
        )
        if flight is not None and joinable and self._storing.add_targets(flight, options):
            self._flights.joined()
            status: Status | None = "joined"
        elif options.only_if_cached:
            answer = await self.found(key, namespace, options)
            if answer is None and asked.inquiry is not None:
                other = await asked.inquiry.find(asked.is_for)
                asked.inquiry.abandon()
                answer = None if other is None else self.told(other, "semantic")
            if answer is None or not asked.is_for(answer.landing.entry):
                raise NotCachedError("there is no entry for this request, and only_if_cached was asked")
            return answer
        else:
            flight = self._start(asked)
            status = None
        landing: Landing = await self._flights.join(flight, options.timeout)
        if status == "joined" and (self._predates(landing, since) or _is_looser(landing, options)):
            if options.timeout is not None:
                left = max(0.0, options.timeout - (anyio.current_time() - started))
                asked = asked._replace(options=msgspec.structs.replace(options, timeout=left))
            return await self._answer(asked, since)
        if status is None or landing.status in _STANDS_IN:
            status = landing.status
        return self.told(landing, status, superseded=flight.superseded)

    def _predates(self, landing: Landing, since: tuple[int, int]) -> bool:
        """Whether a value may have been invalidated before the call that joined its flight: by a tag that was
        known only at the end, so that the flight could be joined. A later flight is none such."""
        entry = landing.entry
        if entry is None or (entry.epoch == since[0] and entry.snap >= since[1]):
            return False
        return not self._lookup.is_valid(entry)

    def _outlived(self, flight: Flight) -> bool:
        """Whether a flight gave its waiters a stale value that is gone or invalid by now, and computes on."""
        if not isinstance(flight.value, Landing) or flight.value.entry is None:
            return False
        entry = flight.value.entry
        return self._clock() >= entry.stale_until or not self._lookup.is_valid(entry)

    async def found(self, key: bytes, namespace: str, options: CallOptions) -> Answer | None:
        """What any tier holds, fresh or stale, without computing."""
        view = None if self._lookup.peek(key, namespace) is None else self._engine._view(key)
        if view is not None:
            found: Found | None = (entry_of(view, key, namespace), "memory")
        else:
            found = await self._lookup.read(key, namespace)
        if found is None:
            return None
        now = self._state(found[0], options)
        if now not in ("fresh", "stale"):
            return None
        status: Status = "hit" if now == "fresh" else "stale"
        if view is not None and status == "hit":
            # `_view` counted this hit in its shard, and its cost.
            self.counts["hit"] -= 1
            self.saved -= found[0].cost
        return self.told(Landing(found[0], None, status, found[1]), status)

    def told(self, landing: Landing, status: Status, *, superseded: bool = False) -> Answer:
        """What a caller gets, counted."""
        self.counts[status] += 1
        if status != "miss" and landing.entry is not None:
            self.saved += landing.entry.cost
        return Answer(landing, status, superseded)

    # -- what is there, but old -----------------------------------------------------------------------

    def _stale(self, asked: _Call) -> Landing | None:
        key, options = asked.key, asked.options
        entry = self._lookup.peek(key, asked.namespace)
        if entry is None:
            return None
        now = self._state(entry, options)
        if not asked.is_for(entry):
            return None
        if now == "fresh":
            return Landing(entry, None, "hit", "memory")
        failed_lately = self._failures.failed_lately(key)
        if now == "stale" or (now == "fallback" and failed_lately):
            if not failed_lately and self.may_refresh(key, options):
                self._flights.put_behind(self._start(asked))
            return Landing(entry, None, "stale", "memory")
        return None

    def may_refresh(self, key: bytes, options: CallOptions) -> bool:
        """Whether a call that is given a stale value starts the computation of the next one."""
        return not options.only_if_cached and self._flights.get(key) is None and self._flights.may_refresh()

    def _state(self, entry: Entry, options: CallOptions) -> str:
        return state(self._clock(), entry.fresh_until, entry.stale_until, options.stale_while_revalidate)

    # -- flights --------------------------------------------------------------------------------------

    def _start(self, asked: _Call) -> Flight:
        async def run(flight: Flight) -> Landing:
            return await self._run(flight, asked)

        flight = self.launch(asked.key, asked.namespace, asked.options, run)
        # Nothing old is there to be returned instead: who comes without options can only wait.
        flight.plain = not asked.options.refresh and self._engine._peek(asked.key) is None
        return flight

    def launch(
        self, key: bytes, namespace: str, options: CallOptions, run: Callable[[Flight], Awaitable[Landing]]
    ) -> Flight:
        """Start a flight that carries the targets of a call.

        One that is running started too early for this call, or gives what it cannot use; its own waiters
        still get that.
        """
        if self._flights.get(key) is not None:
            self._flights.supersede_flight(key)
        targets = self._storing.targets(key, namespace, options)
        flight = self._flights.start(key, namespace, targets, options.tags, run)
        flight.label = options.label
        return flight

    async def _run(self, flight: Flight, asked: _Call) -> Landing:
        key, namespace, inquiry, options = asked.key, asked.namespace, asked.inquiry, asked.options
        await self._lookup.markers.prepare(namespace)
        lease = self._lease(asked)
        try:
            found = None if options.refresh else await self._lookup.read(key, namespace, lease)
            landing = self._landing(flight, found, asked)
            if landing is None and inquiry is not None:
                flight.facet = await inquiry.facet()
                if found is None and not (options.refresh or flight.landed):
                    landing = self._other(flight, inquiry, await inquiry.find(asked.is_for))
            if landing is None:
                later = await self._lookup.claim(key, namespace, lease)
                landing = self._landing(flight, later, asked)
                found = later or found
            if landing is not None:
                return landing
            # Read before anything that ends in the entry: what is invalidated from here on is invalid in it.
            stamp = flight.since = self._engine._stamp(flight.space)
            try:
                landing = await self._compute(flight, asked, found, stamp)
            except BaseException:
                if inquiry is not None:
                    inquiry.abandon()
                raise
            return landing if inquiry is None else inquiry.computed(landing)
        finally:
            self._lookup.release(key, lease)

    def _other(self, flight: Flight, inquiry: Inquiry, landing: Landing | None) -> Landing | None:
        """The answer to another question, if that ends the flight. One that is to be checked does not, unless
        no more flights may go on behind their answers."""
        if landing is None or not inquiry.check:
            return landing
        if not flight.background and not self._flights.put_behind(flight):
            inquiry.abandon()
            return landing
        flight.land(landing)
        return None

    def _landing(self, flight: Flight, found: Found | None, asked: _Call) -> Landing | None:
        """What was found, if that ends the flight. Something stale is an answer, and ends it only when no
        more flights may go on behind their answers."""
        if found is None or not asked.is_for(found[0]):
            return None
        entry, tier = found
        now = self._state(entry, asked.options)
        if now == "fresh":
            return Landing(entry, None, "hit", tier)
        if now == "stale" and not flight.landed:
            stale = Landing(entry, None, "stale", tier)
            if not flight.background and not self._flights.put_behind(flight):
                return stale
            # The waiters have their answer; the flight goes on to compute the next one.
            flight.land(stale)
        return None

    def _lease(self, asked: _Call) -> Lease | None:
        def is_answer(entry: Entry) -> bool:
            return asked.is_for(entry) and self._state(entry, asked.options) == "fresh"

        return Lease(is_answer) if asked.options.keeps else None

    async def _compute(
        self, flight: Flight, asked: _Call, found: Found | None, stamp: tuple[int, int]
    ) -> Landing:
        key = asked.key
        started = self._clock()
        try:
            value = await call(asked.compute, Context(key, self._stale_value(found, asked)))
        except Exception as error:
            self.counts["failures"] += 1
            fallback = self._after_failure(flight, error, asked, found, stamp)
            if fallback is None:
                raise
            return fallback
        self.counts["computations"] += 1
        self._failures.forget(key)
        computed = value if isinstance(value, Computed) else Computed(value)
        return self._storing.keep(flight, computed, asked.kind, asked.options, Stamped(*stamp, started))

    def _stale_value(self, found: Found | None, asked: _Call) -> Any:
        entry = found[0] if found is not None else self._lookup.peek(asked.key, asked.namespace)
        try:
            return None if entry is None else decode(entry.content, entry.payload, asked.kind)
        except UnstorableValueError:
            return None

    async def _alone(self, asked: _Call) -> Answer:
        """As `_answer`, from an event loop the flights do not belong to: computed in the caller's own task,
        kept in memory only."""
        key, namespace, options = asked.key, asked.namespace, asked.options
        if options.only_if_cached:
            raise NotCachedError("there is no entry for this request, and only_if_cached was asked")
        targets = self._storing.targets(key, namespace, options)
        flight = Flight(key, namespace, targets[0], 0, set(targets), options.tags)
        flight.since, flight.label = self._engine._stamp(flight.space), options.label
        stamped = Stamped(*flight.since, self._clock())
        with self._flights.writing(flight):
            value = await call(asked.compute, Context(key))
            computed = value if isinstance(value, Computed) else Computed(value)
            landing = self._storing.keep(flight, computed, asked.kind, options, stamped, here=False)
        return self.told(landing, "miss", superseded=flight.superseded)

    # -- failures -------------------------------------------------------------------------------------

    def _after_failure(
        self, flight: Flight, error: Exception, asked: _Call, found: Found | None, stamp: tuple[int, int]
    ) -> Landing | None:
        """The stale entry that stands in for a failed computation; without one, deterministic refusals are
        remembered."""
        entry = found[0] if found is not None else self._lookup.peek(flight.key, flight.namespace)
        if (
            entry is not None
            and asked.is_for(entry)
            and self._clock() < entry.stale_until
            and not flight.superseded
            and self._lookup.may_serve(flight.namespace)
            and self._lookup.is_valid(entry)
        ):
            self._failures.put_off(flight.key)
            return Landing(entry, None, "stale", found[1] if found is not None else "memory")
        self._failures.remember(flight, error, *stamp)
        return None

    def forget_failure(self, key: bytes) -> None:
        """Forget what is remembered of a failing request."""
        self._failures.forget(key)
