"""Leases: one owner at a time, an end in time, and hearing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from tests.servers.postgres import PostgresServer
from tests.unit.postgres.conftest import PATIENT

KEY, OTHER = b"\1" * 32, b"\2" * 32
ME, YOU = b"me", b"you"


@pytest.fixture
async def timed(postgres_url: str, anyio_backend: str) -> AsyncIterator[tuple[PostgresTier, ManualClock]]:
    """A tier whose time is ours."""
    clock = ManualClock()
    tier = PostgresTier.from_url(postgres_url + PATIENT, clock=clock)
    await tier.open()
    yield tier, clock
    await tier.aclose()


async def test_one_owner_at_a_time(tier: PostgresTier) -> None:
    assert await tier.get_or_lease_many([KEY, OTHER, KEY], ME, 10) == [(None, True)] * 3
    assert await tier.get_or_lease_many([KEY], ME, 10) == [(None, True)]
    assert await tier.get_or_lease_many([KEY], YOU, 10) == [(None, False)]
    assert await tier.lease_many([KEY], YOU, 10) == [False]
    assert await tier.renew_leases([KEY, OTHER], YOU, 10) == [False, False]
    await tier.release_leases([KEY], YOU)
    assert await tier.renew_leases([KEY, OTHER], ME, 10) == [True, True]
    await tier.release_leases([KEY], ME)
    assert await tier.get_or_lease_many([KEY, OTHER], YOU, 10) == [(None, True), (None, False)]


async def test_what_is_there_is_returned_and_not_leased(tier: PostgresTier) -> None:
    await tier.put_many([StoredRecord(KEY, b"x", 1, 1, NEVER, 1)])
    assert await tier.get_or_lease_many([KEY, OTHER], ME, 10) == [(b"x", False), (None, True)]
    assert await tier.lease_many([KEY], YOU, 10) == [True]  # nobody had it; be it there or not
    await tier.delete_many([KEY], (1, 5))
    assert await tier.get_or_lease_many([KEY], YOU, 10) == [(None, True)]


async def test_a_lease_ends_by_time(timed: tuple[PostgresTier, ManualClock]) -> None:
    tier, clock = timed
    await tier.get_or_lease_many([KEY], ME, 10)
    clock.advance(9)
    assert await tier.renew_leases([KEY], ME, 10) == [True]
    clock.advance(9.9)
    assert await tier.get_or_lease_many([KEY], YOU, 10) == [(None, False)]
    clock.advance(0.1)
    assert await tier.renew_leases([KEY], ME, 10) == [False]
    assert await tier.get_or_lease_many([KEY], YOU, 10) == [(None, True)]
    await tier.release_leases([KEY], ME)
    assert await tier.get_or_lease_many([KEY], ME, 10) == [(None, False)]


async def test_of_many_who_ask_at_once_one_gets_it(tier: PostgresTier, postgres_url: str) -> None:
    other = PostgresTier.from_url(postgres_url + PATIENT)
    await other.open()
    held: list[bytes] = []

    async def ask(asked: PostgresTier, token: bytes) -> None:
        keys = [KEY, OTHER] if token[-1] % 2 else [OTHER, KEY]
        answers = await asked.get_or_lease_many(keys, token, 10)
        held.extend(token for answer in answers if answer == (None, True))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, other if number % 2 else tier, bytes([number]))
    assert len(held) == 2
    await other.aclose()


async def test_no_lease_is_given_for_what_was_stored_just_before(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """The last owner stores and lets go while the next one is between looking and taking."""
    import asyncpg

    await tier.get_or_lease_many([KEY], YOU, 10)
    owner = await asyncpg.connect(postgres_url)
    transaction = owner.transaction()
    await transaction.start()
    # Not committed yet: to the next one neither has happened, and taking the lease waits for the commit.
    await owner.execute("DELETE FROM llmcache.leases WHERE key = $1", KEY)
    await owner.execute("INSERT INTO llmcache.records VALUES ($1, 1, 1, $2, $2, 1, 1, 'answer')", KEY, NEVER)
    answers = []

    async def ask() -> None:
        answers.extend(await tier.get_or_lease_many([KEY], ME, 10))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        waits = "count(*) > 0 FROM pg_locks WHERE NOT granted"
        await anyio.to_thread.run_sync(postgres_server.wait_until, waits)
        await transaction.commit()
    assert answers == [(b"answer", False)]
    assert await owner.fetchval("SELECT count(*) FROM llmcache.leases") == 0
    await owner.close()


@pytest.mark.parametrize("option", ["", "&pooler=transaction"], ids=["listening", "polling"])
async def test_a_release_is_heard_of(option: str, postgres_url: str, anyio_backend: str) -> None:
    waiting = PostgresTier.from_url(postgres_url + PATIENT + option)
    await waiting.open()
    owner = PostgresTier.from_url(postgres_url + PATIENT)
    await owner.open()
    await owner.get_or_lease_many([KEY, OTHER], ME, 600)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(waiting.lease_released, KEY)
        await anyio.wait_all_tasks_blocked()
        await owner.release_leases([KEY], ME)
    with anyio.move_on_after(0.05) as scope:
        await waiting.lease_released(OTHER)
    assert scope.cancelled_caught
    await owner.aclose()
    await waiting.aclose()


async def test_a_release_before_waiting_began_is_heard_of(tier: PostgresTier) -> None:
    await tier.lease_released(KEY)


async def test_the_end_of_a_lease_is_heard_of(tier: PostgresTier) -> None:
    await tier.get_or_lease_many([KEY], ME, 0.05)
    await tier.lease_released(KEY)
    assert await tier.get_or_lease_many([KEY], YOU, 1) == [(None, True)]


async def test_a_lost_listener_is_replaced(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer
) -> None:
    await tier.get_or_lease_many([KEY], ME, 600)
    name = postgres_url.rpartition("/")[2]
    listeners = f"FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'LISTEN%'"
    async with anyio.create_task_group() as group:
        group.start_soon(tier.lease_released, KEY)
        wait_until = postgres_server.wait_until
        await anyio.to_thread.run_sync(wait_until, f"count(*) = 1 {listeners}")
        old = postgres_server.execute(f"SELECT pid {listeners}")
        postgres_server.execute(f"SELECT pg_terminate_backend({old})")
        await anyio.to_thread.run_sync(wait_until, f"max(pid) <> {old} {listeners}")
        await tier.release_leases([KEY], ME)


async def test_what_anybody_may_notify_does_no_harm(
    tier: PostgresTier, postgres_server: PostgresServer
) -> None:
    await tier.get_or_lease_many([KEY], ME, 600)
    assert tier._leases is not None
    for payload in ("", "not hex", "00" * 32):
        tier._leases._heard(None, 1, "llmcache_leases", payload)
    assert await tier.renew_leases([KEY], ME, 600) == [True]


async def test_purging_deletes_leases_that_ended(timed: tuple[PostgresTier, ManualClock]) -> None:
    tier, clock = timed
    await tier.get_or_lease_many([KEY], ME, 1)
    clock.advance(1)
    await tier.purge(0)
    clock.advance(-1)  # were it still there, it would be held now
    assert await tier.get_or_lease_many([KEY], YOU, 1) == [(None, True)]


async def test_a_closed_tier_tells_those_who_wait_nothing_and_those_who_ask_that_it_is_closed(
    tier: PostgresTier,
) -> None:
    await tier.aclose()
    with pytest.raises(TierError) as caught:
        await tier.lease_released(KEY)
    assert caught.value.reason == "closed"
