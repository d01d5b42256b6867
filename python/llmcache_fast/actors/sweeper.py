"""Sweeping: what invalidations cover is deleted from the tiers, later and slowly.

Nothing depends on it but room: what is invalid is filtered by whoever reads it. A tier is walked through when
markers rose since the last walk, at a bounded rate, by one process at a time where the tier has leases. How
far a walk came, and which markers it was for, stands in the tier itself: another process goes on from there.

What belongs here: when and how fast. What does not: which records are to go (`_erasure`).
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskStatus

from llmcache_fast._errors import TierError
from llmcache_fast.actors.walking import KEEP, Judge, Verdict, Walk
from llmcache_fast.tiers.base import StoredRecord

_log = logging.getLogger("llmcache_fast.sweeper")

EVERY: Final = 60.0
"""Seconds between two looks at whether there is something to sweep."""
PAGE: Final = 200
LEASE: Final = 30.0
"""Seconds after which another process may go on in place of one that is gone."""
_NOTE_EVERY: Final = 10
"""Pages after which how far the walk came is written down."""
_MAX_NOTED: Final = 4_096
"""Namespaces in a note; with more, some are walked for again."""

NOTE_KEY: Final = hashlib.blake2b(b"sweeper", digest_size=32, person=b"llmcache note").digest()
"""The tier's key of the note, and of the lease."""

Heard: TypeAlias = Mapping[int, tuple[int, int]]
"""By namespace: `(epoch, seq)` up to which all its markers are known here."""


class Notes(NamedTuple):
    """How notes are made and read: `_wire.Wire` knows, which seals them."""

    write: Callable[[bytes, bytes, int], StoredRecord]
    read: Callable[[bytes, bytes], bytes | None]


class Place(NamedTuple):
    """A tier to sweep."""

    name: str
    tier: Any
    """A `ScannableTier`; it may have leases."""
    ready: Callable[[], bool]
    """Whether it, and the authority of the markers, can be used now."""


@dataclass(slots=True)
class SweepStatistics:
    """Counts since the start."""

    walks: int = 0
    """Tiers that were walked through to the end."""
    seen: int = 0
    deleted: int = 0
    unreadable: int = 0
    """Records that could not be judged, such as those of another key; counted by each walk."""
    failures: int = 0
    """Walks that a tier's failure cut short; they go on later."""


class _Note(msgspec.Struct, array_like=True):
    walked: dict[int, tuple[int, int]] = {}
    """By namespace: the markers up to which its records were swept."""
    cursor: bytes | None = None
    """Of a walk that is under way."""
    target: dict[int, tuple[int, int]] = {}
    """What will have been walked for at its end."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Note).decode


class Sweeper:
    """Sweeps the tiers of one cache, one at a time."""

    def __init__(
        self,
        places: Sequence[Place],
        judge: Judge,
        heard: Callable[[], Heard],
        notes: Notes,
        *,
        clock: Callable[[], int],
        own: Callable[[], Awaitable[object]] | None = None,
        rate: float,
        every: float = EVERY,
    ) -> None:
        """`judge` says what is to go by the markers known here, `heard` which those are. `own` forgets what
        this process alone holds; it may raise `TierError`. `rate` in records a second."""
        self._places = places
        self._judge = judge
        self._heard = heard
        self._notes = notes
        self._clock = clock
        self._own = own
        self._rate, self._every = rate, every
        self._token = secrets.token_bytes(16)
        self._done: dict[int, tuple[int, int]] = {}
        """What `own` was done for."""
        self._counts = SweepStatistics()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sweep now and then, until cancelled."""
        task_status.started()
        while True:
            # Processes that start together need not look together.
            await anyio.sleep(self._every * (1 - random.random() / 4))  # noqa: S311 - jitter
            await self.sweep()

    async def sweep(self) -> None:
        """Sweep what is due now. Raises nothing because of a tier."""
        heard = dict(self._heard())
        if self._own is not None and not _covers(self._done, heard):
            try:
                await self._own()
                self._done = heard
            except TierError as error:
                self._failed("journal", error)
        for place in self._places:
            if place.ready():
                try:
                    await self._sweep(place)
                except TierError as error:
                    self._failed(place.name, error)

    def statistics(self) -> SweepStatistics:
        return self._counts

    async def _sweep(self, place: Place) -> None:
        heard = dict(self._heard())
        if _covers((await self._recall(place)).walked, heard):
            return
        if not await self._take(place):
            return
        try:
            await self._walk(place, heard)
        finally:
            with anyio.CancelScope(shield=True):
                await self._give_back(place)

    async def _walk(self, place: Place, heard: dict[int, tuple[int, int]]) -> None:
        note = await self._recall(place)  # again: who had the lease before may have come further
        if note.cursor is None:
            note.target = heard
        walk = Walk(place.tier, self._but_notes, delete=True, cursor=note.cursor, page=PAGE)
        started = anyio.current_time()
        try:
            for page in count(1):
                more = await walk.step()
                note.cursor = walk.cursor
                if not more:
                    break
                if page % _NOTE_EVERY == 0:
                    await self._write(place, note)
                await anyio.sleep(max(0.0, started + walk.seen / self._rate - anyio.current_time()))
                if not place.ready() or not await self._take(place):
                    await self._write(place, note)
                    return
        finally:
            self._counts.seen += walk.seen
            self._counts.deleted += walk.deleted
            self._counts.unreadable += walk.unreadable
        self._counts.walks += 1
        note.walked = dict([*note.walked.items(), *note.target.items()][-_MAX_NOTED:])
        note.target = {}
        await self._write(place, note)

    def _but_notes(self, key: bytes, envelope: bytes) -> Verdict:
        return KEEP if key == NOTE_KEY else self._judge(key, envelope)

    async def _recall(self, place: Place) -> _Note:
        (envelope,) = await place.tier.get_many([NOTE_KEY])
        said = None if envelope is None else self._notes.read(NOTE_KEY, envelope)
        if said is not None:
            try:
                return _decode(said)
            except (msgspec.DecodeError, RecursionError):
                pass
        return _Note()

    async def _write(self, place: Place, note: _Note) -> None:
        await place.tier.put_many([self._notes.write(NOTE_KEY, _encode(note), self._clock())])

    async def _take(self, place: Place) -> bool:
        if not hasattr(place.tier, "lease_many"):
            return True
        held: list[bool] = await place.tier.lease_many([NOTE_KEY], self._token, LEASE)
        return held[0]

    async def _give_back(self, place: Place) -> None:
        if hasattr(place.tier, "release_leases"):
            try:
                await place.tier.release_leases([NOTE_KEY], self._token)
            except TierError:
                self._counts.failures += 1  # it ends by itself

    def _failed(self, name: str, error: TierError) -> None:
        self._counts.failures += 1
        _log.debug("sweeping %s: %s", name, error.reason or error.message)


def _covers(walked: Heard, heard: Heard) -> bool:
    return all(walked.get(space) == stamp for space, stamp in heard.items())
