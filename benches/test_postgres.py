"""The Postgres tier, beside the ways one would use asyncpg by hand and beside pgbench, on a server of its own
with `fsync=on`.

Wall time, not processor time: most of the work is the server's, and what waits for the disk is part of it.
Client and server share the machine, so these figures are bound by its cores; the ratios tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import perf_counter_ns
from typing import Any

import anyio
import asyncpg
import pytest

from benches.figure import OURS, Figure
from benches.rounds import Times
from llmcache_fast._entry import NEVER, Facts
from llmcache_fast.actors.reader import ReadActor
from llmcache_fast.actors.write_behind import WriteBehind
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from tests.servers.postgres import PostgresServer, binaries, running_postgres

ENTRIES = 20_000
CALLERS = 256
VALUE = os.urandom(2048)
POOL = 16
DATABASE = "bench"

Work = Callable[[int], Awaitable[Any]]
"""Does so many operations."""

PLAIN = """
CREATE TABLE plain (key bytea PRIMARY KEY, value bytea NOT NULL);
ALTER TABLE plain ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE TABLE numbered (id integer PRIMARY KEY, value bytea NOT NULL);
ALTER TABLE numbered ALTER COLUMN value SET STORAGE EXTERNAL;
"""
UPSERT = "INSERT INTO plain VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
UNNEST = (
    "INSERT INTO plain SELECT * FROM unnest($1::bytea[], $2::bytea[]) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


@contextlib.asynccontextmanager
async def stage(server: PostgresServer) -> AsyncIterator[tuple[PostgresTier, Any, list[bytes]]]:
    """A tier and a pool over one database, both holding the same entries."""
    server.drop_database(DATABASE)
    server.execute(f"CREATE DATABASE {DATABASE}")
    tier = PostgresTier.from_url(f"{server.url(DATABASE)}?budget=10")
    await tier.open()
    pool = await asyncpg.create_pool(server.url(DATABASE), min_size=POOL, max_size=POOL)
    await pool.execute(PLAIN)
    own = [os.urandom(32) for _ in range(ENTRIES)]
    for start in range(0, ENTRIES, 1000):
        part = own[start : start + 1000]
        await tier.put_many([record(key) for key in part])
        await pool.execute(UNNEST, part, [VALUE] * len(part))
    await pool.executemany("INSERT INTO numbered VALUES ($1, $2)", [(n, VALUE) for n in range(ENTRIES)])
    await pool.execute("VACUUM ANALYZE")
    try:
        yield tier, pool, own
    finally:
        await pool.close()
        await tier.aclose()


def record(key: bytes) -> StoredRecord:
    facts = Facts(tags=("doc:7",), label="bench/rows", model="gpt-5")
    return StoredRecord(key, VALUE, 1, 1, NEVER, 100, 1, NEVER, "bench", facts)


@contextlib.asynccontextmanager
async def readers(server: PostgresServer) -> AsyncIterator[dict[str, Work]]:
    async with stage(server) as (tier, pool, own), anyio.create_task_group() as group:
        reader = ReadActor(tier)
        await group.start(reader.run)
        rng = random.Random(1)

        async def crowd(size: int, get: Callable[[bytes], Awaitable[Any]]) -> None:
            async def caller(count: int) -> None:
                for _ in range(count):
                    assert await get(rng.choice(own)) is not None

            await asyncio.gather(*(caller(size // CALLERS) for _ in range(CALLERS)))

        async def any_by_hand(size: int) -> None:
            for _ in range(size // CALLERS):
                keys = [rng.choice(own) for _ in range(CALLERS)]
                rows = await pool.fetch("SELECT key, value FROM plain WHERE key = ANY($1)", keys)
                found = dict(rows)
                assert [found[key] for key in keys]

        async def fetchrow(key: bytes) -> Any:
            return await pool.fetchrow("SELECT value FROM plain WHERE key = $1", key)

        async def connect_per_call(size: int) -> None:
            for _ in range(max(size // CALLERS, 1)):
                connection = await asyncpg.connect(server.url(DATABASE))
                await connection.fetchrow("SELECT value FROM plain WHERE key = $1", rng.choice(own))
                await connection.close()

        yield {
            f"= ANY of {CALLERS} by hand": any_by_hand,
            OURS: lambda size: crowd(size, reader.get),
            f"asyncpg, pool.fetchrow, {POOL} connections": lambda size: crowd(size, fetchrow),
            "connect per call": connect_per_call,
        }
        group.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def writers(server: PostgresServer) -> AsyncIterator[dict[str, Work]]:
    async with stage(server) as (tier, pool, _), anyio.create_task_group() as group:
        writer = WriteBehind(tier)
        await group.start(writer.run)
        fresh = (os.urandom(32) for _ in itertools.count())

        async def behind(size: int) -> None:
            for _ in range(size):
                writer.put_nowait(record(next(fresh)))
            report = await writer.flush()
            assert (report.written, report.remaining) == (size, 0)

        def batches(size: int) -> Iterator[list[bytes]]:
            for _ in range(0, size, 512):
                yield [next(fresh) for _ in range(512)]

        async def unnest(size: int) -> None:
            for keys in batches(size):
                await pool.execute(UNNEST, keys, [VALUE] * len(keys))

        async def executemany(size: int) -> None:
            for keys in batches(size):
                await pool.executemany(UPSERT, [(key, VALUE) for key in keys])

        async def copy(size: int) -> None:
            for keys in batches(size):
                await pool.copy_records_to_table("plain", records=[(key, VALUE) for key in keys])

        async def rows(size: int) -> None:
            for _ in range(size // 32):
                await pool.execute(UPSERT, next(fresh), VALUE)

        yield {
            "unnest of 512 by hand": unnest,
            OURS: behind,
            "executemany of 512": executemany,
            "COPY of 512 (no upsert)": copy,
            "a row upsert a call": rows,
        }
        group.cancel_scope.cancel()


def pgbench(server: PostgresServer, database: str, seconds: int = 2) -> float:
    """Rows a second that 16 clients of Postgres' own benchmark read, one a statement."""
    script = f"\\set id random(0, {ENTRIES - 1})\nSELECT value FROM numbered WHERE id = :id;\n"
    done = subprocess.run(
        [
            *(binaries() / "pgbench", "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", str(seconds)),
            *("-f", "/dev/stdin", server.url(database)),
        ],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1))


