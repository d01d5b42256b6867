"""The FastAPI example, served by several workers that share tiers: one computation for all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from llmcache_fast.cli.upstream import DemoUpstream, UpstreamOptions
from tests.servers.redis import RedisServer

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKERS = 3


@contextmanager
def served(tiers: str, upstream: str) -> Iterator[str]:
    """The example behind uvicorn; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": upstream + "/v1",
        "OPENAI_API_KEY": "none",
        "LLMCACHE_TIERS": tiers,
    }
    command = [sys.executable, "-m", "uvicorn", "fastapi_service:app"]
    command += ["--port", str(port), "--workers", str(WORKERS), "--log-level", "warning"]
    server = subprocess.Popen(command, cwd=EXAMPLES, env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


async def until_up(client: httpx.AsyncClient) -> None:
    with anyio.fail_after(60):
        while True:
            try:
                await client.get("/cache")
            except httpx.TransportError:
                await anyio.sleep(0.1)
            else:
                return


async def asked(url: str, question: str, times: int) -> set[str]:
    """The answers to a question that many clients ask at once, each over a connection of its own, so that
    every worker gets some."""
    answers: list[str] = []

    async def ask(client: httpx.AsyncClient) -> None:
        reply = await client.post("/answer", params={"question": question})
        answers.append(reply.raise_for_status().json()["answer"])

    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await until_up(client)
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(ask, client)
    assert len(answers) == times
    return set(answers)


def calls(upstream: str) -> int:
    count: int = httpx.get(upstream + "/stats").json()["requests"]
    return count


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_workers_share_a_folder(tmp_path: Path, anyio_backend: str) -> None:
    with DemoUpstream() as upstream:
        with served(f"disk://{tmp_path}", upstream.url) as url:
            first = await asked(url, "Why is the sky blue?", 1)
            for _ in range(10):
                assert await asked(url, "Why is the sky blue?", 6) == first
            before = calls(upstream.url)
            assert 1 <= before <= WORKERS
        with served(f"disk://{tmp_path}", upstream.url) as url:
            assert await asked(url, "Why is the sky blue?", 12) == first
            assert calls(upstream.url) == before, "workers that are started again have it all"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_workers_that_share_servers_compute_once(
    redis_server: RedisServer, redis_prefix: str, postgres_url: str, anyio_backend: str
) -> None:
    tiers = f"{redis_server.url}?prefix={redis_prefix},{postgres_url}"
    with DemoUpstream(UpstreamOptions(latency_ms=300)) as upstream, served(tiers, upstream.url) as url:
        first = await asked(url, "Why is the sky blue?", 30)
        assert len(first) == 1
        assert calls(upstream.url) == 1, "one call for the thirty of all workers"
        assert await asked(url, "Why is the sky blue?", 30) == first
        assert calls(upstream.url) == 1
