"""Semantic hits: the answer to another request that asks the same.

A candidate is an entry of the same compatibility partition, the fingerprint of the request without its last
user text, so different system prompts, earlier turns, models, tools or parameters never meet. What belongs
here: the way from a text to a decision, and what is learned afterwards. What does not: whether two texts ask
the same (the guards and the verifier, in the core), how sure that must be (`semantic.budget`), what the tiers
hold (`_hydration`).
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import anyio
import anyio.abc

from llmcache_fast._core import FEATURES, Clock, Engine, Judgement, VectorIndex, judge, to_half
from llmcache_fast._entry import Entry, Facet, SemanticMatch, Stage
from llmcache_fast._errors import ConfigurationError, EmbeddingError
from llmcache_fast._evidence import Evidence
from llmcache_fast._hydration import Hydration
from llmcache_fast._lookup import Lookup
from llmcache_fast._questions import Asked, Questions, Subject
from llmcache_fast._stats import SemanticStats
from llmcache_fast.semantic.answers import value_of
from llmcache_fast.semantic.asked import pair_of
from llmcache_fast.semantic.budget import Budget, Source
from llmcache_fast.semantic.embedder import space_of
from llmcache_fast.semantic.embedding import EmbeddingActor
from llmcache_fast.semantic.options import Comparison, SemanticOptions

_log = logging.getLogger("llmcache_fast")

SAME_ANSWER: Final = 0.85
"""Cosine from which two answers count as the same where there is no judge. A guess: no labelled answers were
at hand. Where much hangs on it, give a judge."""
BEYOND_DOUBT: Final = 0.97
"""Cosine from which two questions with the same content words, which ask the same of them and to which no
guard objects, are taken for the same before anything is known. Of 396 such pairs of the development sets
(`benches/semantic/quality.py`) ten are labelled as different; each of them asks the same all the same,
such as "could" for "can"."""
NEAR_EXACT: Final = 0.995
"""Cosine of n-grams below which more than spacing and punctuation differs."""
PARTITIONS: Final = 1 << 16
"""Partitions that are known at once: each turn of each conversation is one of its own."""


class Nearest(NamedTuple):
    """The candidate that came nearest to being an answer."""

    match: SemanticMatch
    entry: Entry
    tier: str
    check: bool = False
    """The provider is to be asked all the same, and the answers compared."""


class _Weighed(NamedTuple):
    """A candidate, and what is thought of it."""

    entry: Entry
    tier: str
    cosine: float
    score: float
    guards: tuple[str, ...]
    stage: Stage
    pair: bytes


class Semantics:
    """The semantic hits of one cache."""

    def __init__(
        self,
        engine: Engine,
        lookup: Lookup,
        options: SemanticOptions,
        *,
        memory: int,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        """`memory`: bytes that vectors may take of those of the cache."""
        self._engine = engine
        self._lookup = lookup
        self._options = options
        self._clock = clock
        self._tasks = tasks
        self._near_exact = bool(getattr(options.embedder, "near_exact", False))
        self.space = space_of(options.embedder)
        self._embedding = EmbeddingActor(options.embedder)
        try:
            self._index = VectorIndex(options.embedder.dimension, memory)
        except ValueError as error:
            raise ConfigurationError(f"semantic: {error}; give the cache more memory") from None
        self._reserved = 0
        self._hydration = Hydration(lookup, self.note, clock=clock, tasks=tasks)
        self._questions = Questions(engine, options, self.space)
        self._partitions: OrderedDict[bytes, str] = OrderedDict()
        """The namespaces of the partitions that the index may hold."""
        self._evidence = Evidence(engine, lookup, options, self.space, clock)
        self._stages: Counter[str] = Counter()
        self.served = self.checks = self.wrong = self.failures = 0
        self.waits = bool(lookup.floors) or options.judge is not None
        """Whether something below memory, or a judge, is waited for on the way to a decision."""
        lookup.noted = self.note

    async def open(self) -> None:
        """Start what makes vectors."""
        await self._tasks.start(self._embedding.run)

    # -- what is asked --------------------------------------------------------------------------------

    def asked(self, subject: Subject) -> Asked | None:
        """What a call asks; None: it is for exact look-ups alone. Raises what is wrong with the request."""
        return self._questions.asked(subject)

    def known(self, asked: Asked) -> bytes | None:
        """The vector of what is asked, if it is remembered."""
        return self._embedding.known(asked.digest)

    async def vector(self, asked: Asked) -> bytes | None:
        """The vector of what is asked, if it has one."""
        try:
            return await self._embedding.vector(asked.text)
        except EmbeddingError:
            self.failures += 1
            return None

    def facet(self, asked: Asked, vector: bytes) -> Facet:
        """What the answer is to be found by."""
        return Facet(asked.partition, self.space, asked.text, to_half(vector))

    # -- finding --------------------------------------------------------------------------------------

    async def find(
        self, asked: Asked, vector: bytes, subject: Subject, is_answer: Callable[[Entry], bool]
    ) -> Nearest | None:
        """The answer to a question that asks the same, if there is one that may be served; or else the one
        that came nearest, with why not. None: nothing is near."""
        partition, namespace, options = asked.partition, subject.namespace, self._options
        self._know(partition, namespace)
        await self._hydration.ready(partition, namespace)
        budget = await self._evidence.budget(namespace)
        nearest: _Weighed | None = None
        for key, cosine in self._index.search(partition, vector, options.candidates, options.floor):
            if key == subject.key:
                continue
            found = await self._entry(key, partition, namespace)
            if found is None or not is_answer(found[0]):
                continue
            weighed = await self._weigh(asked, *found, cosine, subject.options.semantic, budget)
            self._stages[weighed.stage] += 1
            # The nearest that may be the same question decides: one that is farther off and has a better
            # score is wrong more often (`benches/semantic/stream.py`).
            if weighed.stage not in ("guards", "blocked"):
                nearest = weighed
                break
            nearest = nearest or weighed
        return None if nearest is None else self._decided(nearest, partition, budget)

    async def _entry(self, key: bytes, partition: bytes, namespace: str) -> tuple[Entry, str] | None:
        """The entry of a candidate, valid and fresh, of any tier. Of one that is no more, the vector goes."""
        entry = self._lookup.peek(key, namespace)
        found = (entry, "memory") if entry is not None else await self._lookup.read(key, namespace)
        if found is not None:
            facet = found[0].facts.semantic
            if facet is None or facet.partition != partition:
                found = None  # it was stored anew, for another question
        if found is None:
            self._index.remove(partition, key)
            return None
        return found if self._clock() < found[0].fresh_until else None

    async def _weigh(
        self, asked: Asked, entry: Entry, tier: str, cosine: float, least: bool | float, budget: Budget
    ) -> _Weighed:
        """`least`: the score that the caller wants, if it is a number."""
        facet = entry.facts.semantic
        assert facet is not None  # noqa: S101 - `_entry` has looked
        stored = self._questions.stored(entry.key, facet.text)
        judgement = judge(asked.question, stored.question, cosine)
        score, guards = judgement.score, judgement.vetoes
        pair = pair_of(asked.partition, asked.digest, stored.digest)
        stage: Stage
        if guards:
            stage = "guards"
        elif isinstance(least, float) and score < least:
            stage = "verifier"
        elif self._near_exact:
            # Its cosine is none the verifier knows. What the guards let pass and has the same letters is the
            # same question.
            stage = "accepted" if cosine >= NEAR_EXACT else "verifier"
        else:
            verdict = budget.decide(score, entry.key)
            if verdict == "uncertain" and budget.is_unblemished and _is_beyond_doubt(judgement, cosine):
                verdict = "accept"  # until one was wrong: from then on evidence alone decides
            stage = "accepted" if verdict == "accept" else "budget" if verdict == "uncertain" else "verifier"
        if stage in ("accepted", "budget") and await self._evidence.is_blocked(pair, entry.namespace):
            stage = "blocked"
        if stage == "budget" and not budget.is_off:
            comparison = Comparison(asked=asked.text, stored=facet.text, answer=value_of(entry))
            allowed = await self._judged(comparison)
            if allowed is not None:
                stage = "accepted" if allowed else "judge"
                budget.observe(score, entry.key, not allowed, served=allowed, source="judge")
        return _Weighed(entry, tier, cosine, score, guards, stage, pair)

    def _decided(self, weighed: _Weighed, partition: bytes, budget: Budget) -> Nearest:
        entry, tier, cosine, score, guards, stage, pair = weighed
        served = stage == "accepted" and self._options.mode == "on"
        self.served += served
        check = stage == "budget"
        if stage == "accepted" and not self._near_exact:
            check = not served or budget.should_check(score, entry.key)
        match = SemanticMatch(
            served=served,
            stage=stage,
            cosine=cosine,
            score=score,
            guards=guards,
            fingerprint=entry.key,
            namespace=entry.namespace,
            partition=partition,
            pair=pair,
        )
        return Nearest(match, entry, tier, check)

    async def _judged(self, comparison: Comparison) -> bool | None:
        if self._options.judge is None:
            return None
        try:
            verdict = await self._options.judge(comparison)
        except Exception as error:  # noqa: BLE001 - a judge that fails is no reason to fail a call
            _log.warning(
                "the judge of semantic hits raised %s; it counts as no verdict", type(error).__name__
            )
            return None
        return verdict if isinstance(verdict, bool) else None

    # -- learning -------------------------------------------------------------------------------------

    def compare(self, asked: Asked, nearest: Nearest, fresh: Entry) -> None:
        """Compare a stored answer with what the provider has said now, in the background."""
        self._tasks.start_soon(self._learn, asked, nearest, fresh)

    async def _learn(self, asked: Asked, nearest: Nearest, fresh: Entry) -> None:
        try:
            await self._compare(asked, nearest, fresh)
        except Exception as error:  # noqa: BLE001 - what is learned in the background may end nothing else
            self.failed("comparing two answers", error)

    def failed(self, doing: str, error: Exception) -> None:
        """Count a failure, and log its class: its message may hold a text."""
        self.failures += 1
        level = logging.WARNING if self.failures == 1 else logging.DEBUG
        _log.log(level, "semantic hits: %s failed (%s); going on without", doing, type(error).__name__)

    async def _compare(self, asked: Asked, nearest: Nearest, fresh: Entry) -> None:
        facet, match = nearest.entry.facts.semantic, nearest.match
        assert facet is not None  # noqa: S101 - a candidate has one
        stored, now = value_of(nearest.entry), value_of(fresh)
        same = True if stored == now else None
        if same is None:
            same = await self._judged(
                Comparison(asked=asked.text, stored=facet.text, answer=stored, fresh=now)
            )
        if same is None and self._options.judge is None:
            same = await self._alike(stored, now)
        budget = await self._evidence.budget(match.namespace)
        if same is None:
            budget.abandon(match.score, match.fingerprint)
            return
        self.checks += 1
        self.wrong += not same
        source: Source = "shadow" if match.stage == "accepted" else "uncertain"
        budget.observe(match.score, match.fingerprint, not same, served=match.served, source=source)
        await self._evidence.learned(match.namespace)

    async def _alike(self, one: Any, two: Any) -> bool | None:
        """Whether two answers say the same, by their vectors; None where they are no texts."""
        if not isinstance(one, str) or not isinstance(two, str):
            return False if type(one) is type(two) else None
        if " ".join(one.split()).casefold() == " ".join(two.split()).casefold():
            return True
        if self._near_exact:
            return None
        try:
            vectors = [await self._embedding.vector(text) for text in (one, two)]
        except EmbeddingError:
            return None
        return _cosine(*vectors) >= SAME_ANSWER

    def abandon(self, match: SemanticMatch) -> None:
        """A check that was meant is not made."""
        self._tasks.start_soon(self._abandon, match)

    async def _abandon(self, match: SemanticMatch) -> None:
        (await self._evidence.budget(match.namespace)).abandon(match.score, match.fingerprint)

    async def report_wrong(self, match: SemanticMatch) -> None:
        """Never answer the one question of a pair with the answer to the other again, in any process, and
        count it. The entry is the caller's to remove."""
        self._index.remove(match.partition, match.fingerprint)
        await self._evidence.block(match.pair, match.namespace)
        (await self._evidence.budget(match.namespace)).report(match.score, match.fingerprint)
        await self._evidence.learned(match.namespace, at_once=True)

    async def aclose(self) -> None:
        """Write the evidence that is not written yet."""
        await self._evidence.aclose()

    # -- the index ------------------------------------------------------------------------------------

    def note(self, entry: Entry) -> None:
        """An entry has come into memory, or is known to be in a tier."""
        facet = entry.facts.semantic
        if facet is None or not facet.vector or facet.space != self.space:
            return
        try:
            self._index.add(facet.partition, entry.key, facet.vector)
        except (ValueError, MemoryError):
            return  # somebody made it up, or there is no room: it is found exactly all the same
        self._know(facet.partition, entry.namespace)
        used = self._index.used
        if abs(used - self._reserved) > RESERVE_STEP:
            self._reserved = used
            self._engine._reserve(used)

    def _know(self, partition: bytes, namespace: str) -> None:
        self._partitions[partition] = namespace
        self._partitions.move_to_end(partition)
        if len(self._partitions) > PARTITIONS:
            oldest, _ = self._partitions.popitem(last=False)
            self._index.drop_partition(oldest)
            self._hydration.again(oldest)

    def forget(self, namespace: str) -> None:
        """Drop the vectors of what is no more, and all texts and vectors that are kept for speed. What the
        tiers hold still comes back when it is asked for."""
        self._embedding.forget()
        self._questions.forget()
        for partition in [each for each, name in self._partitions.items() if name == namespace]:
            for key in self._index.keys(partition):
                if self._engine._peek(key) is None:
                    self._index.remove(partition, key)
            self._hydration.again(partition)

    def statistics(self) -> SemanticStats:
        """What happened since the cache was opened."""
        index = self._index.statistics()
        return SemanticStats(
            served=self.served,
            stages=dict(self._stages),
            checks=self.checks,
            wrong=self.wrong,
            embedding_failures=self.failures,
            vectors=index.vectors,
            partitions=index.partitions,
            index_bytes=index.bytes,
            budgets=self._evidence.statistics(),
        )


RESERVE_STEP: Final = 1 << 20
"""Bytes by which the vectors may grow before memory hears of it: telling it takes a lock of each shard."""


_COVERED: Final = FEATURES.index("covered_least")
_CHANGED: Final = FEATURES.index("changed_most")
_APART: Final = FEATURES.index("aspects_apart")


def _is_beyond_doubt(judgement: Judgement, cosine: float) -> bool:
    if cosine < BEYOND_DOUBT:
        return False
    features = judgement.features
    return features[_COVERED] == 1.0 and features[_CHANGED] == 0.0 and features[_APART] == 0.0


def _cosine(one: bytes, two: bytes) -> float:
    # Both are of unit length. In Python: a check of two answers has cost a call of the provider by now.
    left, right = memoryview(one).cast("f"), memoryview(two).cast("f")
    return sum(a * b for a, b in zip(left, right, strict=True))
