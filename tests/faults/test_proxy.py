"""The proxy does to replies what it is told, and nothing else; in front of a small server."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.frames import postgres_reply, resp_reply
from tests.faults.proxy import Proxy


@pytest.fixture
def anyio_backend() -> str:
    """The servers' drivers are asyncio's."""
    return "asyncio"


RESP = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(123456789012345678901234567890\r\n",
    b"$0\r\n\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!5\r\nERR x\r\n",
    b"*0\r\n",
    b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n$-1\r\n",
    b"~2\r\n+a\r\n+b\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    b">3\r\n+message\r\n+channel\r\n$1\r\nx\r\n",
    b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


POSTGRES = [
    b"N",
    message(b"R", b"\0\0\0\x0a" + b"SCRAM-SHA-256\0\0"),
    message(b"R", b"\0\0\0\x0b" + b"server first"),
    message(b"R", b"\0\0\0\x0c" + b"end")
    + message(b"R", bytes(4))
    + message(b"S", b"a\0b\0")
    + message(b"Z", b"I"),
    message(b"1") + message(b"t", bytes(2)) + message(b"T", bytes(2)),
    message(b"1") + message(b"t", bytes(2)) + message(b"n"),
    message(b"2") + message(b"D", bytes(9)) * 3 + message(b"C", b"SELECT 3\0") + message(b"Z", b"I"),
    message(b"E", b"SERROR\0\0"),
    message(b"A", b"channel\0text\0"),
    message(b"Z", b"E"),
]


@pytest.mark.parametrize(("framer", "replies"), [(resp_reply, RESP), (postgres_reply, POSTGRES)])
def test_replies_are_cut_where_they_end(framer: object, replies: list[bytes]) -> None:
    assert callable(framer)
    for reply in replies:
        assert framer(reply) == len(reply)
        for part in range(1, len(reply)):
            assert framer(reply[:part]) is None, (reply, part)
    for one, other in itertools.pairwise(replies):
        if one != b"N":
            assert framer(one + other) == len(one)


def test_what_is_no_reply_is_told() -> None:
    for wrong in (b"?\r\n", b"*1\r\n" * 99):
        with pytest.raises(ValueError, match=r"RESP|nested"):
            resp_reply(wrong)
    with pytest.raises(ValueError, match="message of 1 bytes"):
        postgres_reply(b"Z\0\0\0\1")


class Client:
    """Sends lines; each is answered with one simple string that repeats it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *texts: str) -> None:
        self.writer.write("".join(f"{text}\r\n" for text in texts).encode())
        await self.writer.drain()

    async def told(self) -> str:
        return (await self.reader.readline()).decode().strip().removeprefix("+")

    async def call(self, text: str) -> str:
        await self.ask(text)
        return await self.told()

    async def silence(self) -> bool:
        """Whether nothing comes, though the proxy has had every opportunity."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.readline(), 0.05)
        return True


class Echo:
    """The server; `seen` is what came to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            text = line.decode().strip()
            self.seen.append(text)
            writer.write(f"+{text}\r\n".encode())
        writer.close()


@asynccontextmanager
async def served(seed: int = 0) -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with Proxy(echo.port, resp_reply, seed=seed) as proxy:
        yield proxy, echo
    server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield Client(reader, writer)
    writer.close()


async def test_without_faults_all_passes() -> None:
    async with served() as (proxy, _), connected(proxy) as one, connected(proxy) as other:
        for number in range(20):
            assert await one.call(f"one {number}") == f"one {number}"
            assert await other.call(f"other {number}") == f"other {number}"
        assert proxy.counts == {"connections": 2, "replies": 40}


async def test_a_dropped_reply_leaves_the_connection_one_behind() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.next("drop")
        await client.ask("a")
        assert await client.call("b") == "b"
        assert proxy.counts["drop"] == 1


async def test_a_duplicated_reply_is_read_in_place_of_the_next() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.next("duplicate")
        assert [await client.call(text) for text in "abc"] == ["a", "a", "b"]


async def test_two_replies_of_a_connection_are_swapped_when_both_are_there() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.next("swap")
        assert await client.call("alone") == "alone"
        proxy.freeze("requests")
        await client.ask("a", "b", "c")
        proxy.thaw()
        assert [await client.told() for _ in "abc"] == ["b", "a", "c"]


