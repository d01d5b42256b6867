"""Eight processes over shared servers, while the lines to them are cut and delayed: nothing that was
invalidated is served again (I1), nor later than the lease by others (I2).

Short in CI; `-m long` is 1,000,000 operations.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from tests.faults.coherence_worker import Table
from tests.faults.frames import postgres_reply, resp_reply
from tests.faults.proxy import Proxy
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

PROCESSES = 8
WORKER = "tests.faults.coherence_worker"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def worker(tiers: list[str], table: Path, operations: int, seed: int, bug: str) -> Counter[str]:
    arguments = [" ".join(tiers), str(table), str(operations), str(seed), bug]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", WORKER, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    counts = json.loads(out)
    errors = counts.pop("errors")
    return Counter(counts) + Counter({f"error {name}": number for name, number in errors.items()})


async def disturb(proxies: list[Proxy]) -> None:
    """Cut and delay what the servers say, messages too, a part of the time."""
    rng = random.Random(5)
    while True:
        await anyio.sleep(rng.uniform(0.3, 1.0))
        proxy = rng.choice(proxies)
        match rng.randrange(3):
            case 0:
                proxy.cut(reset=rng.random() < 0.5)
            case 1:
                proxy.delay = lambda rng: rng.random() * 0.02
            case _:
                proxy.freeze("replies")
        await anyio.sleep(rng.uniform(0.1, 0.6))
        proxy.well()


async def run(
    proxies: list[Proxy], tiers: list[str], folder: Path, operations: int, bug: str = ""
) -> Counter[str]:
    """What all processes counted together."""
    table = folder / "table"
    Table.create(table)
    total = Counter[str]()

    async def one(seed: int) -> None:
        total.update(await worker(tiers, table, operations // PROCESSES, seed, bug))

    async with anyio.create_task_group() as outer:
        outer.start_soon(disturb, proxies)
        async with anyio.create_task_group() as tasks:
            for seed in range(PROCESSES):
                tasks.start_soon(one, seed)
        outer.cancel_scope.cancel()
    print(dict(total))  # noqa: T201 - figures for a reader
    return total


def check(total: Counter[str], operations: int) -> None:
    assert total["operations"] >= operations - 8 * PROCESSES
    assert total["values"] > 0
    assert total["invalidations"] > 0
    assert total["messages"] > 0
    assert (total["own"], total["late"]) == (0, 0)


SHORT = pytest.param(16_000, marks=pytest.mark.timeout(300))
LONG = pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])


@pytest.mark.parametrize("operations", [SHORT, LONG])
async def test_over_redis(
    redis_server: RedisServer, redis_prefix: str, tmp_path: Path, operations: int
) -> None:
    async with Proxy(redis_server.port, resp_reply, seed=3) as proxy:
        url = f"{redis_server.url.replace(str(redis_server.port), str(proxy.port))}?prefix={redis_prefix}"
        check(await run([proxy], [url], tmp_path, operations), operations)


@pytest.mark.parametrize("operations", [SHORT, LONG])
async def test_over_redis_and_postgres(
    redis_server: RedisServer,
    redis_prefix: str,
    postgres_server: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
    operations: int,
) -> None:
    path = str(postgres_server.folder / f".s.PGSQL.{postgres_server.port}")
    async with Proxy(redis_server.port, resp_reply, seed=3) as redis, Proxy(path, postgres_reply) as postgres:
        first = f"{redis_server.url.replace(str(redis_server.port), str(redis.port))}?prefix={redis_prefix}"
        second = postgres_url.replace(f":{postgres_server.port}/", f":{postgres.port}/")
        check(await run([redis, postgres], [first, second], tmp_path, operations), operations)


@pytest.mark.timeout(300)
async def test_processes_that_hear_nothing_are_found_out(
    redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    """The fault that the tests above must find."""
    async with Proxy(redis_server.port, resp_reply, seed=3) as proxy:
        url = f"{redis_server.url.replace(str(redis_server.port), str(proxy.port))}?prefix={redis_prefix}"
        total = await run([proxy], [url], tmp_path, 32_000, "hears nothing")
    assert total["late"] > 0
