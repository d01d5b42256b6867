"""What is remembered of computations that failed: refusals to repeat, and when to try again.

What belongs here: which failures are remembered, for how long, and until which invalidation. What does not:
what a caller gets instead (`_computing`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from llmcache_fast._core import Clock, Engine
from llmcache_fast._freshness import MICROS
from llmcache_fast.actors.flight import Flight, own_exception

RETRY_AFTER: Final = 5.0
"""Seconds in which a stale entry whose computation failed is served without trying again."""
MAX_REMEMBERED: Final = 10_000
"""Failures remembered at the most; the oldest go first."""
REMEMBERED_STATUSES: Final = frozenset({400, 404, 405, 410, 413, 414, 415, 422, 451})
"""Refusals that the same request will get again. Never 401, 403, 408, 429 or 5xx."""


class _Failure(NamedTuple):
    error: Exception
    until: int
    namespace: int
    epoch: int
    snap: int
    targets: list[int]


class Failures:
    """The failures of one cache."""

    def __init__(self, engine: Engine, negative_ttl: float, clock: Clock) -> None:
        """`negative_ttl` seconds a refusal is remembered; 0 never."""
        self._engine = engine
        self._negative_ttl = negative_ttl
        self._clock = clock
        self._refused: dict[bytes, _Failure] = {}
        self._retry_after: dict[bytes, int] = {}

    def failed_lately(self, key: bytes) -> bool:
        """Whether a stale entry is to be served without trying to compute it anew."""
        return self._retry_after.get(key, 0) > self._clock()

    def put_off(self, key: bytes) -> None:
        """Do not try again for `RETRY_AFTER` seconds: a stale entry stands in."""
        _remember(self._retry_after, key, self._clock() + round(RETRY_AFTER * MICROS))

    def remember(self, flight: Flight, error: Exception, epoch: int, snap: int) -> None:
        """Remember a refusal that the same request will get again; other failures are not."""
        if not self._negative_ttl or flight.superseded or status_of(error) not in REMEMBERED_STATUSES:
            return
        bare = own_exception(error)
        bare.__cause__ = None  # its frames would keep the whole call alive
        if isinstance(bare, Exception):
            until = self._clock() + round(self._negative_ttl * MICROS)
            failure = _Failure(bare, until, flight.space, epoch, snap, list(flight.targets))
            _remember(self._refused, flight.key, failure)

    def refusal(self, key: bytes) -> BaseException | None:
        """The remembered refusal of a request, an instance of this caller's own."""
        failure = self._refused.get(key)
        if failure is None:
            return None
        valid = self._engine._valid(failure.namespace, failure.epoch, failure.snap, failure.targets)
        if self._clock() >= failure.until or not valid:
            del self._refused[key]
            return None
        return own_exception(failure.error)

    def forget(self, key: bytes) -> None:
        """Forget what is remembered of a request."""
        self._refused.pop(key, None)
        self._retry_after.pop(key, None)


def status_of(error: BaseException) -> int | None:
    """The HTTP status an SDK's exception tells, if it does."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _remember(table: dict[bytes, Any], key: bytes, value: Any) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]
