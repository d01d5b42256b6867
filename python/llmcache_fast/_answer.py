"""Answers: what a flight gives its waiters, and what each caller makes of it.

What belongs here: the values between the computing of an answer and its caller. What does not: deciding
which answer it is (`_computing`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llmcache_fast._codec import decode
from llmcache_fast._core import View
from llmcache_fast._entry import CacheResult, Entry, SemanticMatch, Status, of_stored_form, unpack_facts
from llmcache_fast._freshness import MICROS


class Landing(NamedTuple):
    """What a flight gives its waiters."""

    entry: Entry | None
    """The value, encoded; every waiter decodes its own copy."""
    value: Any
    """The value itself, when it cannot be encoded."""
    status: Status
    tier: str | None
    semantic: SemanticMatch | None = None
    """What came of looking for the answer to another question."""

    def copy(self, kind: Any) -> Any:
        """A caller's own copy of the value.

        Raises:
            UnstorableValueError: it is of another type.
        """
        if self.entry is None:
            return self.value
        return decode(self.entry.content, self.entry.payload, kind)


class Answer(NamedTuple):
    """What one caller gets."""

    landing: Landing
    status: Status
    superseded: bool = False

    def result(self, key: bytes, kind: Any, now: int, *, vouched: bool = True) -> CacheResult[Any]:
        """The value with where it came from, as of `now`; `vouched`: see `Markers.is_vouched`."""
        entry = self.landing.entry
        value = self.landing.copy(kind)
        if entry is None:
            return CacheResult(
                value=value,
                status=self.status,
                fingerprint=key,
                superseded=self.superseded,
                semantic=self.landing.semantic,
            )
        return CacheResult(
            value=value,
            status=self.status,
            tier=self.landing.tier,
            fingerprint=key,
            age=max(0, now - entry.created) / MICROS,
            saved=0.0 if self.status == "miss" else entry.cost / MICROS,
            superseded=self.superseded,
            unverified=not vouched and self.landing.tier is not None,
            model=entry.facts.model,
            usage=entry.facts.usage,
            tags=entry.facts.tags,
            semantic=self.landing.semantic,
        )


def entry_of(view: View, key: bytes, namespace: str) -> Entry:
    """The entry that memory holds."""
    content, payload = of_stored_form(view.value)
    # By position: every candidate of a semantic hit comes by here.
    return Entry(
        key,
        namespace,
        content,
        payload,
        unpack_facts(view.facts),
        view.created,
        view.fresh_until,
        view.stale_until,
        view.epoch,
        view.snap,
        view.cost,
    )
