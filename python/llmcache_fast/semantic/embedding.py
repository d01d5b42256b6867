"""The embedding actor: vectors of single texts, through an embedder that takes many.

It never waits for a batch to fill: it takes what has arrived. While one call is under way the next batch
gathers, so batches grow with the load and a lone text pays no delay. A text that several ask for is embedded
once, and remembered. What does not belong here: what a missing vector means (its callers take it for "no
match"), and how vectors are made (`embedders`).
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskStatus

from llmcache_fast._errors import EmbeddingError
from llmcache_fast.semantic.embedder import Embedder, check, vectors_of
from llmcache_fast.semantic.vector_cache import VectorCache, VectorCacheStatistics, digest_of
from llmcache_fast.tiers.breaker import Breaker, BreakerOptions, Outcome, State
from llmcache_fast.tiers.signal import Running, Signal

_log = logging.getLogger("llmcache_fast.embedding")

PAUSES = BreakerOptions(window=10, least=3, backoff=1.0, max_backoff=30.0, probes=1)
"""When an embedder that fails is left alone. A probe costs its callers up to the budget, and without it
nothing is lost but semantic matches: it is tried less often than a tier is."""


@dataclass(slots=True, eq=False)
class _Job:
    """One text, and those who wait for its vector."""

    key: bytes
    text: str
    done: Signal
    waiters: int = 0
    started: bool = False
    vector: bytes | None = None
    error: EmbeddingError | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingStatistics:
    """Counts of an embedding actor since its start."""

    asked: int
    """Calls of `vector`."""
    joined: int
    """Those of them that waited for a vector somebody else had asked for."""
    waiting: int
    """Texts that wait for a call to start, those among them that are given up by all."""
    running: int
    """Calls of the embedder under way."""
    batches: int
    """Calls of the embedder."""
    texts: int
    """Texts in them."""
    failures: int
    """Calls that failed, were too slow or returned something else than the vectors asked for."""
    without: int
    """Texts to which the embedder gave no direction: zeros, or a NaN or an infinity among the numbers."""
    timeouts: int
    """Calls of `vector` that waited for their whole budget."""
    refused: int
    """Calls of `vector` that were not tried: the embedder failed too often just now, stands still, or has
    more to do than it can within the budget."""
    state: State
    """Of the breaker: closed, open (the embedder is left alone), half-open (being tried)."""
    cache: VectorCacheStatistics


class EmbeddingActor:
    """Gives texts their vectors: `run` in a task group, and then `vector` by any number of tasks of its
    loop."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        budget: float = 1.0,
        max_batch: int = 32,
        max_characters: int = 8_000,
        concurrency: int = 2,
        cache_bytes: int = 16 * 1024 * 1024,
        pauses: BreakerOptions = PAUSES,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`budget` bounds a call of `vector`, and one of the embedder, in seconds; `max_batch` a call of the
        embedder in texts, `max_characters` in characters (a longer text goes alone), `concurrency` its calls
        under way, `cache_bytes` the vectors that are remembered.

        MiniLM gains nothing from batches beyond 16 (benches/test_embedding.py); an endpoint takes a round
        trip for each. 8,000 characters in long texts are half a second of MiniLM on one thread, 0.2 to 0.27
        ms a token: half of the budget.

        Raises:
            ConfigurationError: `embedder` is none.
        """
        check(embedder)
        if min(max_batch, max_characters, concurrency) < 1 or budget <= 0:
            raise ValueError("max_batch, max_characters and concurrency must be at least 1, budget above 0")
        self._embedder = embedder
        self._budget = budget
        self._max_batch = max_batch
        self._max_characters = max_characters
        self._concurrency = concurrency
        self._breaker = Breaker(pauses, rng)
        self._cache = VectorCache(cache_bytes)
        self._jobs: dict[bytes, _Job] = {}
        """By the digest of their text, until they have ended."""
        self._queue: deque[_Job] = deque()
        self._idle: list[Signal] = []
        """One of each worker that has nothing to do."""
        self._started: list[float] = []
        """When the calls under way began."""
        self._pace = 0.0
        """Seconds between two texts, while texts wait: of late, the last call counts for a fifth."""
        self._clock: Running | None = None
        self._closed = False
        self._asked = self._joined = self._batches = self._texts = 0
        self._failures = self._without = self._timeouts = self._refused = 0

    def known(self, digest: bytes) -> bytes | None:
        """The vector of the text of a digest (`vector_cache.digest_of`), if it is remembered."""
        return self._cache.get(digest)

    async def vector(self, text: str) -> bytes:
        """Its vector: little-endian float32, of unit length.

        Raises:
            EmbeddingError: it has none, or not in time; an instance of the caller's own.
        """
        if self._clock is None or self._closed:
            raise self._error("the embedding actor is not running", "closed")
        self._asked += 1
        key = digest_of(text)
        if (known := self._cache.get(key)) is not None:
            return known
        job = self._jobs.get(key)
        if job is None:
            self._refuse(self._clock.now())
            job = self._begin(key, text, self._clock)
        else:
            self._joined += 1
        await self._wait(job)
        if job.error is not None:
            raise job.error.again() from job.error.__cause__
        if job.vector is None:
            self._timeouts += 1
            raise self._error(f"gave no vector within {self._budget:g} s", "timeout")
        return job.vector

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Those who still wait then get an `EmbeddingError`."""
        self._clock = clock = Running()
        try:
            async with anyio.create_task_group() as group:
                for _ in range(self._concurrency):
                    group.start_soon(self._work, clock)
                task_status.started()
        finally:
            self._closed = True
            self._end(list(self._jobs.values()), self._error("the embedding actor was closed", "closed"))
            self._queue.clear()
            self._cache.clear()

    def forget(self, text: str | None = None) -> None:
        """Remember the vector of `text` no longer, or none at all: a vector tells of its text."""
        if text is None:
            self._cache.clear()
        else:
            self._cache.forget(digest_of(text))

    def statistics(self) -> EmbeddingStatistics:
        return EmbeddingStatistics(
            asked=self._asked,
            joined=self._joined,
            waiting=len(self._queue),
            running=len(self._started),
            batches=self._batches,
            texts=self._texts,
            failures=self._failures,
            without=self._without,
            timeouts=self._timeouts,
            refused=self._refused,
            state=self._breaker.state,
            cache=self._cache.statistics(),
        )

    # -- those who wait -----------------------------------------------------------------------------

    def _refuse(self, now: float) -> None:
        """Raise if waiting would be in vain."""
        if not self._breaker.admits(now):
            self._refused += 1
            raise self._error("not tried: it failed too often just now", "open")
        if len(self._started) == self._concurrency and max(self._started) + self._budget < now:
            # An embedder that takes no notice of cancellation: a worker thread, or a driver that ignores it.
            self._refused += 1
            raise self._error("not tried: its calls under way do not end", "busy")
        if len(self._queue) * self._pace > self._budget:
            # Whoever waits in vain has waited for the whole budget: in an overload that would be everybody.
            self._refused += 1
            raise self._error("not tried: too many texts wait", "busy")

    def _begin(self, key: bytes, text: str, clock: Running) -> _Job:
        job = self._jobs[key] = _Job(key, text, clock.signal())
        self._queue.append(job)
        if self._idle:
            # It runs when all that is ready now has run: whoever asks meanwhile is in the batch.
            self._idle.pop().set()
        return job

    async def _wait(self, job: _Job) -> None:
        job.waiters += 1
        try:
            with anyio.move_on_after(self._budget) as scope:
                await job.done.wait()
        finally:
            job.waiters -= 1
        if scope.cancelled_caught and job.started:
            # Its call may never end: nobody is to join it any more. If it ends after all, the vector is kept.
            self._drop(job)

    def _drop(self, job: _Job) -> None:
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]

    # -- the workers --------------------------------------------------------------------------------

    async def _work(self, clock: Running) -> None:
        while True:
            while not self._queue:
                idle = clock.signal()
                self._idle.append(idle)
                await idle.wait()
            batch = self._take()
            if not batch:
                continue
            permit = self._breaker.admit(clock.now())
            if permit is None:
                self._refused += len(batch)
                self._end(batch, self._error("not tried: it failed too often just now", "open"))
                continue
            outcome: Outcome = "unknown"
            began = clock.now()
            self._started.append(began)
            try:
                outcome = await self._embed(batch)
            finally:
                self._started.remove(began)
                self._breaker.ended(permit, outcome, clock.now())
            if outcome == "good":
                took = (clock.now() - began) / len(batch) / self._concurrency
                self._pace += (took - self._pace) / 5

    def _take(self) -> list[_Job]:
        """The next texts of the queue that somebody waits for."""
        batch: list[_Job] = []
        characters = 0
        while self._queue and len(batch) < self._max_batch:
            job = self._queue[0]
            if job.waiters:
                characters += len(job.text)
                if batch and characters > self._max_characters:
                    break
                job.started = True
                batch.append(job)
            else:
                self._drop(job)
            self._queue.popleft()
        return batch

    async def _embed(self, batch: list[_Job]) -> Outcome:
        self._batches += 1
        self._texts += len(batch)
        error: EmbeddingError | None = None
        try:
            with anyio.move_on_after(self._budget) as scope:
                result = await self._embedder.embed([job.text for job in batch])
                for job, vector in zip(batch, vectors_of(result, len(batch), self._embedder), strict=True):
                    job.vector = vector
            if scope.cancelled_caught:
                error = self._error(f"gave no vector within {self._budget:g} s", "timeout")
        except anyio.get_cancelled_exc_class() as cancellation:
            if anyio.current_effective_deadline() == -math.inf:
                raise  # the actor is being closed: `run` tells those who wait
            # The embedder raised it itself, as one does that waits for a task that was cancelled.
            error = self._failed(cancellation)
        except Exception as failure:  # noqa: BLE001 - any failure must be handed on
            # It must reach those who wait and must not end the actor. Its text may quote theirs.
            error = self._failed(failure)
        if error is not None:
            self._failures += 1
            self._end(batch, error)
            return "bad"
        for job in batch:
            if job.vector is None:
                self._without += 1
                job.error = self._error("gave this text no direction", "no_vector")
            else:
                self._cache.put(job.key, job.vector)
        self._end(batch)
        return "good"

    def _failed(self, failure: BaseException) -> EmbeddingError:
        _log.warning("the embedder %s raised %s", self._embedder.name, type(failure).__name__)
        if isinstance(failure, EmbeddingError):
            return failure.again()
        error = self._error(f"it raised {type(failure).__name__}", "failed")
        error.__cause__ = failure
        return error

    def _end(self, jobs: list[_Job], error: EmbeddingError | None = None) -> None:
        for job in jobs:
            if error is not None:
                job.error = error
            self._drop(job)
            job.done.set()

    def _error(self, text: str, reason: str) -> EmbeddingError:
        return EmbeddingError(text, embedder=self._embedder.name, reason=reason)
