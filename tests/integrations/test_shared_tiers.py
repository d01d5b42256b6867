"""A cache over memory, disk, Redis and Postgres at once, and what two processes see of each other."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from llmcache_fast import Computed, ConfigurationError, LLMCache, Secrecy, Usage
from tests.servers.redis import RedisServer

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of canary-land?"}]}
ANSWER = "It is canary-town, which compresses well: " + "canary " * 500


@pytest.fixture
def tiers(redis_server: RedisServer, redis_prefix: str, postgres_url: str) -> list[Any]:
    return [f"{redis_server.url}?prefix={redis_prefix}", postgres_url]


async def answer() -> Computed[str]:
    return Computed(ANSWER, usage=Usage(input_tokens=10, output_tokens=900), model="gpt-4o-mini")


async def refuse() -> str:
    raise AssertionError("this was to be found")


async def test_what_one_process_computed_the_others_find(tiers: list[Any], tmp_path: Path) -> None:
    async with LLMCache(tiers=[f"disk://{tmp_path}", *tiers]) as one:
        assert await one.get_or_compute(REQUEST, answer) == ANSWER
        reports = await one.flush()
        assert {name: report.written for name, report in reports.items()} == {
            "disk": 1,
            "redis": 1,
            "postgres": 1,
        }
    for lower, name in ((tiers, "redis"), (tiers[1:], "postgres")):
        async with LLMCache(tiers=lower) as other:
            result = await other.resolve(REQUEST, refuse)
            assert (result.value, result.status, result.tier) == (ANSWER, "hit", name)
            assert result.usage == Usage(input_tokens=10, output_tokens=900)


async def test_an_entry_is_promoted_with_its_times(tiers: list[Any]) -> None:
    redis, postgres = tiers
    async with LLMCache(tiers=[postgres], ttl=600) as one:
        assert await one.set(REQUEST, "value")
    async with LLMCache(tiers=[redis, postgres]) as both:
        assert await both.get(REQUEST) == "value"
        await both.flush()
    async with LLMCache(tiers=[redis]) as other:
        # Redis roots another clock than Postgres: what it holds is of an epoch that this cache does not know.
        assert await other.get(REQUEST) is None
    async with LLMCache(tiers=[redis, postgres]) as both:
        result = await both.resolve(REQUEST, refuse)
        assert result.tier == "redis"
        assert both.stats().tiers[1].reads == 0


async def test_never_means_never_in_every_tier(tiers: list[Any]) -> None:
    for tier in tiers:
        async with LLMCache(tiers=[tier], ttl=None) as one:
            await one.set(REQUEST, "for ever")
        async with LLMCache(tiers=[tier]) as other:
            assert (await other.resolve(REQUEST, refuse)).status == "hit"


async def test_an_invalidation_holds_for_every_reader_of_the_tiers(tiers: list[Any]) -> None:
    async with LLMCache(tiers=tiers) as one:
        await one.set(REQUEST, "old", tags=["doc:7"])
        await one.flush()
        told = await one.invalidate(tags=["doc:7"])
        assert not told.deferred
    async with LLMCache(tiers=tiers) as other:
        assert await other.get(REQUEST) is None
        assert await other.get_or_compute(REQUEST, answer) == ANSWER


async def test_a_deleted_entry_is_gone_from_the_servers(tiers: list[Any], redis_server: RedisServer) -> None:
    async with LLMCache(tiers=tiers) as one:
        await one.set(REQUEST, "value")
        await one.flush()
        assert await one.delete(REQUEST)
        assert not await one.delete(REQUEST)


async def test_search(tiers: list[Any]) -> None:
    start = datetime.now(UTC) - timedelta(seconds=5)
    async with LLMCache(tiers=tiers) as cache:
        for number in range(5):
            await cache.set({"n": number}, f"value {number}", label=f"content/blog/{number}", tags=["blog"])
        await cache.get_or_compute(REQUEST, answer, label="support/faq", tags=["faq", "doc:1"])
        await cache.flush()
        page = await cache.search(label="content/blog/*", limit=3)
        assert len(page.rows) == 3
        rest = await cache.search(label="content/blog/*", limit=3, cursor=page.cursor)
        assert [row.label for row in (*page.rows, *rest.rows)] == [
            f"content/blog/{n}" for n in (4, 3, 2, 1, 0)
        ]
        (row,) = (await cache.search(model="gpt-4o-mini", created_after=start)).rows
        assert (row.key, row.tags) == (cache.fingerprint(REQUEST), ("faq", "doc:1"))
        assert (await cache.search(created_before=start)).rows == []
        assert (await cache.search(namespace="another")).rows == []
        await cache.invalidate(tags=["doc:1"])
        assert (await cache.search(tags=["faq"])).rows == []
        with pytest.raises(ConfigurationError, match="time zone"):
            await cache.search(created_after=datetime(2026, 1, 1))  # noqa: DTZ001 - that it has none is the point
    async with LLMCache() as cache:
        with pytest.raises(ConfigurationError, match="no tier of this cache can be searched"):
            await cache.search()


async def everything(redis_server: RedisServer, postgres_url: str, folder: Path) -> bytes:
    """All that the servers and a folder hold, as bytes."""
    connection = await asyncpg.connect(postgres_url)
    try:
        names = await connection.fetch(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_schema = 'llmcache'"
        )
        rows = [row for (name,) in names for row in await connection.fetch(f"TABLE {name}")]
    finally:
        await connection.close()
    values = [value for row in rows for value in row]
    held = [value if isinstance(value, bytes) else repr(value).encode() for value in values]
    return b"\0".join((*held, dumped(redis_server), *files(folder)))


def dumped(server: RedisServer) -> bytes:
    server.command("CONFIG", "SET", "rdbcompression", "no")
    server.command("SAVE")
    folder = server.command("CONFIG", "GET", "dir").splitlines()[-1]
    return (Path(folder) / "dump.rdb").read_bytes()


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_with_keys_nothing_that_is_stored_reveals_anything(
    tiers: list[Any], redis_server: RedisServer, postgres_url: str, tmp_path: Path
) -> None:
    redis_server.command("FLUSHALL")
    secrecy = Secrecy(secrets.token_bytes(32), blinding=secrets.token_bytes(32))
    paths: dict[str, Any] = {"tiers": [f"disk://{tmp_path}/disk", *tiers], "journal": tmp_path / "journal"}
    async with LLMCache(**paths, secrecy=secrecy, namespace="tenant-canary") as one:
        key = one.fingerprint(REQUEST)
        assert await one.set(REQUEST, ANSWER, tags=["tag-canary"], label="label-canary/x")
        await one.flush()
        await one.invalidate(tags=["another-canary"])
        held = await everything(redis_server, postgres_url, tmp_path)
        assert b"canary" not in held
        assert key not in held
    async with LLMCache(**paths, secrecy=secrecy, namespace="tenant-canary") as other:
        assert await other.get(REQUEST) == ANSWER
        await other.invalidate(tags=["tag-canary"])
        assert await other.get(REQUEST) is None
    async with LLMCache(**paths, namespace="tenant-canary") as without:
        assert await without.get(REQUEST) is None


async def test_without_keys_the_same_look_finds_it(
    tiers: list[Any], redis_server: RedisServer, postgres_url: str, tmp_path: Path
) -> None:
    """What the test above would find if it were there."""
    async with LLMCache(tiers=[f"disk://{tmp_path}/disk", *tiers], compress=False) as one:
        await one.set(REQUEST, ANSWER, tags=["tag-canary"])
        await one.flush()
        held = await everything(redis_server, postgres_url, tmp_path)
        assert b"canary-town" in held
        assert one.fingerprint(REQUEST) in held


DYING = """
import os, signal, sys
import anyio
from llmcache_fast import LLMCache

