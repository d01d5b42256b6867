"""Connections to one server: how many, how long, and that replies belong to their commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.links import Server
from tests.servers.redis import RedisServer, StartRedis, free_port

LONG = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(redis_server: RedisServer, anyio_backend: str) -> AsyncIterator[Server]:
    server = Server(Address.parse(redis_server.url), 2)
    yield server
    await server.aclose()


def echo(text: str) -> tuple[bytes, str]:
    return b"ECHO", text


async def failure(server: Server, budget: float = LONG) -> str:
    with pytest.raises(TierError) as caught:
        await server.exchange([echo("x")], budget, "get_many")
    assert caught.value.operation == "get_many"
    return caught.value.reason


async def test_replies_come_in_the_order_of_the_commands(server: Server) -> None:
    replies = await server.exchange([echo("a"), (b"NOSUCH",), echo("b")], LONG, "get_many")
    assert (replies[0], replies[2]) == (b"a", b"b")
    assert isinstance(replies[1], Exception)
    assert server.connections == 1


async def test_connections_are_made_up_to_the_limit_and_kept(server: Server) -> None:
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(server.exchange, [echo(str(number))], LONG, "get_many")
    assert server.connections == 2


async def test_all_in_use_is_busy_and_no_outage(server: Server) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(server.exchange, [(b"BLPOP", "nothing-here", "0.4")], LONG, "get_many")
        while server.connections < 2:
            await checkpoint()
        assert await failure(server, 0.02) == "busy"
    assert await server.exchange([echo("a")], LONG, "get_many") == [b"a"]


async def test_a_cancelled_round_trip_costs_its_connection_and_nothing_else(server: Server) -> None:
    for _ in range(20):
        with anyio.move_on_after(0.001) as scope:
            await server.exchange([(b"BLPOP", "nothing-here", "30"), echo("stale")], LONG, "get_many")
        assert scope.cancelled_caught
        assert await server.exchange([echo("mine")], LONG, "get_many") == [b"mine"]
    assert server.connections <= 2


async def test_a_cancelled_round_trip_that_ends_all_the_same_keeps_its_connection(server: Server) -> None:
    await server.exchange([echo("a")], LONG, "get_many")
    connection = server._idle[0]
    with anyio.move_on_after(0.001) as scope:
        await server.exchange([(b"BLPOP", "nothing-here", "0.05"), echo("stale")], LONG, "get_many")
    assert scope.cancelled_caught
    while not server._idle:
        await checkpoint()
    assert server._idle == [connection]
    assert await server.exchange([echo("mine")], LONG, "get_many") == [b"mine"]


async def test_what_nobody_waits_for_ends_within_its_budget(start_redis: StartRedis) -> None:
    real = start_redis()
    server = Server(Address.parse(real.url), 4)
    await server.exchange([echo("a")], LONG, "get_many")
    connection = server._idle[0]
    real.freeze()
    with anyio.move_on_after(0.001):
        await server.exchange([echo("b")], 0.02, "get_many")
    while server._unheard:
        await checkpoint()
    assert connection not in server._busy
    assert connection not in server._idle
    real.thaw()
    await server.aclose()


async def test_no_more_than_half_of_the_connections_go_on_without_a_caller(server: Server) -> None:
    for _ in range(4):
        with anyio.move_on_after(0.01):
            await server.exchange([(b"BLPOP", "nothing-here", "30")], LONG, "get_many")
    assert server._unheard == 1
    assert await server.exchange([echo("a")], LONG, "get_many") == [b"a"]


async def test_one_cancelled_while_it_waits_for_a_connection_takes_none_along(server: Server) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(server.exchange, [(b"BLPOP", "nothing-here", "0.2")], LONG, "get_many")
        while server.connections < 2:
            await checkpoint()
        with anyio.move_on_after(0.02):
            await server.exchange([echo("never")], LONG, "get_many")
        assert await server.exchange([echo("after")], LONG, "get_many") == [b"after"]
    assert server.connections == 2


async def test_a_connection_with_something_unread_is_not_used(server: Server) -> None:
    await server.exchange([echo("a")], LONG, "get_many")
    connection = server._idle[0]
    await connection.send_command("ECHO", "stale")
    while not await connection.can_read():
        await checkpoint()
    assert await server.exchange([echo("b")], LONG, "get_many") == [b"b"]
    assert connection not in server._idle


async def test_replies_that_are_not_ours_are_refused_and_the_connection_closed(server: Server) -> None:
    await server.exchange([echo("a")], LONG, "get_many")
    connection = server._idle[0]
    # What a duplicated reply does that arrives after the look: each later one is an answer too late.
    await connection.send_command("ECHO", "stale")
    assert await failure(server) == "desynchronised"
    assert connection not in server._idle
    assert await server.exchange([echo("b")], LONG, "get_many") == [b"b"]


async def test_a_refused_port_is_told_at_once_and_not_tried_with_every_call() -> None:
    server = Server(Address(port=free_port()), 2)
    reasons = {await failure(server) for _ in range(50)}
    assert reasons == {"down"}
    assert server.connections == 0
    await server.aclose()


async def test_a_server_that_stands_still_costs_the_budget_and_heals(start_redis: StartRedis) -> None:
    real = start_redis()
    server = Server(Address.parse(real.url), 2)
    await server.exchange([echo("a")], LONG, "get_many")
    real.freeze()
    assert await failure(server, 0.05) == "timeout"
    assert await failure(server, 0.05) == "timeout"
    real.thaw()
    assert await server.exchange([echo("b")], LONG, "get_many") == [b"b"]
    real.restart()
    while not await server._idle[0].can_read():  # until the loop has seen that it is closed
        await checkpoint()
    assert await server.exchange([echo("c")], LONG, "get_many") == [b"c"]
    await server.aclose()


async def test_too_many_clients_is_busy(start_redis: StartRedis) -> None:
    real = start_redis()
    server, others = (Server(Address.parse(real.url), 2) for _ in range(2))
    await others.exchange([echo("a")], LONG, "get_many")
    real.command("CONFIG", "SET", "maxclients", "1")
    assert await failure(server) == "busy"
    await others.aclose()
    await server.aclose()


async def test_distrust_closes_all_and_only_now_and_then(server: Server) -> None:
    await server.exchange([echo("a")], LONG, "get_many")
    first = server._idle[0]
    async with anyio.create_task_group() as group:
        group.start_soon(server.exchange, [(b"BLPOP", "nothing-here", "0.05")], LONG, "get_many")
        while not server._busy:
            await checkpoint()
        server.distrust()
    assert server.connections == 0
    await server.exchange([echo("a")], LONG, "get_many")
    second = server._idle[0]
    assert second is not first
    server.distrust()  # a wrong record that is stored asks for it with every read
    assert server._idle == [second]


async def test_closed_it_says_so_also_to_those_under_way(redis_server: RedisServer) -> None:
    server = Server(Address.parse(redis_server.url), 1)
    reasons: list[str] = []

    async def ask(command: tuple[bytes | str, ...]) -> None:
        with pytest.raises(TierError) as caught:
            await server.exchange([command], LONG, "get_many")
        reasons.append(caught.value.reason)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, (b"BLPOP", "nothing-here", "30"))
        while not server._busy:
            await checkpoint()
        group.start_soon(ask, echo("waits"))
        await anyio.wait_all_tasks_blocked()
        await server.aclose()
    assert reasons == ["closed", "closed"]
    assert await failure(server) == "closed"
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"dial", "close"})
