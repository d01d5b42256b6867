"""What is done when a tier comes back from an outage, in this order: catch up markers, re-check what was
buffered meanwhile, write it at a limited rate from a random moment on, and only then read the tier again.

The breakers of the tier's guard say when there is an outage; here they are probed, so that no caller's time
is spent on finding out. What does not belong here: when a breaker opens or closes (`tiers.breaker`).
"""

from __future__ import annotations

import logging
import math
import random
import secrets
from collections.abc import Awaitable, Callable

import anyio

from llmcache_fast._errors import TierError
from llmcache_fast.actors.write_behind import WriteBehind
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.guarded import Direction, GuardedTier

_log = logging.getLogger("llmcache_fast.recovery")

SPREAD = 0.5
"""Seconds over which the processes that share a tier begin to write to it again."""
RATE = 2_000.0
"""Buffered records a second written to a tier that has just come back."""
DRAIN = 1.0
"""Seconds in which the buffer is written before callers read the tier again; the rest goes on beside them."""
_PAUSE = 0.05
"""Seconds between two rounds at the least: a tier that is busy is asked again, not at once."""


class Recovery:
    """The outages of one tier of a cache."""

    def __init__(
        self,
        tier: GuardedTier,
        writer: WriteBehind,
        *,
        catch_up: Callable[[], Awaitable[bool]],
        is_valid: Callable[[StoredRecord], bool],
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`catch_up` asks for markers anew, and says whether all are known that a reader of the tier needs;
        `is_valid` judges a buffered record by them."""
        self._tier = tier
        self._writer = writer
        self._catch_up = catch_up
        self._is_valid = is_valid
        self._rng = rng
        self._distrusted = False
        self._reading, self._marking = tier.breaker("read"), tier.breaker("markers")

    @property
    def trusted(self) -> bool:
        """Whether entries of the tier may be read: no outage, or all was caught up with since."""
        # Written out: every read of the tier asks.
        return not self._distrusted and self._reading.state == "closed" == self._marking.state

    async def run(self) -> None:
        """Mend one outage after another, until cancelled."""
        while True:
            await self._tier.outage()
            await self._mend()

    async def _mend(self) -> None:
        tier, started = self._tier, anyio.current_time()
        _log.warning("tier %s: outage (%s); going on without it", tier.name, ", ".join(tier.disturbed()))
        self._writer.pace(math.inf)
        try:
            well = False
            while not well:
                self._distrusted |= self._is_out("read", "markers")
                if self._is_out("write"):
                    self._writer.pace(math.inf)
                due = max((tier.breaker(out).retry_at for out in tier.disturbed()), default=0.0)
                await anyio.sleep(max(_PAUSE, due - tier.now()))
                well = await self._probe_all()
        except BaseException:
            # The cache is being closed: what is buffered is tried once more.
            self._writer.pace(anyio.current_time())
            raise
        _log.warning("tier %s: back after %.1f s", tier.name, anyio.current_time() - started)

    async def _probe_all(self) -> bool:
        """One round of what is to be done, as far as it goes; whether all of it is."""
        if not await self._probe("markers", self._catch_up_once):
            return False
        if self._distrusted and not await self._catch_up():
            return False
        self._writer.drop_where(lambda record: not self._is_valid(record))
        absent = secrets.token_bytes(32)
        writable = await self._probe("write", lambda: self._tier.delete_many([absent]))
        if writable:
            pause = SPREAD * self._rng()
            self._writer.pace(anyio.current_time() + pause, RATE)
            await self._writer.flush(pause + DRAIN)
        readable = await self._probe("read", lambda: self._tier.get_many([absent]))
        if readable:
            self._distrusted = False
        return writable and readable

    async def _probe(self, direction: Direction, work: Callable[[], Awaitable[object]]) -> bool:
        """Whether the breaker of `direction` is closed, after as many probes as that takes."""
        for _ in range(2 * self._tier.breaker(direction).options.probes):
            if not self._is_out(direction):
                break
            try:
                await work()
            except TierError:
                break
        return not self._is_out(direction)

    async def _catch_up_once(self) -> None:
        if not await self._catch_up():
            raise TierError("the markers are not known", tier=self._tier.name, operation="markers")

    def _is_out(self, *directions: Direction) -> bool:
        return any(self._tier.breaker(direction).state != "closed" for direction in directions)
