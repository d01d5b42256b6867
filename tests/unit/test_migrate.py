"""`llmcache-fast migrate`, against a real server."""

from __future__ import annotations

import json

import pytest

from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit
from llmcache_fast.tiers.postgres import schema
from tests.servers.postgres import PostgresServer, free_port


def test_makes_the_tables_and_then_finds_them_made(
    postgres_url: str, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["migrate", postgres_url, "--partitions", "4", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"schema": "llmcache", "before": 0, "after": schema.VERSION}
    assert run(["migrate", postgres_url]) == Exit.OK
    assert "already" in capsys.readouterr().out
    parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'llmcache.records'::regclass"
    assert postgres_server.execute(parts, postgres_url.rpartition("/")[2]) == "4"


def test_prints_sql_that_makes_the_same_tables(
    postgres_url: str, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["migrate", "postgresql://nowhere/x?schema=by_hand", "--print"]) == Exit.OK
    sql = capsys.readouterr().out
    postgres_server.execute(f"CREATE SCHEMA by_hand; {sql}", postgres_url.rpartition("/")[2])
    assert run(["migrate", postgres_url + "?schema=by_hand"]) == Exit.OK
    assert "already" in capsys.readouterr().out


def test_what_cannot_be_done_is_told_by_exit_code_and_without_the_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["migrate", f"postgresql://app:hunter2@127.0.0.1:{free_port()}/x"]) == Exit.ENVIRONMENT
    assert run(["migrate", "postgresql://app:hunter2@db/x?schemer=y"]) == Exit.USAGE
    assert run(["migrate", "mysql://app:hunter2@db/x"]) == Exit.USAGE
    assert "hunter2" not in capsys.readouterr().err