async def main():
    async with LLMCache(tiers=[sys.argv[1]], journal=sys.argv[2]) as cache:
        await cache.set({"n": 0}, "before")
        print("open", flush=True)
        sys.stdin.readline()
        assert await cache.set({"n": 1}, "during the outage")
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


def dies_in_an_outage(tier: str, journal: Path, server: RedisServer) -> None:
    """A process that ends right after its journal has acknowledged what the frozen server has not."""
    command = [sys.executable, "-c", DYING, tier, str(journal)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        server.freeze()
        try:
            process.stdin.write(b"\n")
            process.stdin.close()
            assert process.wait(60) == -signal.SIGKILL
        finally:
            server.thaw()


async def test_what_the_journal_acknowledged_reaches_a_tier_that_stood_still(
    redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    tier = f"{redis_server.url}?prefix={redis_prefix}"
    dies_in_an_outage(tier, tmp_path, redis_server)
    async with LLMCache(tiers=[tier], journal=tmp_path) as heir:
        await heir._lookup.writers.replayed()
        await heir.flush()
    async with LLMCache(tiers=[tier]) as other:
        assert await other.get({"n": 1}) == "during the outage"


async def test_durability_sync_waits_for_the_last_tier(tiers: list[Any]) -> None:
    async with LLMCache(tiers=tiers, durability="sync") as one:
        assert await one.set(REQUEST, "value")
        async with LLMCache(tiers=tiers) as other:
            assert await other.get(REQUEST) == "value"


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "journal", "tiers": ["redis://127.0.0.1"]},
        {"durability": "sync"},
        {"journal": "/tmp/x"},
        {"durability": "disk", "tiers": ["redis://127.0.0.1"]},
    ],
    ids=str,
)
def test_a_durability_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="durability"):
        LLMCache(**options)
