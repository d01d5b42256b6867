"""Invalidations that the authority could not be told of yet, of one namespace.

What belongs here: what waits, what is under way, and what the engine hides meanwhile. What does not: telling
the authority (`_markers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from llmcache_fast._core import Engine
from llmcache_fast._knowledge import Known

MAX_DEFERRED: Final = 1 << 16
"""What is kept of a namespace for an authority that is away; beyond it, all of the namespace is."""


class Untold:
    """What waits to be told, each target and pattern once; the engine hides all of it."""

    def __init__(self) -> None:
        self._targets: set[int] = set()
        self._patterns: set[str] = set()
        self._under_way: tuple[frozenset[int], frozenset[str]] = frozenset(), frozenset()

    def __len__(self) -> int:
        return len(self._targets) + len(self._patterns)

    def add(self, engine: Engine, known: Known, targets: Iterable[int], patterns: Iterable[str]) -> None:
        """Let it wait, and hide what it covers. What is invalidated again while it is under way is told
        again: the authority may have been told before the second time."""
        told, told_patterns = self._under_way
        new = set(targets) - self._targets
        new_patterns = set(patterns) - self._patterns
        self._targets |= new
        self._patterns |= new_patterns
        engine._defer(known.space, sorted(new - told), sorted(new_patterns - told_patterns))
        if len(self) > MAX_DEFERRED:
            engine._defer(known.space, [known.space] if known.space not in self._targets | told else [])
            # Shown again, for the whole namespace is hidden now.
            engine._deliver(
                known.space,
                sorted(self._targets - {known.space}),
                sorted(self._patterns),
                engine._stamp(known.space)[0],
                0,
            )
            self._targets, self._patterns = {known.space}, set()

    def take(self, limit: int) -> tuple[list[int], list[str]]:
        """Some of it, to be told now; then `told` or `failed`."""
        targets = [self._targets.pop() for _ in range(min(limit, len(self._targets)))]
        patterns = [self._patterns.pop() for _ in range(min(limit, len(self._patterns)))]
        self._under_way = frozenset(targets), frozenset(patterns)
        return targets, patterns

    def told(self, engine: Engine, known: Known, seq: int) -> None:
        """The authority has it at `seq`: show again what does not wait again."""
        targets, patterns = self._under_way
        self._under_way = frozenset(), frozenset()
        shown: Sequence[int] = sorted(targets - self._targets)
        epoch = engine._stamp(known.space)[0]  # of now: it may be followed no more
        engine._deliver(known.space, shown, sorted(patterns - self._patterns), epoch, seq)

    def failed(self) -> None:
        """The authority could not be told: all of it waits again."""
        targets, patterns = self._under_way
        self._under_way = frozenset(), frozenset()
        self._targets |= targets
        self._patterns |= patterns
