"""Leases: one process at a time computes a fingerprint, and nothing ever waits for a lease that is gone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.actors.leases import Claim, LeaseActor
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import StoredRecord

KEY = hashlib.sha256(b"a").digest()
DOWN = TierError("down", tier="memory-double", operation="any", reason="io")


class Failing(MemoryTier):
    """Fails the named operations."""

    failing: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.renewed = anyio.Event()
        self.held_up = ""
        """An operation that arrives, and goes on when it may."""
        self.arrived, self.may_go_on = anyio.Event(), anyio.Event()

    async def renew_leases(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        kept = await super().renew_leases(keys, token, seconds)
        self.renewed.set()
        return kept

    async def _enter(self, operation: str) -> None:
        await super()._enter(operation)
        if operation in self.failing:
            raise DOWN
        if operation == self.held_up:
            self.arrived.set()
            await self.may_go_on.wait()


def record(envelope: bytes, key: bytes = KEY) -> StoredRecord:
    return StoredRecord(key, envelope, 1, 10, NEVER, 0)


def any_answer(envelope: bytes) -> bool:
    return True


@pytest.fixture
async def tier(anyio_backend: str) -> Failing:
    tier = Failing()
    await tier.open()
    return tier


@asynccontextmanager
async def process(tier: MemoryTier, *, seconds: float = 5.0, wait: float = 5.0) -> AsyncIterator[LeaseActor]:
    """The leases of one process; leaving it is its death: nothing is given back."""
    actor = LeaseActor(tier, seconds=seconds, wait=wait)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        yield actor
        group.cancel_scope.cancel()


async def test_what_is_there_is_returned_in_one_look(tier: Failing) -> None:
    await tier.put_many([record(b"there")])
    async with process(tier) as actor:
        assert await actor.claim(KEY, lambda envelope: False) == Claim(b"there")
        assert actor.statistics().held == 0


async def test_one_computes_and_the_others_get_what_it_stored(tier: Failing) -> None:
    computations = 0
    values = []

    async with process(tier) as first, process(tier) as second, process(tier) as third:

        async def work(actor: LeaseActor) -> None:
            nonlocal computations
            claim = await actor.claim(KEY, any_answer)
            if claim.held:
                computations += 1
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                await tier.put_many([record(b"value")])
                await actor.release(KEY)
                claim = Claim(b"value")
            values.append(claim.envelope)

        async with anyio.create_task_group() as group:
            for actor in (first, second, third):
                group.start_soon(work, actor)
        taken = [actor.statistics().taken for actor in (first, second, third)]
        served = [actor.statistics().served for actor in (first, second, third)]
    assert computations == 1
    assert values == [b"value"] * 3
    assert (sum(taken), sum(served)) == (1, 2)


async def test_when_the_owner_stored_nothing_another_computes(tier: Failing) -> None:
    async with process(tier) as first, process(tier) as second:
        assert (await first.claim(KEY, any_answer)).held
        claims: list[Claim] = []
        async with anyio.create_task_group() as group:
            group.start_soon(_append, claims, second)
            await anyio.wait_all_tasks_blocked()
            assert claims == []
            await first.release(KEY)
        assert claims == [Claim(held=True)]


async def _append(claims: list[Claim], actor: LeaseActor) -> None:
    claims.append(await actor.claim(KEY, any_answer))


async def test_a_dead_owner_delays_the_others_by_no_more_than_the_lease(tier: Failing) -> None:
    async with process(tier, seconds=0.2) as first:
        assert (await first.claim(KEY, any_answer)).held
    async with process(tier, wait=60) as second:
        with anyio.fail_after(30):
            assert (await second.claim(KEY, any_answer)).held


async def test_a_living_owner_keeps_its_lease(tier: Failing) -> None:
    async with process(tier, seconds=0.15) as first, process(tier, wait=0.6) as second:
        assert (await first.claim(KEY, any_answer)).held
        claim = await second.claim(KEY, any_answer)
        assert (claim, second.statistics().expired, first.statistics().lost) == (Claim(), 1, 0)


async def test_what_is_there_and_useless_is_computed_by_one(tier: Failing) -> None:
    await tier.put_many([record(b"old")])

    def is_new(envelope: bytes) -> bool:
        return envelope == b"new"

    async with process(tier) as first, process(tier) as second:
        assert await first.claim(KEY, is_new, there=True) == Claim(held=True)
        claims: list[Claim] = []

        async def wait() -> None:
            claims.append(await second.claim(KEY, is_new, there=True))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert claims == []
            await tier.put_many([record(b"new")])
            await first.release(KEY)
        assert claims == [Claim(b"new")]
        assert second.statistics().held == 0


async def test_what_the_other_stored_may_be_useless_here(tier: Failing) -> None:
    async with process(tier) as first, process(tier) as second:
        assert (await first.claim(KEY, any_answer)).held
        claims: list[Claim] = []

        async def wait() -> None:
            claims.append(await second.claim(KEY, lambda envelope: False))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await tier.put_many([record(b"of another type")])
            await first.release(KEY)
        assert claims == [Claim(held=True)]


@pytest.mark.parametrize("operation", ["get_or_lease_many", "lease_many", "get_many"])
async def test_a_failing_tier_is_no_reason_not_to_compute(tier: Failing, operation: str) -> None:
    tier.failing = frozenset({operation})
    async with process(tier) as actor:
        there = operation != "get_or_lease_many"
        assert await actor.claim(KEY, any_answer, there=there) == Claim()
        assert actor.statistics().failures == 1
        assert actor.statistics().held == 0


async def test_a_release_that_fails_ends_by_time(tier: Failing) -> None:
    async with process(tier, seconds=0.1) as first, process(tier, wait=60) as second:
        assert (await first.claim(KEY, any_answer)).held
        tier.failing = frozenset({"release_leases"})
        await first.release(KEY)
        with anyio.fail_after(30):
            assert (await second.claim(KEY, any_answer)).held


async def test_a_superseded_flight_does_not_give_back_what_its_successor_holds(tier: Failing) -> None:
    async with process(tier) as first, process(tier, wait=0.05) as second:
        assert (await first.claim(KEY, any_answer)).held
        assert (await first.claim(KEY, any_answer)).held, "the same process, a newer flight"
        await first.release(KEY)
        assert await second.claim(KEY, any_answer) == Claim()
        await first.release(KEY)
        assert (await second.claim(KEY, any_answer)).held


async def test_a_lost_lease_is_counted(tier: Failing) -> None:
    async with process(tier, seconds=0.06) as first:
        assert (await first.claim(KEY, any_answer)).held
        await tier.release_leases([KEY], first._token)
        with anyio.fail_after(30):
            await tier.renewed.wait()
            await anyio.wait_all_tasks_blocked()
        assert first.statistics().lost == 1


@pytest.mark.parametrize("there", [False, True])
async def test_what_is_granted_to_who_has_left_is_given_back(tier: Failing, there: bool) -> None:
    tier.held_up = "get_many" if there else "get_or_lease_many"
    async with process(tier, seconds=60) as first, process(tier, wait=60) as second:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(first.claim, KEY, any_answer, there=there))
            await tier.arrived.wait()
            group.cancel_scope.cancel()
        tier.held_up = ""
        tier.may_go_on.set()
        with anyio.fail_after(10):
            assert (await second.claim(KEY, any_answer)).held
        assert first.statistics().held == 0