async def both(one: Client, other: Client) -> tuple[str, str]:
    replies = await asyncio.gather(one.call("one"), other.call("other"))
    return replies[0], replies[1]


async def test_the_replies_of_two_connections_are_swapped() -> None:
    async with served() as (proxy, _), connected(proxy) as one, connected(proxy) as other:
        proxy.patience = 60.0
        proxy.next("swap_between")
        assert await both(one, other) == ("other", "one")
        assert await both(one, other) == ("one", "other")
        assert proxy.counts["swap_between"] == 1


async def test_a_reply_with_nobody_to_swap_with_comes_to_its_own() -> None:
    async with served() as (proxy, _), connected(proxy) as one:
        proxy.next("swap_between")
        assert await one.call("one") == "one"
        assert await one.call("two") == "two"
        assert proxy.counts["swap_between"] == 0


async def test_half_a_reply_and_then_nothing() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.next("half")
        await client.ask("abcdefgh")
        assert await client.reader.readexactly(5) == b"+abcd"
        await client.ask("more")
        assert await client.silence()


async def test_half_a_reply_and_then_the_end() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.next("cut")
        await client.ask("abcdefgh")
        assert await client.reader.read() == b"+abcd"


async def test_frozen_requests_do_not_come_to_the_server_and_frozen_replies_were_executed() -> None:
    async with served() as (proxy, echo), connected(proxy) as client:
        proxy.freeze("requests")
        await client.ask("a")
        assert await client.silence()
        assert echo.seen == []
        proxy.thaw()
        assert await client.told() == "a"
        proxy.freeze("replies")
        await client.ask("b")
        assert await client.silence()
        assert echo.seen == ["a", "b"]
        proxy.thaw()
        assert await client.told() == "b"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_connection_ends(reset: bool) -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        assert await client.call("a") == "a"
        proxy.cut(reset=reset)
        if reset:
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        else:
            assert await client.reader.read() == b""


async def test_refused_is_refused_until_accepted() -> None:
    async with served() as (proxy, _):
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await proxy.accept()
        assert proxy.port == port
        async with connected(proxy) as client:
            assert await client.call("a") == "a"


async def test_a_black_hole_opens_after_so_many_bytes() -> None:
    async with served() as (proxy, echo), connected(proxy) as client:
        proxy.black_hole = 6
        assert await client.call("a") == "a"
        await client.ask("bcd")
        assert await client.reader.readexactly(2) == b"+b"
        assert await client.silence()
        assert echo.seen == ["a", "bcd"]


async def test_a_silent_proxy_accepts_and_says_nothing() -> None:
    async with served() as (proxy, echo):
        proxy.silent = True
        async with connected(proxy) as client:
            await client.ask("a")
            assert await client.silence()
            assert echo.seen == []


async def test_delays_are_drawn_for_each_reply() -> None:
    drawn: list[float] = []
    async with served(seed=5) as (proxy, _), connected(proxy) as client:

        def draw(rng: random.Random) -> float:
            drawn.append(rng.uniform(0, 0.001))
            return drawn[-1]

        proxy.delay = draw
        for text in "abc":
            assert await client.call(text) == text
    assert len(set(drawn)) == 3


async def faults_of(seed: int) -> list[str]:
    async with served(seed) as (proxy, _), connected(proxy) as client:
        proxy.chances = {"drop": 0.2, "duplicate": 0.2}
        texts = [str(number) for number in range(60)]
        for text in texts:
            await client.ask(text)
        await client.ask("the end")
        told: list[str] = []
        while len(told) < 40:
            told.append(await client.told())
        return told


async def test_a_seed_says_what_happens() -> None:
    assert await faults_of(1) == await faults_of(1)
    assert await faults_of(1) != await faults_of(2)


async def test_when_it_is_well_all_passes() -> None:
    async with served() as (proxy, _), connected(proxy) as client:
        proxy.chances = {"drop": 1.0}
        proxy.next("half", "half")
        proxy.freeze()
        proxy.well()
        assert await client.call("a") == "a"