SHARE = {
    "connect per call": 1 / CALLERS,
    "a row upsert a call": 1 / 32,
}
"""Of the operations, what the slow ones do."""


async def measure(works: dict[str, Work], size: int, rounds: int) -> Times:
    """Wall time of interleaved rounds."""
    rng = random.Random(1)
    times = Times({name: [] for name in works})
    for number in range(rounds + 1):
        for name in rng.sample(list(works), len(works)):
            start = perf_counter_ns()
            await works[name](size)
            elapsed = perf_counter_ns() - start
            if number:
                times.rounds[name].append(elapsed / (size * SHARE.get(name, 1)))
    return times


def _figure(work: str, times: Times, base: str, target: float | None) -> Figure:
    rates = {name: f"{1e9 / times.ns(name).median:,.0f} rows/s" for name in times.rounds}
    ratios = {name: times.ratio(name, base) for name in times.rounds}
    return Figure(work, base, ratios, target, rates)


def figures(rounds: int) -> Iterator[Figure]:
    with running_postgres(fsync="on", shared_buffers="256MB", max_wal_size="2GB") as server:

        async def read() -> Figure:
            async with readers(server) as works:
                times = await measure(works, 20 * CALLERS, rounds)
                bench = [await asyncio.to_thread(pgbench, server, DATABASE) for _ in range(3)]
            base = f"asyncpg, pool.fetchrow, {POOL} connections"
            figure = _figure(f"postgres: {CALLERS} concurrent reads of 2 KB", times, base, 1 / 6)
            mine = 1e9 / times.ns(OURS).median
            rate = sorted(bench)[1]
            figure.notes.append(
                f"pgbench -c16: {rate:,.0f} rows/s; ours is {mine / rate:.2f} of it (to reach: 0.75)"
            )
            figure.notes.append(f"to reach: 20,000 rows/s; ours: {mine:,.0f}")
            return figure

        async def write() -> Figure:
            async with writers(server) as works:
                times = await measure(works, 4096, rounds)
            figure = _figure(
                "postgres: write entries of 2 KB behind, fsync on", times, "unnest of 512 by hand", None
            )
            figure.notes.append(
                "ours keeps facts, four indexes and the stamp's order; by hand: key and value"
            )
            figure.notes.append(f"to reach: 15,000 rows/s; ours: {1e9 / times.ns(OURS).median:,.0f}")
            return figure

        yield asyncio.run(read())
        yield asyncio.run(write())


@pytest.mark.parametrize("kind", ["read", "write"])
def test_postgres(benchmark: Any, kind: str) -> None:
    with running_postgres(fsync="on") as server, asyncio.Runner() as runner:
        manager = (readers if kind == "read" else writers)(server)
        works = runner.run(manager.__aenter__())
        benchmark.pedantic(lambda: runner.run(works[OURS](1024)), rounds=10, warmup_rounds=1)
        runner.run(manager.__aexit__(None, None, None))
