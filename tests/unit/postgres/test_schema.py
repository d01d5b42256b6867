"""Making the tables: once, by one process, with no more rights than needed, and never behind a back."""

from __future__ import annotations

import logging
import re

import anyio
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier, schema
from tests.contract.clocks import clock_of, markers_of
from tests.servers.postgres import PostgresServer
from tests.unit.postgres.conftest import PATIENT

RECORD = StoredRecord(bytes(32), b"x", 1, 1, NEVER, 1)


def database(url: str) -> str:
    return url.rpartition("/")[2]


async def test_opening_makes_the_tables_once(postgres_url: str, postgres_server: PostgresServer) -> None:
    async with anyio.create_task_group() as group:
        tiers = [PostgresTier.from_url(postgres_url + PATIENT) for _ in range(8)]
        for tier in tiers:
            group.start_soon(tier.open)
    versions = postgres_server.execute(
        "SELECT string_agg(version::text, ',' ORDER BY version) FROM llmcache.migrations",
        database(postgres_url),
    )
    assert versions == ",".join(str(n + 1) for n in range(schema.VERSION))
    for tier in tiers:
        await tier.aclose()


async def test_an_older_schema_is_brought_up_and_keeps_its_records(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    postgres_server.execute(
        f"CREATE SCHEMA llmcache; {schema.scripts('llmcache')[0][1]}", database(postgres_url)
    )
    old = PostgresTier.from_url(f"{postgres_url}{PATIENT}&migrate=0")
    with pytest.raises(TierUnavailableError, match=r"has version 1, .* run `llmcache-fast migrate URL`"):
        await old.open()
    postgres_server.execute(
        r"INSERT INTO llmcache.records VALUES (decode(repeat('00', 32), 'hex'), 1, 1, 9e18, 9e18, 1, 1, 'x')",
        database(postgres_url),
    )
    tier = PostgresTier.from_url(postgres_url + PATIENT)
    assert await tier.migrate() == (1, schema.VERSION)
    assert await tier.migrate() == (schema.VERSION, schema.VERSION)
    await old.open()
    assert await old.get_many([bytes(32)]) == [b"x"]
    await old.aclose()


async def test_without_leave_to_migrate_an_absent_schema_is_told(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    tier = PostgresTier.from_url(f"{postgres_url}{PATIENT}&migrate=0")
    with pytest.raises(TierUnavailableError, match=r"no tables of the tier: run `llmcache-fast migrate URL`"):
        await tier.open()
    assert postgres_server.execute("SELECT to_regnamespace('llmcache')", database(postgres_url)) == ""


async def test_a_newer_schema_is_left_alone(postgres_url: str, postgres_server: PostgresServer) -> None:
    tier = PostgresTier.from_url(postgres_url + PATIENT)
    await tier.open()
    await tier.aclose()
    postgres_server.execute("INSERT INTO llmcache.migrations VALUES (99)", database(postgres_url))
    with pytest.raises(TierUnavailableError, match=r"has version 99, .* upgrade llmcache_fast") as caught:
        await tier.open()
    assert caught.value.reason == "newer"
    assert tier.statistics() is None


@pytest.fixture
def role(postgres_server: PostgresServer, postgres_url: str) -> str:
    """The address of a role that may do nothing but connect."""
    name = f"role_{database(postgres_url)}"
    postgres_server.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2' NOINHERIT; "
        f"REVOKE ALL ON DATABASE {database(postgres_url)} FROM PUBLIC; "
        f"GRANT CONNECT ON DATABASE {database(postgres_url)} TO {name}"
    )
    postgres_server.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", database(postgres_url))
    return postgres_server.url(database(postgres_url), name, "hunter2")


async def test_a_role_that_owns_only_its_schema_is_enough(
    role: str, postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = f"role_{database(postgres_url)}"
    refused = PostgresTier.from_url(role + PATIENT)
    with pytest.raises(TierUnavailableError, match="CREATE SCHEMA llmcache AUTHORIZATION") as caught:
        await refused.open()
    assert caught.value.reason == "permission"
    postgres_server.execute(f"CREATE SCHEMA llmcache AUTHORIZATION {name}", database(postgres_url))
    tier = PostgresTier.from_url(f"{role}{PATIENT}&partitions=4")
    await tier.open()
    await use_all(tier)
    await tier.aclose()


async def test_a_role_that_owns_nothing_needs_the_rights_the_docs_list(
    role: str, postgres_server: PostgresServer, postgres_url: str
) -> None:
    owner = PostgresTier.from_url(postgres_url + PATIENT)
    await owner.migrate()
    tier = PostgresTier.from_url(f"{role}{PATIENT}&migrate=0")
    with pytest.raises(TierUnavailableError) as caught:
        await tier.open()
    assert caught.value.reason == "permission"
    name = f"role_{database(postgres_url)}"
    postgres_server.execute(
        f"GRANT USAGE ON SCHEMA llmcache TO {name}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA llmcache TO {name}",
        database(postgres_url),
    )
    await tier.open()
    await use_all(tier)
    await tier.aclose()


async def use_all(tier: PostgresTier) -> None:
    assert await tier.put_many([RECORD._replace(partition=bytes(32))]) == (1, 0, 0)
    assert (await tier.members(bytes(32)))[0] == [RECORD.key]
    await tier.purge(0)
    assert await tier.get_many([RECORD.key]) == [b"x"]
    assert await tier.get_or_lease_many([b"\1" * 32], b"token", 1) == [(None, True)]
    assert await tier.lease_many([b"\1" * 32], b"token", 1) == [True]
    assert await tier.renew_leases([b"\1" * 32], b"token", 1) == [True]
    await tier.release_leases([b"\1" * 32], b"token")
    await tier.lease_released(b"\1" * 32)
    assert (await tier.raise_markers(1, [2]))[0] == (await clock_of(tier, 1))[0]
    assert len(await markers_of(tier, 1, 0)) == 1
    assert (await tier.search("default")).rows == []
    assert await tier.delete_many([RECORD.key], (1, 2)) == 1
    assert await tier.purge(NEVER) == 1
    assert await tier.clear() == 0


async def test_a_wrong_password_is_told_and_never_repeated(
    role: str, caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    caplog.set_level(logging.DEBUG)
    tier = PostgresTier.from_url(role.replace("hunter2", "hunter3"))
    with pytest.raises(TierUnavailableError, match="refused the user or the password") as caught:
        await tier.open()
    assert caught.value.reason == "permission"
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter" not in f"{error!r} {error} {error.__dict__}"
        error = error.__cause__ or error.__context__
    assert "hunter" not in caplog.text


async def test_partitions_hold_the_records(postgres_url: str, postgres_server: PostgresServer) -> None:
    tier = PostgresTier.from_url(f"{postgres_url}{PATIENT}&partitions=4")
    await tier.open()
    records = [RECORD._replace(key=bytes([n]) * 32) for n in range(100)]
    assert await tier.put_many(records) == (100, 0, 0)
    assert await tier.put_many([record._replace(snap=0) for record in records]) == (0, 100, 0)
    counts = postgres_server.execute(
        "SELECT tableoid::regclass, count(*) FROM llmcache.records GROUP BY 1", database(postgres_url)
    )
    assert len(counts.splitlines()) == 4
    assert await tier.get_many([record.key for record in records]) == [b"x"] * 100
    assert await tier.clear() == 100
    await tier.aclose()


def test_the_files_are_numbered_without_gaps() -> None:
    assert [number for number, _ in schema.scripts("s")] == list(range(1, schema.VERSION + 1))
    for partitions in (0, 16):
        text = "".join(script for _, script in schema.scripts("s", partitions))
        assert re.search(r"{\w+}", text) is None
        assert text.count("PARTITION OF") == partitions
