"""One tier below memory: opening it now or later, its actors, its counts.

What belongs here: the life of one tier in a cache. What does not: the order of the tiers, what is read and
written (`_lookup`); what a tier's failure costs (`tiers.guarded`).
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import anyio
import anyio.abc
from anyio.abc import TaskStatus

from llmcache_fast._entry import Entry
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._stats import TierStats
from llmcache_fast.actors.leases import LeaseActor
from llmcache_fast.actors.reader import ReadActor
from llmcache_fast.actors.recovery import Recovery
from llmcache_fast.actors.writers import Writers
from llmcache_fast.tiers.base import StoredRecord, Tier
from llmcache_fast.tiers.guarded import GuardedTier

_log = logging.getLogger("llmcache_fast")

PURGE_EVERY = 60.0
"""Seconds between two clean-ups of a tier."""
OPEN_AGAIN, OPEN_AGAIN_MAX = 0.5, 30.0
"""Seconds after which a tier that did not open is tried again; doubling, less up to a half of jitter."""
_LOOK = 0.02
"""Seconds between two looks at whether a tier that is being closed is in an outage."""


@dataclass(slots=True)
class Lease:
    """A flight's right to compute among the processes that share a tier."""

    is_answer: Callable[[Entry], bool]
    """Whether what another process stored makes computing unnecessary."""
    asked: bool = False
    """Whether the tier that grants it was looked at; not, if one above had something."""
    held: bool = False
    there: bool = False
    """The tier holds something, and was therefore not asked for the right."""


class Floor:
    """One tier below memory behind its guard, with its actors and counts."""

    def __init__(self, tier: Tier, writers: Writers, clock: Any) -> None:
        self.tier = tier if isinstance(tier, GuardedTier) else GuardedTier(tier)
        self.reader = ReadActor(self.tier)
        self.read_budget = self.tier.read_budget
        self.name = writers.add(self.tier)
        """Of the tier among those of the cache."""
        self.writer = writers.buffer(self.name)
        self._clock = clock
        self.recovery: Recovery | None = None
        """Set when it has opened."""
        self.leases: LeaseActor | None = None
        self.reads = self.hits = self.errors = 0
        self.incidents: Counter[str] = Counter()

    def lend(self, wait: float) -> None:
        """Take leases from this tier; another process's computation is waited for `wait` seconds."""
        leasing: Any = self.tier
        self.leases = LeaseActor(leasing, wait=wait, budget=self.tier.read_budget)

    @property
    def is_open(self) -> bool:
        """Whether it may be written to, if only into its buffer."""
        return self.recovery is not None

    @property
    def is_readable(self) -> bool:
        """Whether it is open, not in an outage, and what came after the last one is done."""
        return self.recovery is not None and self.recovery.trusted

    def statistics(self) -> TierStats:
        writes = self.writer.statistics()
        return TierStats(
            name=self.tier.name,
            available=self.is_readable,
            reads=self.reads,
            hits=self.hits,
            errors=self.errors,
            incidents=dict(self.incidents),
            writes={name: getattr(writes, name) for name in writes.__slots__},
            guard=self.tier.statistics(),
            leases={} if self.leases is None else self.leases.statistics()._asdict(),
        )

    def failed(self, operation: str, error: BaseException) -> None:
        """Count a failure; log the first. Outages are logged by `recovery`."""
        self.errors += 1
        reason = getattr(error, "reason", "") or type(error).__name__
        level = logging.WARNING if self.errors == 1 else logging.DEBUG
        _log.log(level, "tier %s: %s failed (%s); going on without it", self.tier.name, operation, reason)

    def incident(self, reason: str) -> None:
        """Count a record that was not what was asked for."""
        self.incidents[reason] += 1
        _log.warning("tier %s: a record was not what was asked for (%s)", self.tier.name, reason)

    async def run(
        self,
        tasks: anyio.abc.TaskGroup,
        catch_up: Callable[[], Awaitable[bool]],
        is_valid: Callable[[StoredRecord], bool],
        *,
        task_status: TaskStatus[None],
    ) -> None:
        """Open the tier, now or later, start its actors in `tasks`, and mend its outages (`Recovery`).

        Started when the tier is open, or has not opened for the first time.

        Raises:
            ConfigurationError: an option of the tier that cannot work. Found out later, it is logged.
        """
        for attempt in count():
            try:
                await self.tier.open()
                break
            except TierError as error:
                self.errors += 1
                if attempt == 0:
                    _log.warning("tier %s cannot be used, going on without it: %s", self.tier.name, error)
                    task_status.started()
            except ConfigurationError as error:
                if attempt == 0:
                    raise
                # Found out only now that its server answers: the cache goes on as it did until now.
                self.errors += 1
                _log.error("tier %s cannot be used: %s", self.tier.name, error)
                return
            pause = min(OPEN_AGAIN * 2.0 ** min(attempt, 30), OPEN_AGAIN_MAX)
            await anyio.sleep(pause * (1 - random.random() / 2))  # noqa: S311 - jitter
        await tasks.start(self.reader.run)
        await tasks.start(self.writer.run)
        if self.leases is not None:
            await tasks.start(self.leases.run)
        tasks.start_soon(self._keep_clean)
        self.recovery = recovery = Recovery(self.tier, self.writer, catch_up=catch_up, is_valid=is_valid)
        if attempt == 0:
            task_status.started()
        else:
            _log.warning("tier %s can be used now", self.tier.name)
        await recovery.run()

    async def hopeless(self) -> None:
        """Return when the tier is in an outage, and after its next probe was due, nothing was written for as
        long as a write may take."""
        tier, written, until = self.tier, -1, math.inf
        while anyio.current_time() < until:
            out = tier.disturbed()
            if not out:
                until = math.inf
            elif until == math.inf or self.writer.statistics().written != written:
                written = self.writer.statistics().written
                probed = max(anyio.current_time(), *(tier.breaker(direction).retry_at for direction in out))
                until = probed + tier.write_budget
            await anyio.sleep(_LOOK)

    async def aclose(self) -> None:
        """Close the tier; its writer is to be closed before."""
        self.recovery = None
        try:
            if self.leases is not None:
                await self.leases.aclose()
            await self.tier.aclose()
        except TierError as error:
            self.failed("close", error)

    async def _keep_clean(self) -> None:
        while True:
            await anyio.sleep(PURGE_EVERY)
            try:
                while self.is_open and await self.tier.purge(self._clock()) >= 1000:  # noqa: ASYNC110 - a pace
                    await anyio.sleep(0.05)  # between two batches, so that writers get in
            except TierError as error:
                self.failed("purge", error)
