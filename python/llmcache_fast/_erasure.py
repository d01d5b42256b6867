"""Erasing: what was invalidated is deleted physically, everywhere this cache writes.

The invalidation comes first and is durable: whatever happens afterwards, nothing erased is answered again,
and erasing again, or a sweep, finishes the work. What belongs here: which records are meant, the order of the
places, what was found in each. What does not: walking (`actors.walking`), when to sweep (`actors.sweeper`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import anyio

from llmcache_fast._core import Engine
from llmcache_fast._entry import Coverage, Erasure, Seen
from llmcache_fast._errors import TierError
from llmcache_fast._floor import Floor
from llmcache_fast._invalidation import Invalidations
from llmcache_fast._lookup import Lookup
from llmcache_fast._wire import Wire
from llmcache_fast.actors.sweeper import NOTE_KEY, Notes, Place, Sweeper
from llmcache_fast.actors.walking import KEEP, UNREADABLE, Judge, Verdict, Walk

SCRUB_BUDGET: Final = 60.0
"""Seconds a tier may take to overwrite what it has deleted."""
PREVIEW_LIMIT: Final = 1_000_000
"""Records of a tier that a dry run looks at."""
NAMES_SAMPLE: Final = 100
"""Records of a tier that tell how names are made: a round trip, and a few of another service do no harm."""


Matches: TypeAlias = Callable[[Seen], bool]


class Erasures:
    """The erasures of one cache, and what they have in common with its sweeps and dry runs."""

    def __init__(
        self,
        engine: Engine,
        wire: Wire,
        lookup: Lookup,
        invalidations: Invalidations,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._wire = wire
        self._invalidations = invalidations
        self._floors = lookup.floors
        self._writers = lookup.writers
        self._markers = lookup.markers
        self._clock = clock

    async def erase(self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()) -> Erasure:
        """Invalidate, then delete. Costs a walk through every tier, and the journal read and written anew.

        Raises:
            CacheClosedError: `strict`, and the authority could not be told: nothing was deleted.
        """
        engine = self._engine
        memory, _ = engine._matching(engine._namespace_id(namespace), list(targets), list(patterns))
        told = await self._invalidations.apply(namespace, targets, patterns)
        named = self._named(namespace, targets, patterns)

        def gone(seen: Seen) -> bool:
            # What is valid was computed since, and is not meant.
            return named(seen) and not self._is_valid(seen)

        engine._drop_invalid()
        engine._clear_memo()  # it may hold texts of requests
        counts: dict[str, int] = {}
        unfinished: dict[str, str] = {}
        writers = self._writers
        for place, work in (
            ("buffered", writers.erase_buffered),
            ("journal", writers.erase_journal),
            ("dead_letters", writers.erase_letters),
            ("elsewhere", writers.held_elsewhere),
        ):
            try:
                counts[place] = await work(self._of_envelopes(gone))
            except TierError as error:
                unfinished[place] = error.reason or "failed"
        walks = await self._walk_all(gone, unfinished, delete=True)
        for floor in self._floors:
            scrub = getattr(floor.tier.inner, "scrub", None)
            if scrub is not None and floor.name in walks:
                try:
                    if await floor.tier.call("write", "scrub", scrub, budget=SCRUB_BUDGET):
                        unfinished[floor.name] = "files that were set aside as damaged: delete them"
                except TierError as error:
                    unfinished[floor.name] = error.reason or "failed"
        return Erasure(
            seq=told.seq,
            deferred=told.deferred,
            superseded=told.superseded,
            memory=memory,
            tiers={name: walk.deleted for name, walk in walks.items()},
            unreadable=sum(walk.unreadable for walk in walks.values()),
            unfinished=unfinished,
            **counts,
        )

    async def preview(
        self,
        namespace: str,
        targets: Sequence[int],
        patterns: Sequence[str] = (),
        *,
        limit: int = PREVIEW_LIMIT,
    ) -> Coverage:
        """What an invalidation would cover; nothing is changed. Costs a walk through every tier, `limit`
        records each at the most."""
        await self._markers.prepare(namespace)
        memory, _ = self._engine._matching(
            self._engine._namespace_id(namespace), list(targets), list(patterns)
        )
        named = self._named(namespace, targets, patterns)

        def served(seen: Seen) -> bool:
            return named(seen) and self._clock() < seen.stale_until and self._is_valid(seen)

        unfinished: dict[str, str] = {}
        walks = await self._walk_all(served, unfinished, delete=False, limit=limit)
        return Coverage(
            memory=memory,
            buffered=self._writers.count_where(self._of_envelopes(served)),
            tiers={name: walk.taken for name, walk in walks.items()},
            unreadable=sum(walk.unreadable for walk in walks.values()),
            unfinished=unfinished,
        )

    async def names(self) -> Literal["known", "other", "sealed"]:
        """Whether tiers know entries by the names they have here, as far as a page of each tells: with
        another blinding secret, or without it, nothing that is named here is covered there. `sealed`: no
        record can be read.
        """
        other = sealed = False
        for floor in reversed(self._floors):
            tier: Any = floor.tier
            # One that fails already is not asked in vain: it is told of by what is done next.
            asked = floor.is_open and not floor.errors and hasattr(tier, "scan")
            try:
                records = (await tier.scan(None, NAMES_SAMPLE))[0] if asked else []
            except TierError as error:
                floor.failed("scan", error)
                continue
            for key, envelope in records:
                seen, _ = self._wire.examine(envelope)
                if seen is not None and self._wire.tier_key(seen.key) == key:
                    return "known"
                if key != NOTE_KEY:
                    other |= seen is not None
                    sealed |= seen is None
        return "other" if other else "sealed" if sealed else "known"

    # -- sweeping -----------------------------------------------------------------------------------

    def sweeper(self, rate: float) -> Sweeper | None:
        """What sweeps the tiers at `rate` records a second; None where nothing is known of markers."""
        authority = self._markers.authority
        if authority is None or not rate:
            return None

        def place(floor: Floor) -> Place:
            return Place(floor.name, floor.tier, lambda: floor.is_readable and authority.is_readable)

        return Sweeper(
            [place(floor) for floor in self._floors if hasattr(floor.tier, "scan")],
            self.judge,
            self._markers.heard,
            Notes(self._wire.note, self._wire.noted),
            clock=self._clock,
            own=self.forget_own,
            rate=rate,
        )

    def judge(self, key: bytes, envelope: bytes) -> Verdict:
        """What is to go from a tier by the markers that are known here: what they cover, what is past its
        stale window. What cannot be read, or stands under a wrong name, is left alone."""
        seen, _ = self._wire.examine(envelope)
        if seen is None or self._wire.tier_key(seen.key) != key:
            return UNREADABLE
        is_gone = seen.stale_until <= self._clock() or (
            self._markers.is_shared(seen.namespace) and not self._is_valid(seen)
        )
        return Verdict("take", seen.epoch, seen.snap) if is_gone else KEEP

    async def forget_own(self) -> None:
        """Delete what is invalid from the buffers and the journal of this process.

        Raises:
            TierError: the journal's files could not be read or written.
        """

        def gone(seen: Seen) -> bool:
            return self._markers.is_shared(seen.namespace) and not self._is_valid(seen)

        matches = self._of_envelopes(gone)
        await self._writers.erase_buffered(matches)
        await self._writers.erase_journal(matches)

    async def would_serve(self, seen: Seen) -> bool:
        """Whether a reader here, knowing what readers know, would take the record for valid."""
        current = await self._markers.prepare(seen.namespace)
        return current and self._is_valid(seen)

    # -- the same for all ---------------------------------------------------------------------------

    def _named(self, namespace: str, targets: Sequence[int], patterns: Sequence[str]) -> Matches:
        engine, wanted = self._engine, set(targets)

        def matches(seen: Seen) -> bool:
            if seen.namespace != namespace:
                return False
            label = seen.facts.label
            return not wanted.isdisjoint(_targets(seen)) or (
                label is not None and any(engine._matches(pattern, label) for pattern in patterns)
            )

        return matches

    def _is_valid(self, seen: Seen) -> bool:
        targets = _targets(seen)
        return self._engine._valid(targets[0], seen.epoch, seen.snap, targets, seen.facts.label)

    def _of_envelopes(self, matches: Matches) -> Callable[[bytes], bool]:
        def of_envelope(envelope: bytes) -> bool:
            seen, _ = self._wire.examine(envelope)
            return seen is not None and matches(seen)

        return of_envelope

    def _judge(self, matches: Matches) -> Judge:
        def judge(_key: bytes, envelope: bytes) -> Verdict:
            seen, _ = self._wire.examine(envelope)
            if seen is None:
                return UNREADABLE
            return Verdict("take", seen.epoch, seen.snap) if matches(seen) else KEEP

        return judge

    async def _walk_all(
        self, matches: Matches, unfinished: dict[str, str], *, delete: bool, limit: int | None = None
    ) -> dict[str, Walk]:
        """Walk through every tier, all at once; by tier what was met."""
        walks: dict[str, Walk] = {}
        judge = self._judge(matches)

        async def through(floor: Floor) -> None:
            tier: Any = floor.tier
            if not floor.is_open:
                unfinished[floor.name] = "closed"
                return
            if not hasattr(tier, "scan"):
                unfinished[floor.name] = "cannot be walked through"
                return
            walk = walks[floor.name] = Walk(tier, judge, delete=delete)
            try:
                while await walk.step():
                    if limit is not None and walk.seen >= limit:
                        unfinished[floor.name] = "limit"
                        return
            except TierError as error:
                floor.failed("walk", error)
                unfinished[floor.name] = error.reason or "failed"

        async with anyio.create_task_group() as group:
            for floor in self._floors:
                group.start_soon(through, floor)
        return walks


def _targets(seen: Seen) -> list[int]:
    """All targets of a record, the namespace's first."""
    facts = seen.facts
    space, _, *named = _targets_of(seen.namespace, facts.tags, facts.label, facts.depends_on)
    return [space, int.from_bytes(seen.key[16:24], "little"), *named]


@lru_cache(maxsize=1 << 12)
def _targets_of(
    namespace: str, tags: tuple[str, ...], label: str | None, depends_on: tuple[str, ...]
) -> list[int]:
    # Records of one person, and those met twice, say the same of themselves: hashing it is half of a walk.
    return Engine._entry_targets(namespace, bytes(32), list(tags), label, list(depends_on))
