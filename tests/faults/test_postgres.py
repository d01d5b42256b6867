"""The Postgres tier under faults: cancelled callers, restarts, a read-only flip, famine, a server that stands
still. Each check is shown to notice a planted bug, or the fault itself is shown to have happened."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

import anyio
import anyio.to_thread
import asyncpg
import pytest

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.write_behind import WriteBehind
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres import tier as module
from llmcache_fast.tiers.postgres.connections import Connections
from tests.contract.clocks import clock_of, raise_markers
from tests.faults.postgres_storm import (
    KEYS,
    LeakyConnections,
    OneBehindConnections,
    delaying_proxy,
    key,
    record,
    slots_lost,
    storm,
)
from tests.servers.postgres import PostgresServer, running_postgres


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """To be stopped, frozen and flipped."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_url(own_server: PostgresServer) -> Iterator[str]:
    name = own_server.create_database()
    yield own_server.url(name)
    own_server.drop_database(name)


# -- cancelled callers ------------------------------------------------------------------------------------


async def run_storm(
    server: PostgresServer, url: str, cancellations: int, connections: int = 4
) -> tuple[Counter[str], int]:
    """Counts of the storm, and slots lost in it."""
    async with delaying_proxy(server.port, 0.005) as port:
        delayed = url.replace(f":{server.port}/", f":{port}/")
        tier = PostgresTier.from_url(f"{delayed}?budget=30&connections={connections}")
        await tier.open()
        await tier.put_many([record(number) for number in range(KEYS)])
        counts = await storm(tier, cancellations)
        lost = await slots_lost(tier)
        await tier.aclose()
    return counts, lost


