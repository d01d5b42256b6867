"""Invalidating: which targets a call names, and the steps after which it holds (I1).

What belongs here: reading the call, the order of the steps. What does not: the clock (`markers` in the core),
telling the authority (`_markers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmcache_fast._core import Engine
from llmcache_fast._entry import Invalidation
from llmcache_fast._errors import CacheClosedError, ConfigurationError
from llmcache_fast._markers import Markers
from llmcache_fast._options import UNSET, label_of, names
from llmcache_fast.actors.flights import Flights


class Invalidations:
    """The invalidations of one cache."""

    def __init__(
        self,
        engine: Engine,
        markers: Markers,
        flights: Flights,
        *,
        strict: bool,
    ) -> None:
        """`strict`: what the authority could not be told raises."""
        self._engine = engine
        self._markers = markers
        self._flights = flights
        self._strict = strict

    def named(self, namespace: str, *, key: Any = None, tags: Any = UNSET, label: Any = UNSET) -> list[int]:
        """The targets of what was named; none if nothing was.

        Raises:
            ConfigurationError: something that cannot be was named.
        """
        wanted = names("tags", tags)
        if tags is not UNSET and not wanted:
            raise ConfigurationError("tags: the list is empty; nothing was invalidated")
        labels = []
        if label is not UNSET:
            labels = [label_of(label[:-1] if isinstance(label, str) and label.endswith("/*") else label)]
        if key is not None and (not isinstance(key, bytes) or len(key) != 32):
            raise ConfigurationError("key: must be 32 bytes; make them of 64 hex digits by bytes.fromhex")
        return self._engine._named_targets(
            namespace, keys=[] if key is None else [key], tags=list(wanted), labels=labels
        )

    async def apply(
        self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()
    ) -> Invalidation:
        """Raise the markers at the authority and here, and take out what is being computed.

        Raises:
            CacheClosedError: `strict`, and the authority could not be told; it holds in this process.
        """
        # Before, so that what is being stored now is not stamped with a clock that this has moved; and after,
        # for what was started meanwhile.
        superseded = self._flights.supersede(namespace, set(targets), patterns)
        told = await self._markers.raise_all(namespace, list(targets), patterns)
        superseded += self._flights.supersede(namespace, set(targets), patterns)
        if not told and self._strict:
            raise CacheClosedError("the authority could not be told; the invalidation holds in this process")
        seq = self._engine._stamp(self._engine._namespace_id(namespace))[1]
        return Invalidation(seq=seq, deferred=not told, superseded=superseded)
