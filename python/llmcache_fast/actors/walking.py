"""A walk through all records of a tier: each is judged, and those that are to go are deleted.

What belongs here: pages, retries, what was met. What does not: which records are to go (the judge), when to
walk and how fast (`sweeper`, `_erasure`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

import anyio

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import ScannableTier

PAGE: Final = 500
"""Records read at once: a round trip costs little beside them, and judging them takes a few milliseconds."""
_ATTEMPTS: Final = 5
_PAUSE: Final = 0.05
"""Seconds before a page that failed is asked for again, doubling."""


class Verdict(NamedTuple):
    """What a judge says of one record."""

    kind: Literal["keep", "take", "unreadable"]
    epoch: int = 0
    snap: int = 0


KEEP: Final = Verdict("keep")
UNREADABLE: Final = Verdict("unreadable")

Judge: TypeAlias = Callable[[bytes, bytes], Verdict]
"""Of the tier's key and the envelope."""


class Walk:
    """One walk, from a cursor to the end; its counts are of what it has met until now."""

    def __init__(
        self,
        tier: ScannableTier,
        judge: Judge,
        *,
        delete: bool,
        cursor: bytes | None = None,
        page: int = PAGE,
    ) -> None:
        self._tier = tier
        self._judge = judge
        self._delete = delete
        self._page = page
        self.cursor = cursor
        """Where to go on."""
        self.seen = 0
        self.taken = 0
        """Records that were to go."""
        self.deleted = 0
        """Of these, deleted: others were overwritten or gone meanwhile."""
        self.unreadable = 0
        """Records that nobody here can judge, such as those sealed by an unknown key; they are left alone."""

    async def step(self) -> bool:
        """Judge a page; whether there is another.

        Raises:
            TierError: the page failed several times. Step again later, or walk from `cursor`.
        """
        pairs, after = await self._read()
        go = []
        unreadable = 0
        for key, envelope in pairs:
            kind, epoch, snap = self._judge(key, envelope)
            unreadable += kind == "unreadable"
            if kind == "take":
                go.append((key, epoch, snap))
        if go and self._delete:
            self.deleted += await self._tier.discard_many(go)
        self.seen += len(pairs)
        self.taken += len(go)
        self.unreadable += unreadable
        self.cursor = after
        return after is not None

    async def _read(self) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        for attempt in range(_ATTEMPTS - 1):
            try:
                return await self._tier.scan(self.cursor, self._page)
            except TierError:
                await anyio.sleep(_PAUSE * 2.0**attempt)
        return await self._tier.scan(self.cursor, self._page)