@pytest.mark.parametrize(
    "cancellations", [2_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
async def test_cancelled_callers_cost_nobody_a_reply_or_a_connection(
    postgres_server: PostgresServer, postgres_url: str, cancellations: int
) -> None:
    counts, lost = await run_storm(postgres_server, postgres_url, cancellations)
    assert counts["cancelled"] >= cancellations
    assert counts["right"] > 0
    assert counts.keys() == {"cancelled", "right"}, "wrong replies or failures"
    assert lost == 0


async def test_the_storm_notices_connections_that_leak(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Connections", LeakyConnections)
    async with delaying_proxy(postgres_server.port, 0.005) as port:
        delayed = postgres_url.replace(f":{postgres_server.port}/", f":{port}/")
        tier = PostgresTier.from_url(f"{delayed}?budget=0.5&connections=4")
        await tier.open()
        await storm(tier, 20)
        pool = tier._pool
        assert isinstance(pool, Connections)
        assert pool.statistics().lent > 0
        assert await slots_lost(tier) > 0
        await tier.aclose()


async def test_the_storm_notices_replies_of_others(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Connections", OneBehindConnections)
    counts, _ = await run_storm(postgres_server, postgres_url, 2_000, connections=16)
    assert counts["wrong"] > 0


# -- restarts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [3, pytest.param(20, marks=pytest.mark.long)])
async def test_restarts_under_load_lose_nothing_that_was_taken(
    own_server: PostgresServer, own_url: str, restarts: int
) -> None:
    tier = PostgresTier.from_url(f"{own_url}?budget=2")
    await tier.open()
    writer = WriteBehind(tier, attempts=10_000, max_backoff=0.1)
    acknowledged: list[int] = []
    failures: Counter[str] = Counter()
    buffered = 0
    stop = False
    progress = anyio.Event()

    async def put(worker: int) -> None:
        turn = 0
        while not stop:
            number = 1_000_000 * (worker + 1) + turn
            try:
                await tier.put_many([record(number)])
                acknowledged.append(number)
                progress.set()
                found = await tier.get_many([key(number)])
                assert found == [record(number).envelope]
            except TierError as error:
                failures[error.reason] += 1
                await anyio.sleep(0.01)
            turn += 1

    async def buffer() -> None:
        nonlocal buffered
        while not stop:
            assert writer.put_nowait(record(buffered))
            buffered += 1
            await anyio.sleep(0.002)

    async with anyio.create_task_group() as group:
        await group.start(writer.run)
        for worker in range(4):
            group.start_soon(put, worker)
        group.start_soon(buffer)
        for turn in range(restarts):
            enough = len(acknowledged) + 20
            while len(acknowledged) < enough:
                progress = anyio.Event()
                await progress.wait()
            await anyio.to_thread.run_sync(partial(own_server.stop, crash=turn % 2 == 0))
            with pytest.raises(TierUnavailableError):
                await tier.get_many([key(0)])
            await anyio.to_thread.run_sync(own_server.launch)
        stop = True
        report = await writer.aclose(60)
    assert failures.keys() <= {"connection", "restarting", "timeout"}
    assert (report.lost, report.remaining) == (0, 0)
    for numbers in (acknowledged, list(range(buffered))):
        found = await tier.get_many([key(number) for number in numbers])
        assert found == [record(number).envelope for number in numbers]
    assert await slots_lost(tier) == 0
    await tier.aclose()


# -- read-only --------------------------------------------------------------------------------------------


async def takes_writes(tier: PostgresTier) -> bool:
    try:
        await tier.put_many([record(0)])
    except TierUnavailableError:
        return False
    return True


async def test_a_server_that_becomes_read_only_serves_reads_and_heals(
    own_server: PostgresServer, own_url: str
) -> None:
    tier = PostgresTier.from_url(f"{own_url}?budget=5")
    await tier.open()
    await tier.put_many([record(1)])
    stamp = await raise_markers(tier, 1, [2])
    own_server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    own_server.execute("SELECT pg_reload_conf()")
    while await takes_writes(tier):  # noqa: ASYNC110 - its processes take the setting up one by one
        await asyncio.sleep(0.01)
    before = tier.statistics()
    for call in (
        tier.put_many([record(2)]),
        tier.delete_many([key(1)]),
        raise_markers(tier, 1, [3]),
        tier.get_or_lease_many([key(9)], b"t", 1),
    ):
        with pytest.raises(TierUnavailableError) as caught:
            await call
        assert caught.value.reason == "read_only"
    assert await tier.get_many([key(1), key(2)]) == [record(1).envelope, None]
    assert await clock_of(tier, 1) == stamp
    after = tier.statistics()
    assert before is not None
    assert after is not None
    assert after.connects > before.connects, "the old connections may lead to the old primary"
    own_server.execute("ALTER SYSTEM RESET default_transaction_read_only")
    own_server.execute("SELECT pg_reload_conf()")
    while not await takes_writes(tier):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await tier.put_many([record(2)]) == (1, 0, 0)
    assert await tier.get_many([key(1), key(2)]) == [record(1).envelope, record(2).envelope]
    await tier.aclose()


# -- famine -----------------------------------------------------------------------------------------------


async def test_a_server_without_a_free_connection_is_busy_and_no_outage(
    own_server: PostgresServer, own_url: str
) -> None:
    tier = PostgresTier.from_url(f"{own_url}?budget=20&connections=8")
    await tier.open()
    await tier.put_many([record(number) for number in range(KEYS)])
    hoard = []
    while True:
        try:
            hoard.append(await asyncpg.connect(own_url))
        except asyncpg.TooManyConnectionsError:
            break
    rng = random.Random(1)
    counts: Counter[str] = Counter()

    async def caller() -> None:
        number = rng.randrange(KEYS)
        counts["right" if await tier.get_many([key(number)]) == [record(number).envelope] else "wrong"] += 1

    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(caller)
    assert counts == {"right": 300}
    statistics = tier.statistics()
    assert statistics is not None
    assert statistics.idle < 8, "the server had no connection to give"
    late = PostgresTier.from_url(own_url)
    with pytest.raises(TierError) as caught:
        await late.open()
    assert (type(caught.value), caught.value.reason) == (TierError, "busy")
    for connection in hoard:
        await connection.close()
    assert await slots_lost(tier) == 0
    await tier.aclose()


# -- a server that stands still ---------------------------------------------------------------------------


async def test_a_frozen_server_costs_each_caller_its_budget_and_heals(
    own_server: PostgresServer, own_url: str
) -> None:
    tier = PostgresTier.from_url(f"{own_url}?budget=0.2&connect_timeout=1&connections=4")
    await tier.open()
    await tier.put_many([record(1)])
    reasons: Counter[str] = Counter()

    async def caller() -> None:
        try:
            await tier.get_many([key(1)])
        except TierError as error:
            reasons[error.reason] += 1

    own_server.freeze()
    try:
        for _ in range(3):
            # That these end while the server is frozen is the test.
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(caller)
        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            group.cancel_scope.cancel()
    finally:
        own_server.thaw()
    assert reasons.keys() <= {"timeout", "busy"}
    assert reasons["timeout"] > 0
    assert sum(reasons.values()) == 60
    patient = tier.settings.budget
    while True:
        try:
            assert await tier.get_many([key(1)]) == [record(1).envelope]
            break
        except TierError:
            await asyncio.sleep(patient)  # attempts to connect to the frozen server still end
    await tier.aclose()


async def test_closing_a_tier_of_a_frozen_server_ends(own_server: PostgresServer, own_url: str) -> None:
    tier = PostgresTier.from_url(f"{own_url}?budget=0.1")
    await tier.open()
    own_server.freeze()
    try:
        with pytest.raises(TierUnavailableError):
            await tier.get_many([key(1)])
        await tier.aclose()
        again = PostgresTier.from_url(f"{own_url}?budget=0.1&connect_timeout=0.2")
        with pytest.raises(TierUnavailableError) as caught:
            await again.open()
        assert caught.value.reason == "timeout"
    finally:
        own_server.thaw()
