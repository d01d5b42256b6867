"""Lending connections: who waits, who is told what, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres.connections import Connections
from tests.servers.postgres import PostgresServer, free_port
from tests.unit.postgres.conftest import PATIENT


async def pool_of(tier: PostgresTier) -> Connections:
    pool = tier._pool
    assert pool is not None
    return pool


async def blocked(tier: PostgresTier, seconds: float = 30) -> asyncio.Task[Any]:
    """A call that holds a connection until it is cut."""
    pool = await pool_of(tier)
    started = asyncio.Event()

    async def work(connection: Any) -> None:
        started.set()
        await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.ensure_future(pool.call("test", work, seconds))
    await started.wait()
    return task


async def test_a_busy_pool_is_no_outage(postgres_url: str, anyio_backend: str) -> None:
    tier = PostgresTier.from_url(postgres_url + "?connections=1&budget=0.2")
    await tier.open()
    holder = await blocked(tier)
    with pytest.raises(TierError, match="all 1 connections were in use for the whole budget") as caught:
        await tier.get_many([bytes(32)])
    assert type(caught.value) is TierError
    assert (caught.value.reason, caught.value.operation) == ("busy", "get_many")
    holder.cancel()
    await tier.aclose()


async def test_a_statement_that_takes_too_long_is_cut_and_its_place_is_free(
    postgres_url: str, anyio_backend: str
) -> None:
    tier = PostgresTier.from_url(postgres_url + "?connections=1&budget=5")
    await tier.open()
    slow = await blocked(tier, 0.1)
    with pytest.raises(TierUnavailableError, match="did not answer in time") as caught:
        await slow
    assert caught.value.reason == "timeout"
    assert await tier.get_many([bytes(32)]) == [None]
    statistics = tier.statistics()
    assert statistics is not None
    assert (statistics.idle, statistics.lent, statistics.cut) == (1, 0, 1)
    await tier.aclose()


async def test_a_cancelled_caller_leaves_the_statement_to_its_end(tier: PostgresTier) -> None:
    pool = await pool_of(tier)
    done = asyncio.Event()

    async def work(connection: Any) -> None:
        await connection.execute("SELECT pg_sleep(0.05)")
        done.set()

    with anyio.move_on_after(0.01) as scope:
        await pool.call("test", work, 5)
    assert scope.cancelled_caught
    await done.wait()
    await asyncio.sleep(0)
    assert pool.statistics().cut == 0
    assert await tier.get_many([bytes(32)]) == [None]


async def test_connections_found_dead_are_replaced_unnoticed(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(tier.get_many, [bytes(32)])
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    assert await tier.get_many([bytes(32)]) == [None]


async def test_suspected_connections_are_not_used_again(tier: PostgresTier) -> None:
    pool = await pool_of(tier)
    used = []

    async def work(connection: Any) -> None:
        used.append(connection)
        if len(used) == 1:
            tier.suspect()
        await connection.execute("SELECT 1")

    await pool.call("test", work, 5)
    await pool.call("test", work, 5)
    tier.suspect()
    await pool.call("test", work, 5)
    assert len(set(used)) == 3
    assert [connection.is_closed() for connection in used] == [True, True, False]


async def test_waiting_calls_are_served_in_turn_by_few_connections(
    postgres_url: str, anyio_backend: str
) -> None:
    tier = PostgresTier.from_url(postgres_url + "?connections=2&budget=10")
    await tier.open()
    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(tier.get_many, [bytes(32)])
    statistics = tier.statistics()
    assert statistics is not None
    assert (statistics.idle, statistics.lent, statistics.waiting) == (2, 0, 0)
    assert statistics.connects <= 2
    await tier.aclose()


async def test_a_server_that_is_not_there(anyio_backend: str) -> None:
    tier = PostgresTier.from_url(f"postgresql://app:hunter2@127.0.0.1:{free_port()}/llm")
    with pytest.raises(TierUnavailableError, match="cannot be reached") as caught:
        await tier.open()
    assert caught.value.reason == "connection"
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_takes_no_more_connections_is_busy(
    postgres_url: str, postgres_server: PostgresServer, anyio_backend: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    role = f"narrow_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
    narrow = postgres_server.url(name, role, "p")
    tier = PostgresTier.from_url(f"{narrow}{PATIENT}&connections=4")
    await tier.open()
    # One connection is all there is: the calls take turns on it.
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(tier.get_many, [bytes(32)])
    late = PostgresTier.from_url(narrow + PATIENT)
    with pytest.raises(TierError) as caught:
        await late.open()
    assert type(caught.value) is TierError
    assert caught.value.reason == "busy"
    await tier.aclose()


async def test_closing_ends_what_waits_and_what_runs(postgres_url: str, anyio_backend: str) -> None:
    tier = PostgresTier.from_url(postgres_url + "?connections=1&budget=0.3")
    await tier.open()
    pool = await pool_of(tier)
    running = await blocked(tier)
    waiting = asyncio.ensure_future(pool.call("test", lambda c: c.execute("SELECT 1"), 30))
    await asyncio.sleep(0)
    connects = pool.statistics().connects
    await tier.aclose()
    for task in (running, waiting):
        with pytest.raises(TierError):
            await task
    assert (pool.statistics().lent, pool.statistics().connects) == (0, connects), "a closed pool connected"
