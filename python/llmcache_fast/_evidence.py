"""What semantic hits have taught: budgets by namespace, and pairs that were reported, kept in the tiers.

What belongs here: reading and writing them, as entries like any other: sealed, blinded, gone with their
namespace. What does not: what they mean (`semantic.budget`, `_semantics`).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, OrderedDict
from typing import Final

from llmcache_fast._core import Clock, Engine
from llmcache_fast._entry import NEVER, Entry, Facts
from llmcache_fast._lookup import Lookup
from llmcache_fast.semantic.budget import Budget, BudgetStatistics
from llmcache_fast.semantic.options import SemanticOptions
from llmcache_fast.semantic.prior import PRIOR

_log = logging.getLogger("llmcache_fast")

BLOCKED: Final = 100_000
"""Reported pairs that this process remembers by itself; all of them stand in the tiers."""
NAMESPACES: Final = 1024
"""Namespaces whose evidence is at hand; that of others is in the tiers."""
SAVE_EVERY: Final = 32
"""Outcomes after which the evidence of a namespace is written: a record of some KB."""


class Evidence:
    """The budgets of one cache, and the pairs that are blocked."""

    def __init__(
        self, engine: Engine, lookup: Lookup, options: SemanticOptions, space: bytes, clock: Clock
    ) -> None:
        """`space`: see `semantic.embedder.space_of`; of another embedder the evidence says nothing."""
        self._engine = engine
        self._lookup = lookup
        self._options = options
        self._space = space
        self._clock = clock
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._unsaved: Counter[str] = Counter()
        self._blocked: OrderedDict[bytes, None] = OrderedDict()

    async def budget(self, namespace: str) -> Budget:
        """The budget of a namespace, with what other processes and earlier ones have found out."""
        budget = self._budgets.get(namespace)
        if budget is None:
            options = self._options
            budget = Budget(
                options.false_hit_budget,
                confidence=options.confidence,
                shadow_rate=options.shadow_rate,
                prior=options.prior or PRIOR,
            )
            await self._gather(budget, namespace)
            budget = self._budgets.setdefault(namespace, budget)
            if len(self._budgets) > NAMESPACES:
                self._unsaved.pop(self._budgets.popitem(last=False)[0], None)
        self._budgets.move_to_end(namespace)
        return budget

    async def learned(self, namespace: str, *, at_once: bool = False) -> None:
        """A budget has changed: write it, now or when enough has come together."""
        self._unsaved[namespace] += 1
        if at_once or self._unsaved[namespace] >= SAVE_EVERY:
            self._unsaved[namespace] = 0
            budget = await self.budget(namespace)
            await self._gather(budget, namespace)
            await self._keep(self._key(namespace), namespace, budget.dump())

    async def block(self, pair: bytes, namespace: str) -> None:
        """Remember a pair (`semantic.asked.pair_of`) without end."""
        self._blocked[pair] = None
        if len(self._blocked) > BLOCKED:
            self._blocked.popitem(last=False)
        await self._keep(pair, namespace, b"")

    async def is_blocked(self, pair: bytes, namespace: str) -> bool:
        """Whether a pair was blocked by any process. Costs a read of each tier."""
        if pair in self._blocked:
            return True
        found = self._lookup.peek(pair, namespace) or await self._lookup.read(pair, namespace)
        return found is not None

    async def aclose(self) -> None:
        """Write what is not written yet."""
        for namespace in [name for name, unsaved in self._unsaved.items() if unsaved]:
            await self.learned(namespace, at_once=True)

    def statistics(self) -> dict[str, BudgetStatistics]:
        """By namespace."""
        return {name: budget.statistics() for name, budget in self._budgets.items()}

    async def _gather(self, budget: Budget, namespace: str) -> None:
        found = await self._lookup.read(self._key(namespace), namespace)
        if found is not None and isinstance(found[0].payload, bytes):
            try:
                budget.merge(found[0].payload)
            except ValueError:
                _log.warning("semantic evidence in tier %s is of no use here; going on without it", found[1])

    async def _keep(self, key: bytes, namespace: str, payload: bytes) -> None:
        await self._lookup.markers.prepare(namespace)
        now = self._clock()
        epoch, snap = self._engine._stamp(self._engine._namespace_id(namespace))
        self._lookup.put(Entry(key, namespace, "bytes", payload, Facts(), now, NEVER, NEVER, epoch, snap, 0))

    def _key(self, namespace: str) -> bytes:
        named = namespace.encode() + self._space
        return hashlib.blake2b(named, digest_size=32, person=b"llmcache proof").digest()
