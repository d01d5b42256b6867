"""The statements behind a pooler that gives a server connection for one transaction only."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio
import pytest

from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres.statements import Statements
from tests.servers.pgbouncer import running_pgbouncer
from tests.servers.postgres import PostgresServer
from tests.unit.postgres.conftest import PATIENT
from tests.unit.postgres.test_schema import use_all
from tests.unit.postgres.test_tier import key, record


async def test_many_clients_over_few_server_connections(
    postgres_server: PostgresServer, postgres_url: str, anyio_backend: str
) -> None:
    with running_pgbouncer(postgres_server, connections=2) as port:
        pooled = postgres_url.replace(f":{urlsplit(postgres_url).port}/", f":{port}/")
        tiers = [PostgresTier.from_url(f"{pooled}?budget=20&pooler=transaction") for _ in range(4)]

        async def work(tier: PostgresTier, worker: int) -> None:
            for turn in range(5):
                number = worker * 100 + turn
                assert await tier.put_many([record(number, b"%d" % number)]) == (1, 0, 0)
                assert await tier.get_many([key(number)]) == [b"%d" % number]
                assert await tier.get_or_lease_many([key(-number - 1)], b"%d" % worker, 60) == [(None, True)]

        async with anyio.create_task_group() as group:
            for tier in tiers:
                group.start_soon(tier.open)
        async with anyio.create_task_group() as group:
            for worker in range(24):
                group.start_soon(work, tiers[worker % 4], worker)
        await tiers[0].clear()
        await use_all(tiers[0])
        for tier in tiers:
            await tier.aclose()


async def test_a_pooler_that_was_not_mentioned_is_told(
    postgres_server: PostgresServer, postgres_url: str, anyio_backend: str
) -> None:
    with running_pgbouncer(postgres_server, connections=2) as port:
        tier = PostgresTier.from_url(postgres_url.replace(f":{urlsplit(postgres_url).port}/", f":{port}/"))
        with pytest.raises(TierUnavailableError, match="add pooler=transaction") as caught:
            await tier.open()
        assert caught.value.reason == "pooler"


async def test_a_pooler_asked_to_know_statements_is_not_needed(postgres_url: str, anyio_backend: str) -> None:
    # What is sent behind a pooler works without one too.
    tier = PostgresTier.from_url(f"{postgres_url}{PATIENT}&pooler=transaction")
    await tier.open()
    await use_all(tier)
    await tier.aclose()


def test_every_statement_names_its_schema() -> None:
    sql = Statements.of("elsewhere")
    for name in Statements.__slots__:
        statement = getattr(sql, name)
        assert "{s}" not in statement
        assert '"elsewhere".' in statement
