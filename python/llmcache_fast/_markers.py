"""The invalidation clock and its markers at the authority, and what is known of them here.

What belongs here: asking the authority, telling it, and what was not told yet. What does not: which targets a
call names (`_invalidation`), the clock of this process (`markers` in the core), what a tier's failure costs
(`tiers.guarded`).
"""

from __future__ import annotations

from typing import Any

import anyio
import anyio.abc

from llmcache_fast._core import Engine
from llmcache_fast._errors import TierError
from llmcache_fast._floor import Floor
from llmcache_fast._wire import Wire
from llmcache_fast.tiers.base import Asked, Authority, Raised
from llmcache_fast.tiers.budget import within

SYNC_EVERY = 1.0
"""Seconds after which the markers of a namespace are asked for again before a lower tier is read."""
MAX_DEFERRED = 1 << 16
"""Targets of a namespace that are kept for an authority that is away; beyond it, all of the namespace is."""
DELIVERED_AT_ONCE = 1_000
"""Targets in one call of the authority: few round trips after a long outage, none of them a long one."""


class Markers:
    """The markers of a cache's namespaces, as far as they are known here."""

    def __init__(self, engine: Engine, authority: Floor | None, wire: Wire) -> None:
        """`authority` roots the clocks, be it usable or not: two clocks would hide from each other what was
        invalidated by the other. None: this process roots them."""
        self._engine = engine
        self._wire = wire
        self.authority = authority
        self._namespace = ""
        self._synced: dict[str, float] = {}
        """By namespace: when all markers of that moment were known here."""
        self._doubt = 0.0
        """The end of the last outage: what was known before is not enough."""
        self._ask_after = 0.0
        """The authority did not answer in time: until then nobody waits for it again."""
        self._asking: dict[str, anyio.Event] = {}
        self._tasks: Any = None
        self._heard: dict[str, tuple[int, int]] = {}
        """By namespace: epoch and seq up to which all the authority's markers are known here. Not the clock's
        own seq: an invalidation made here moves that past markers of other processes not yet asked for."""
        self._adopted: set[str] = set()
        self._deferred: dict[str, set[int]] = {}
        """By namespace: the targets that the authority could not be told of."""

    def open(self, tasks: anyio.abc.TaskGroup, namespace: str) -> None:
        """`tasks` is where the authority is asked, `namespace` the cache's own."""
        self._tasks, self._namespace = tasks, namespace

    def is_shared(self, namespace: str) -> bool:
        """Whether stamps of a namespace mean something to others. Before the authority was heard, a stamp is
        of an epoch that nobody else knows."""
        return self.authority is None or namespace in self._adopted

    async def prepare(self, namespace: str) -> bool:
        """Know the namespace's clock and markers, as of `SYNC_EVERY` seconds ago or later.

        Waits for the authority at most its read budget, and not again until it answers. False: it has not
        answered since its last outage, or has used up its time; its entries are not to be read now.
        """
        floor = self.authority
        if floor is None:
            return True
        now = anyio.current_time()
        if self._synced.get(namespace, -1.0) >= max(now - SYNC_EVERY, self._doubt):
            return True
        if not floor.is_open or floor.tier.breaker("markers").state != "closed" or now < self._ask_after:
            return False
        asking = self._asking.get(namespace)
        if asking is None:
            # One for all who come meanwhile, and a task of the cache: no caller's cancellation stops it.
            asking = self._asking[namespace] = anyio.Event()
            self._tasks.start_soon(self._ask_for_all, floor, namespace, asking)
        if not await within(floor.tier.read_budget, asking):
            floor.failed("markers", TimeoutError())
            self._ask_after = anyio.current_time() + floor.tier.read_budget
            return False
        return self._synced.get(namespace, -1.0) >= self._doubt

    async def _ask_for_all(self, floor: Floor, namespace: str, done: anyio.Event) -> None:
        try:
            await self._ask(floor, namespace)
        finally:
            del self._asking[namespace]
            done.set()

    async def _ask(self, floor: Floor, namespace: str) -> bool:
        """Ask the authority for clock and markers of a namespace; whether it answered."""
        authority: Any = floor.tier
        space = self._engine._namespace_id(namespace)
        tier_space = self._wire.tier_target(space)
        now = anyio.current_time()
        try:
            await self._deliver(authority)
            heard_epoch, heard = self._heard.get(namespace, (0, 0))
            (changes,) = await authority.changes([Asked(tier_space, heard_epoch, heard)])
        except TierError as error:
            floor.failed("markers", error)
            return False
        epoch, seq = changes.epoch, changes.seq
        self._engine._adopt(space, epoch, 0)
        targets = self._wire.targets([target for target, _ in changes.markers])
        for target, (_, marked) in zip(targets, changes.markers, strict=True):
            self._engine._raise(space, [target], marked)
        # Markers first: a snap that runs ahead of its markers would hide them.
        self._engine._adopt(space, epoch, seq)
        self._adopted.add(namespace)
        self._heard[namespace] = epoch, seq
        self._synced[namespace] = now
        return True

    async def catch_up(self, floor: Floor) -> bool:
        """Ask for all markers anew after an outage of `floor`; whether all are known that can be."""
        authority = self.authority
        if authority is None or (authority is not floor and not authority.is_readable):
            return True
        self._doubt = anyio.current_time()
        for namespace in {self._namespace, *self._adopted}:
            if not await self._ask(authority, namespace):
                return False
        return True

    async def raise_all(self, namespace: str, targets: list[int]) -> bool:
        """Invalidate. False when the authority could not be told: it is told before anything else later."""
        space = self._engine._namespace_id(namespace)
        floor = self.authority
        if floor is None:
            self._engine._raise(space, targets)
            return True
        if not floor.is_open:
            self._engine._raise(space, targets)
            self._defer(namespace, targets)
            return False
        authority: Any = floor.tier
        try:
            await self._deliver(authority)
            epoch, seq, _ = await self._tell(authority, space, targets)
        except TierError as error:
            floor.failed("invalidate", error)
            self._engine._raise(space, targets)
            self._defer(namespace, targets)
            return False
        except BaseException:
            # Cancelled: the authority may have done it, so it holds here too.
            self._engine._raise(space, targets)
            raise
        self._engine._adopt(space, epoch, 0)
        self._engine._raise(space, targets, seq)
        self._adopted.add(namespace)
        return True

    def _defer(self, namespace: str, targets: list[int]) -> None:
        waiting = self._deferred.setdefault(namespace, set())
        waiting.update(targets)
        if len(waiting) > MAX_DEFERRED:
            waiting.clear()
            waiting.add(self._engine._namespace_id(namespace))

    async def _deliver(self, authority: Authority) -> None:
        while self._deferred:
            # Out of the table while they are under way: what is invalidated again meanwhile is told again.
            namespace, waiting = self._deferred.popitem()
            targets = [waiting.pop() for _ in range(min(len(waiting), DELIVERED_AT_ONCE))]
            if waiting:
                self._deferred[namespace] = waiting
            space = self._engine._namespace_id(namespace)
            try:
                epoch, seq, _ = await self._tell(authority, space, targets)
            except BaseException:
                self._defer(namespace, targets)
                raise
            self._engine._adopt(space, epoch, 0)
            self._engine._raise(space, targets, seq)

    async def _tell(self, authority: Authority, space: int, targets: list[int]) -> Raised:
        return await authority.raise_markers(self._wire.tier_target(space), self._wire.tier_targets(targets))
