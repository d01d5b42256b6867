"""One computation of a fingerprint across processes: a lease of a shared tier, held while a flight computes.

A lease is a hint that saves money; correctness never depends on it (I4). Whatever its tier does, the answer
to "may I compute?" comes within `wait` seconds, and it is yes.

What belongs here: taking, renewing and giving back leases, and waiting for those of others. What does not:
where a lease lives (`tiers.base.LeasingTier`), what is computed.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import anyio
from anyio.abc import TaskStatus

from llmcache_fast._errors import TierError
from llmcache_fast.actors.reader import BatchActor
from llmcache_fast.tiers.base import LeasingTier

LEASE = 10.0
"""Seconds an owner that crashed or stands still delays the others at the most. Renewed at a third of it."""
WAIT = 60.0
"""Seconds one waits for another process before computing all the same."""
FIRST_POLL, LAST_POLL = 0.05, 1.0
"""Seconds between two looks while another computes, doubling from the first to the last, less up to a half of
jitter. Polling finds what a lost message would have said; the message makes it immediate."""


class Claim(NamedTuple):
    """What came of asking for a fingerprint that is to be computed."""

    envelope: bytes | None = None
    """Another process had it, or has stored it meanwhile."""
    held: bool = False
    """The lease is ours: give it back by `release` when the value is stored, or will not be."""


class LeaseStatistics(NamedTuple):
    """Counts since the start."""

    held: int
    """Leases held now."""
    taken: int
    waited: int
    """Fingerprints that another process was computing."""
    served: int
    """Of these, answered by what the other process stored."""
    expired: int
    """Of these, computed here because waiting took longer than `wait`."""
    lost: int
    """Leases that ended before the computation did."""
    failures: int
    """Calls of the tier that failed; the computation went on without a lease."""


class LeaseActor:
    """The leases of one cache in one tier."""

    def __init__(
        self,
        tier: LeasingTier,
        *,
        seconds: float = LEASE,
        wait: float = WAIT,
        budget: float | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`budget` bounds one look at the tier, in seconds; see `reader.within`."""
        self._tier = tier
        self._token = secrets.token_bytes(16)
        self._seconds = seconds
        self._wait = wait
        self._budget = budget
        self._rng = rng
        self._looks: BatchActor[tuple[bytes | None, bool]] = BatchActor(
            self._fetch, tier.name, "get_or_lease_many"
        )
        self._held: Counter[bytes] = Counter()
        """How many flights of this process hold the lease of a key: one, and those it superseded."""
        self._asking: Counter[bytes] = Counter()
        """How many flights of this process wait for the answer of the tier about a key."""
        self._untaken: set[bytes] = set()
        """Keys whose lease was granted and not taken yet: who asked may have been cancelled meanwhile."""
        self._changed, self._left = anyio.Event(), anyio.Event()
        self._counts: Counter[str] = Counter()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve and renew until cancelled."""
        async with anyio.create_task_group() as group:
            await group.start(self._looks.run)
            group.start_soon(self._renew)
            group.start_soon(self._give_back)
            task_status.started()

    async def claim(self, key: bytes, is_answer: Callable[[bytes], bool], *, there: bool = False) -> Claim:
        """What the tier holds of `key`, the right to compute it, or neither (the tier failed: compute).

        One round trip if the key is there, or free. While another process computes it, waits for what that
        one stores: until it is an answer, until the lease is free, or for `wait` seconds. `there` says that
        what is there is known to be of no use: then an answer or the lease is waited for.
        """
        pause = FIRST_POLL
        waited = False
        until = anyio.current_time() + self._wait
        while True:
            self._asking[key] += 1
            try:
                claim = await self._anew(key, is_answer) if there else await self._look(key)
            except (TierError, TimeoutError):
                self._counts["failures"] += 1
                return Claim()
            finally:
                self._asking[key] -= 1
                if not self._asking[key]:
                    del self._asking[key]
                    self._left.set()
            if claim.held:
                return claim
            if claim.envelope is not None:
                if there or not waited or is_answer(claim.envelope):
                    self._counts["served"] += waited
                    return claim
                # What the other process stored is of no use here.
                there = True
                continue
            left = until - anyio.current_time()
            if left <= 0:
                self._counts["expired"] += 1
                return Claim()
            self._counts["waited"] += not waited
            waited = True
            with anyio.move_on_after(min(left, pause * (1 - self._rng() / 2))):
                try:
                    await self._tier.lease_released(key)
                except TierError:
                    await anyio.sleep(left)
            pause = min(2 * pause, LAST_POLL)

    async def _look(self, key: bytes) -> Claim:
        envelope, held = await self._looks.get(key, self._budget)
        if held:
            self._hold(key)
        return Claim(envelope, held)

    async def _anew(self, key: bytes, is_answer: Callable[[bytes], bool]) -> Claim:
        """The lease of a key that is there; then what is there is looked at again, for the last owner may
        have stored it and gone since."""
        if not (await self._tier.lease_many([key], self._token, self._seconds))[0]:
            return Claim()
        self._untaken.add(key)
        envelope = (await self._tier.get_many([key]))[0]
        self._hold(key)
        if envelope is not None and is_answer(envelope):
            await self.release(key)
            return Claim(envelope)
        return Claim(held=True)

    def _hold(self, key: bytes) -> None:
        self._untaken.discard(key)
        self._held[key] += 1
        self._counts["taken"] += 1
        self._changed.set()

    async def release(self, key: bytes) -> None:
        """Give a lease back: the value is stored, or will not be. Raises nothing because of the tier."""
        self._held[key] -= 1
        if self._held[key] > 0:
            return  # a flight that took the place of this one computes
        if self._held.pop(key) == 0:
            await self._release([key])

    async def aclose(self) -> None:
        """Give back all leases that are held. Raises nothing because of the tier."""
        keys = list(self._held)
        self._held.clear()
        if keys:
            await self._release(keys)

    async def _release(self, keys: list[bytes]) -> None:
        try:
            await self._tier.release_leases(keys, self._token)
        except TierError:
            self._counts["failures"] += 1  # they end by themselves

    async def _renew(self) -> None:
        while True:
            if not self._held:
                self._changed = anyio.Event()
                await self._changed.wait()
            await anyio.sleep(self._seconds / 3)
            keys = list(self._held)
            if not keys:
                continue
            try:
                renewed = await self._tier.renew_leases(keys, self._token, self._seconds)
            except TierError:
                self._counts["failures"] += 1
                continue
            kept = zip(keys, renewed, strict=True)
            self._counts["lost"] += sum(not still and key in self._held for key, still in kept)

    async def _give_back(self) -> None:
        """Give back what was granted to flights that had left when the answer came."""
        while True:
            await self._left.wait()
            self._left = anyio.Event()
            keys = [key for key in self._untaken if key not in self._asking]
            self._untaken.difference_update(keys)
            keys = [key for key in keys if key not in self._held]
            if keys:
                await self._release(keys)

    def statistics(self) -> LeaseStatistics:
        return LeaseStatistics(
            held=len(self._held), **{name: self._counts[name] for name in LeaseStatistics._fields[1:]}
        )

    async def _fetch(self, keys: list[bytes]) -> list[tuple[bytes | None, bool]]:
        found = await self._tier.get_or_lease_many(keys, self._token, self._seconds)
        self._untaken.update(key for key, (_, held) in zip(keys, found, strict=True) if held)
        self._left.set()
        return found
