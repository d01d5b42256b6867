"""The invalidation clocks at the authority, and what is known of them here.

What belongs here: asking the authority, telling it, hearing of it, and what was not told yet. What does not:
which targets a call names (`_invalidation`), deciding what a message means (`_knowledge`), the markers
themselves (`markers` in the core), what a tier's failure costs (`tiers.guarded`).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anyio
import anyio.abc

from llmcache_fast._core import Clock, Engine
from llmcache_fast._errors import TierError
from llmcache_fast._floor import Floor
from llmcache_fast._knowledge import Knowledge, Known
from llmcache_fast._patterns import literal_prefix
from llmcache_fast._stats import CoherenceStats
from llmcache_fast._untold import Untold
from llmcache_fast._wire import Wire
from llmcache_fast.actors.deferred import DeferredLog
from llmcache_fast.actors.follower import Follower
from llmcache_fast.tiers.base import MAX_RULES, MAX_TOLD, Asked, Changes, Message, Raised
from llmcache_fast.tiers.budget import to_wait, within

_log = logging.getLogger("llmcache_fast.coherence")

SYNC_EVERY = 1.0
"""Seconds after which the markers of a namespace are asked for again before a lower tier is read."""
POLLS = 4
"""How often in a lease the authority is asked for what changed."""
ASKED_AT_ONCE = 1_000
"""Namespaces in one question."""
DELIVERED_AT_ONCE = 1_000
"""Targets in one call of the authority: few round trips after a long outage, none of them a long one."""


class Markers:
    """The markers of a cache's namespaces, as far as they are known here."""

    def __init__(
        self,
        engine: Engine,
        authority: Floor | None,
        bus: Floor | None,
        wire: Wire,
        *,
        lease: float,
        clock: Clock,
        log: DeferredLog | None = None,
    ) -> None:
        """`authority` roots the clocks, be it usable or not: two clocks would hide from each other what was
        invalidated by the other. None: this process roots them. `bus` tells of what others invalidate, at
        once; without one it is heard of by asking. `lease`: seconds in which it is heard of at the latest,
        or entries are not vouched for any more. `log` keeps on disk what the authority was not told."""
        self._engine = engine
        self._wire = wire
        self._clock = clock
        self.authority = authority
        self._bus = bus
        self._namespace = ""
        self._knowledge = Knowledge(lease)
        self._doubt = 0.0
        """The end of the last outage: what was known before is not enough."""
        self._ask_after = 0.0
        """The authority did not answer in time: until then nobody waits for it again."""
        self._asking: dict[str, anyio.Event] = {}
        self._tasks: Any = None
        self._deferred: dict[str, Untold] = {}
        self._delivering = anyio.Lock()
        self._log = log
        self._supersede: Callable[[str], None] = lambda namespace: None
        self._follower: Follower | None = None
        self._gaps = 0

    def open(
        self, tasks: anyio.abc.TaskGroup, namespace: str, supersede: Callable[[str], None] | None = None
    ) -> None:
        """`tasks` is where the authority is asked, `namespace` the cache's own; `supersede` is called with a
        namespace of which others invalidated something."""
        self._tasks, self._namespace = tasks, namespace
        if supersede is not None:
            self._supersede = supersede
        if self.authority is not None:
            self._follow(namespace)
            feed = None if self._bus is None else self._bus.tier
            self._follower = Follower(feed, self.hear, self._poll, every=self._knowledge.lease / POLLS)
            tasks.start_soon(self._follower.run)

    def _now(self) -> float:
        """Seconds of the clock that goes on while the machine is suspended: an event loop's may not."""
        return self._clock.monotonic() / 1_000_000

    # -- what may be relied on ------------------------------------------------------------------------

    def is_shared(self, namespace: str) -> bool:
        """Whether stamps of a namespace mean something to others. Before the authority was heard, a stamp is
        of an epoch that nobody else knows."""
        if self.authority is None:
            return True
        known = self._knowledge.get(namespace)
        return known is not None and known.epoch != 0

    def heard(self) -> dict[int, tuple[int, int]]:
        """By namespace that is followed: epoch and seq up to which all its markers are known here."""
        return {known.space: (known.epoch, known.seq) for known in self._knowledge if known.asked}

    def is_vouched(self, namespace: str) -> bool:
        """Whether all that anybody invalidated until `coherence_lease` seconds ago is known here (I2)."""
        return self.authority is None or self._knowledge.vouched(namespace, self._now())

    def statistics(self) -> CoherenceStats | None:
        """What was heard of other processes; None without an authority."""
        if self._follower is None:
            return None
        return CoherenceStats(
            namespaces=len(self._knowledge),
            vouched=self._now() <= self._knowledge.vouched_until(),
            gaps=self._gaps,
            deferred=sum(map(len, self._deferred.values())),
            **self._follower.statistics()._asdict(),
        )

    def is_prepared(self, namespace: str) -> bool:
        """Whether `prepare` would say at once that all is known."""
        if self.authority is None:
            return True
        known = self._knowledge.use(namespace)
        return known is not None and self._is_recent(known)

    def _is_recent(self, known: Known) -> bool:
        return known.as_of >= max(self._now() - min(SYNC_EVERY, self._knowledge.lease), self._doubt)

    async def prepare(self, namespace: str) -> bool:
        """Know the namespace's clock and markers, as of `SYNC_EVERY` seconds ago or later.

        Waits for the authority at most its read budget, and not again until it answers. False: it has not
        answered since its last outage, or has used up its time; its entries are not to be read now.
        """
        floor = self.authority
        if floor is None:
            return True
        known = self._follow(namespace)
        if self._is_recent(known):
            return True
        if not self._is_reachable() or self._now() < self._ask_after:
            return False
        asking = self._asking.get(namespace)
        if asking is None:
            # One for all who come meanwhile, and a task of the cache: no caller's cancellation stops it.
            asking = self._asking[namespace] = anyio.Event()
            self._tasks.start_soon(self._ask_for_all, floor, known, asking)
        if not await within(to_wait(floor.tier.read_budget), asking):
            floor.failed("markers", TimeoutError())
            self._ask_after = self._now() + floor.tier.read_budget
            return False
        return known.as_of >= self._doubt

    async def _ask_for_all(self, floor: Floor, known: Known, done: anyio.Event) -> None:
        try:
            await self._ask(floor, [known])
        finally:
            del self._asking[known.namespace]
            done.set()

    def doubt(self) -> None:
        """What is known by now is not enough: the next reader asks, or is told not to read."""
        self._doubt = self._now()

    async def catch_up(self, floor: Floor) -> bool:
        """Ask for all markers anew after an outage of `floor`; whether all are known that can be."""
        authority = self.authority
        if authority is None or (authority is not floor and not authority.is_readable):
            return True
        self.doubt()
        try:
            await self.restore()
        except TierError as error:
            authority.failed("restore", error)
        return await self._ask(authority, self._knowledge)

    # -- hearing and asking ---------------------------------------------------------------------------

    def hear(self, message: Message | None) -> None:
        """Take in a message of the bus; None says that there may have been others before."""
        if message is None:
            self._ask_soon()
            return
        known = self._knowledge.of_message(message)
        if known is None:
            return
        verdict = known.hear(message)
        if verdict == "old":
            return
        if message.epoch == known.epoch and message.targets is not None:
            # Early is safe, also after a gap: a marker is never too high.
            self._engine._raise(known.space, self._wire.targets(message.targets), message.seq)
            self._supersede(known.namespace)
        if verdict == "gap":
            self._gaps += 1
            self._ask_soon()

    def _ask_soon(self) -> None:
        if self._follower is not None:
            self._follower.wake()

    async def _poll(self) -> None:
        """Ask for what changed in any namespace, if the authority can be asked."""
        floor = self.authority
        if floor is not None and self._is_reachable():
            await self._ask(floor, self._knowledge)

    def _is_reachable(self) -> bool:
        floor = self.authority
        return floor is not None and floor.is_open and floor.tier.breaker("markers").state == "closed"

    def _follow(self, namespace: str) -> Known:
        known = self._knowledge.use(namespace)
        if known is None:
            space = self._engine._namespace_id(namespace)
            known = Known(namespace, space, self._wire.tier_target(space))
            forgotten = self._knowledge.follow(known)
            for each in forgotten:
                # Nobody will hear of what others invalidate in it: its entries here are not to be served.
                self._engine._adopt(each.space, secrets.randbits(63) | 1, 0)
            if forgotten:
                # Not when it is in its own epoch again, either: the markers it had are forgotten with it.
                self._engine._drop_invalid()
        return known

    def _follows(self, known: Known) -> bool:
        """Whether it was not forgotten while the authority was waited for."""
        return self._knowledge.get(known.namespace) is known

    async def _ask(self, floor: Floor, all_known: Iterable[Known]) -> bool:
        """Ask the authority for what changed; whether it answered for all."""
        authority: Any = floor.tier
        spaces = list(all_known)
        learned = True
        try:
            try:
                await self._deliver()
            except TierError as error:
                if error.reason != "epoch":
                    raise
                # Its clock went back, and only a question mends that. What waits is hidden meanwhile.
                learned = False
            for start in range(0, len(spaces), ASKED_AT_ONCE):
                some = spaces[start : start + ASKED_AT_ONCE]
                asked = [known.question() for known in some]
                sent = self._now()
                for known, of, changes in zip(some, asked, await authority.changes(asked), strict=True):
                    learned &= self._learn(known, of, changes, sent)
        except TierError as error:
            floor.failed("markers", error)
            return False
        finally:
            self._vouch()
        return learned

    def _learn(self, known: Known, asked: Asked, changes: Changes, sent: float) -> bool:
        engine, before = self._engine, (known.epoch, known.seq)
        if not self._follows(known):
            return False
        if not known.learn(changes, sent, self._now()):
            _log.warning("an authority answered with an epoch of the past; its entries are not used")
            return False
        engine._adopt(known.space, changes.epoch, 0)
        targets = self._wire.targets([target for target, _ in changes.markers])
        for target, (_, seq) in zip(targets, changes.markers, strict=True):
            engine._raise(known.space, [target], seq)
        for rule, seq in changes.rules:
            self._learn_rule(known, rule, seq)
        if asked.epoch != changes.epoch:
            # These are all; what else is known was forgotten, for markers that cover it.
            kept = dict(changes.rules)
            lost = [rule for rule, (_, seq) in known.rules.items() if rule not in kept and seq <= changes.seq]
            engine._forget_rules(known.space, known.forget(lost))
            known.most_rules = max(MAX_RULES // 2, len(known.rules) + MAX_RULES // 8)
        # Markers first: entries that memory takes meanwhile are judged by them.
        engine._adopt(known.space, changes.epoch, changes.seq)
        if changes.markers or changes.rules or before[0] != known.epoch:
            self._supersede(known.namespace)
        return True

    def _learn_rule(self, known: Known, rule: bytes, seq: int) -> None:
        pattern = self._wire.pattern(known.namespace, rule)
        if pattern is None:
            # Sealed with a key that is not here: it may cover anything of the namespace.
            _log.warning("a rule of the authority cannot be read; all of the namespace is invalidated")
            self._engine._raise(known.space, [known.space], seq)
            return
        known.rules[rule] = pattern, seq
        self._engine._raise_rules(known.space, [pattern], seq)

    def _vouch(self) -> None:
        """Tell the engine until when its entries may be served, for a strict cache."""
        until = max(self._knowledge.vouched_until(), 0.0)
        self._engine._vouch(round(until * 1_000_000))

    # -- telling --------------------------------------------------------------------------------------

    async def raise_all(self, namespace: str, targets: Sequence[int], patterns: Sequence[str] = ()) -> bool:
        """Invalidate. False when the authority could not be told: it is told before anything else later."""
        space = self._engine._namespace_id(namespace)
        if self.authority is None:
            self._engine._raise(space, targets, rules=patterns)
            return True
        known = self._follow(namespace)
        if not self.authority.is_open:
            await self._defer(known, targets, patterns)
            return False
        try:
            await self._deliver()
            await self._tell(known, targets, patterns)
        except TierError as error:
            self.authority.failed("invalidate", error)
            await self._defer(known, targets, patterns)
            return False
        except BaseException:
            # Cancelled: the authority may have done it, so it holds here, too, and is told again.
            with anyio.CancelScope(shield=True):
                await self._defer(known, targets, patterns)
            raise
        return True

    async def _tell(self, known: Known, targets: Sequence[int], patterns: Sequence[str]) -> Raised:
        """Raise markers at the authority, and here."""
        assert self.authority is not None  # noqa: S101 - asked by those who call
        authority: Any = self.authority.tier
        # A sealed rule is another each time.
        rules = [known.rule(pattern) or self._wire.rule(known.namespace, pattern) for pattern in patterns]
        crowded, forget = self._compact(known, rules)
        tier_targets = self._wire.tier_targets([*targets, *crowded])
        sent = self._now()
        raised: Raised = await authority.raise_markers(known.tier_space, tier_targets, rules, forget=forget)
        if not known.raised(raised, sent, self._now()):
            self._ask_soon()
            raise TierError("its clock went back", tier=authority.name, operation="markers", reason="epoch")
        if known.over:
            self._ask_soon()
        if self._follows(known):
            self._engine._adopt(known.space, raised.epoch, 0)
        self._engine._raise(known.space, [*targets, *crowded], raised.seq)
        for rule, pattern in zip(rules, patterns, strict=True):
            known.rules[rule] = pattern, raised.seq
            self._engine._raise_rules(known.space, [pattern], raised.seq)
        self._engine._forget_rules(known.space, known.forget(forget))
        if self._bus is not None and self._bus is not self.authority and self._bus.is_readable:
            named = None if rules or len(tier_targets) > MAX_TOLD else tuple(tier_targets)
            await self._tell_bus(
                self._bus, Message(known.tier_space, raised.epoch, raised.prev, raised.seq, named)
            )
        return raised

    async def _tell_bus(self, floor: Floor, message: Message) -> None:
        bus: Any = floor.tier
        try:
            await bus.tell(message)
        except TierError as error:
            floor.failed("tell", error)  # the others will ask for it

    def _compact(self, known: Known, rules: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """Targets that cover the older half of the rules, and those rules, when there are too many: an entry
        is compared with each rule that is younger than it."""
        if not rules or len(known.rules) + len(rules) <= MAX_RULES // 2:
            return [], []
        forget = sorted(known.rules, key=lambda rule: known.rules[rule][1])[: MAX_RULES // 4]
        prefixes = {literal_prefix(known.rules[rule][0]) for rule in forget}
        if "" in prefixes:
            return [known.space], forget
        return self._engine._named_targets(known.namespace, labels=sorted(prefixes)), forget

    # -- what was not told ----------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take over what processes that are gone could not tell, as if it had been deferred here. To be
        called before anything is read.

        Raises:
            TierError: the folder of the log cannot be used.
        """
        if self._log is None:
            return
        for namespace, targets, rules in await self._log.open():
            known = self._follow(namespace)
            patterns = [self._wire.pattern(namespace, rule) for rule in rules]
            readable = [pattern for pattern in patterns if pattern is not None]
            # One that cannot be read may cover anything of the namespace.
            self._hide(known, targets if len(readable) == len(patterns) else [known.space], readable)

    def _hide(self, known: Known, targets: Iterable[int], patterns: Iterable[str]) -> None:
        """Let an invalidation wait. Until the authority was told, nothing that is covered is served or stored
        here, whatever its stamp: whoever can reach the authority may be ahead of us."""
        waiting = self._deferred.setdefault(known.namespace, Untold())
        waiting.add(self._engine, known, targets, patterns)

    async def _defer(self, known: Known, targets: Sequence[int], patterns: Sequence[str]) -> None:
        self._hide(known, targets, patterns)
        if self._log is not None:
            rules = [self._wire.rule(known.namespace, pattern) for pattern in patterns]
            await self._log.add(known.namespace, targets, rules)

    async def aclose(self) -> None:
        """Let go of the log; what is in it is for the next start."""
        if self._log is not None:
            await self._log.aclose()

    async def _deliver(self) -> None:
        if not self._deferred:
            return
        async with self._delivering:
            for namespace, waiting in list(self._deferred.items()):
                known, through = self._follow(namespace), 0
                while waiting:
                    through = 0 if self._log is None else self._log.begin()
                    targets, patterns = waiting.take(DELIVERED_AT_ONCE)
                    try:
                        raised = await self._tell(known, targets, patterns)
                    except BaseException:
                        waiting.failed()
                        raise
                    waiting.told(self._engine, known, raised.seq)
                del self._deferred[namespace]
                if self._log is not None:
                    # All that was added before the last of it was taken.
                    await self._log.delivered(namespace, [known.space], through=through)
