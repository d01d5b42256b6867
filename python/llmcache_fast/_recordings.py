"""The body of a flight that records a stream.

What belongs here: running the source once, among all processes, and keeping what it commits. What does not:
the recording and its readers (`_streams`), flights that compute a value (`_computing`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmcache_fast._answer import Landing
from llmcache_fast._call import R
from llmcache_fast._computing import Computing
from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import Entry
from llmcache_fast._floor import Lease
from llmcache_fast._inquiry import Inquiry
from llmcache_fast._lookup import Lookup
from llmcache_fast._options import CallOptions
from llmcache_fast._storing import Stamped, Storing
from llmcache_fast.actors.flight import Flight


class Recordings:
    """Records streams, and counts them with what is computed."""

    def __init__(
        self, engine: Engine, lookup: Lookup, storing: Storing, computing: Computing, clock: Clock
    ) -> None:
        self._engine = engine
        self._lookup = lookup
        self._storing = storing
        self._computing = computing
        self._clock = clock

    async def record(
        self,
        flight: Flight,
        source: Callable[[R], Awaitable[None]],
        recorder: R,
        options: CallOptions,
        inquiry: Inquiry | None,
    ) -> Landing:
        """Run the source of a stream and keep what it commits, unless another process has recorded it."""

        def is_answer(entry: Entry) -> bool:
            return entry.content == "stream" and self._clock() < entry.fresh_until

        await self._lookup.markers.prepare(flight.namespace)
        lease = Lease(is_answer) if options.keeps else None
        try:
            found = None if options.refresh else await self._lookup.read(flight.key, flight.namespace, lease)
            if found is None or not is_answer(found[0]):
                found = await self._lookup.claim(flight.key, flight.namespace, lease)
            if found is not None and recorder.replay(found[0]):
                return self._computing.told(Landing(found[0], None, "hit", found[1]), "hit").landing
            flight.since = self._engine._stamp(flight.space)
            stamped = Stamped(*flight.since, self._clock())
            if inquiry is None:
                return await self._record(flight, source, recorder, options, stamped)
            flight.facet = await inquiry.facet()
            try:
                landing = await self._record(flight, source, recorder, options, stamped)
            except BaseException:
                inquiry.abandon()
                raise
            return inquiry.computed(landing)
        finally:
            self._lookup.release(flight.key, lease)

    async def _record(
        self,
        flight: Flight,
        source: Callable[[R], Awaitable[None]],
        recorder: R,
        options: CallOptions,
        stamped: Stamped,
    ) -> Landing:
        counts = self._computing.counts
        try:
            await source(recorder)
        except Exception:
            counts["failures"] += 1
            raise
        counts["computations"] += 1
        counts["miss"] += 1
        result = recorder.result()
        if result is None:
            self._storing.not_stored["uncommitted"] += 1
            recorder.end()
            return Landing(None, None, "miss", None)
        landing = self._storing.keep(flight, result, None, options, stamped, "stream")
        if landing.entry is not None:
            recorder.facts, recorder.cost = landing.entry.facts, landing.entry.cost
        recorder.end()
        return landing
