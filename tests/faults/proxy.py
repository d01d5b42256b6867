"""A TCP proxy on loopback that knows where a reply ends, and does to replies what networks and drivers do.

In front of a real server, in the test's own event loop (asyncio). By a seed: the same replies in the same
order meet the same faults. What does not belong here: where a reply ends (`frames`).

    async with Proxy(port, resp_reply) as proxy:
        client = connect(proxy.port)
        proxy.freeze()            # nothing passes; proxy.thaw()
        proxy.refuse()            # connections are cut and refused; await proxy.accept()
        proxy.next("drop")        # the next reply is dropped; also duplicate, swap, swap_between, half, cut
        proxy.chances["drop"] = 0.01
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal, Self

Framer = Callable[[bytearray], "int | None"]
Fault = Literal["drop", "duplicate", "swap", "swap_between", "half", "cut"]
FAULTS: tuple[Fault, ...] = ("drop", "duplicate", "swap", "swap_between", "half", "cut")


class Connection:
    """A client's connection, and the one to the server behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.passed = 0
        """Bytes that came to the client."""
        self.dead = False
        """Nothing comes to the client any more, though the connection is open."""

    def close(self, *, reset: bool = False) -> None:
        self.server.close()
        if reset:
            # Linger for no time: the kernel sends RST in place of FIN.
            raw: socket.socket = self.client.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.client.transport.abort()
        else:
            self.client.close()


class Proxy:
    """Between `127.0.0.1:port` and its clients at `127.0.0.1:proxy.port`."""

    def __init__(self, server: int | str, framer: Framer, *, seed: int = 0) -> None:
        """`server` is a port of loopback or the path of a Unix socket."""
        self._server = server
        self._framer = framer
        self._random = random.Random(seed)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests, self._replies = asyncio.Event(), asyncio.Event()
        self._requests.set()
        self._replies.set()
        self._next: deque[Fault] = deque()
        self._swapping: tuple[Connection, bytes, asyncio.Future[bytes | None]] | None = None
        self.port = 0
        self.connections: list[Connection] = []
        self.counts: Counter[str] = Counter()
        """Replies seen, and faults done, by name."""
        self.delay: Callable[[random.Random], float] | None = None
        """Seconds each reply is late, drawn with the proxy's generator."""
        self.chances: dict[Fault, float] = {}
        """By fault: its probability for each reply."""
        self.black_hole: int | None = None
        """Bytes of replies after which a connection goes silent, without being closed."""
        self.silent = False
        """New connections are accepted and never answered."""
        self.replaceable: Callable[[bytes], bool] = lambda reply: True
        """Which replies may be doubled, or swapped between connections."""
        self.patience = 0.05
        """Seconds a reply waits for one of another connection to be swapped with."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- commands -----------------------------------------------------------------------------------

    async def accept(self) -> None:
        """Listen, at the same port as before."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Cut every connection and refuse new ones, until `accept`."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def freeze(self, what: Literal["both", "requests", "replies"] = "both") -> None:
        """Let nothing pass. Frozen `requests` do not come to the server; frozen `replies` were executed."""
        if what != "replies":
            self._requests.clear()
        if what != "requests":
            self._replies.clear()

    def thaw(self) -> None:
        """Let all pass again, also what was held back."""
        self._requests.set()
        self._replies.set()

    def cut(self, *, reset: bool = False) -> None:
        """Close every connection, with RST if `reset`."""
        for connection in self.connections:
            connection.close(reset=reset)
        self.connections.clear()

    def next(self, *faults: Fault) -> None:
        """Do these to the next replies, one each, before any by chance.

        `drop`, `duplicate`; `swap` with the next reply of the same connection, if that has come too
        (pipelining); `swap_between`: with the next reply of another connection; `half`: half of it, and then
        silence; `cut`: half of it, and the connection is closed.
        """
        self._next.extend(faults)

    def well(self) -> None:
        """No more faults, but what is cut stays cut; await `accept` after `refuse`."""
        self._next.clear()
        self.chances.clear()
        self.delay = self.black_hole = None
        self.silent = False
        self.thaw()

    # -- the stream ---------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            while await reader.read(65536):
                pass
            return
        if isinstance(self._server, int):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        else:
            from_server, to_server = await asyncio.open_unix_connection(self._server)
        connection = Connection(writer, to_server)
        self.connections.append(connection)
        self.counts["connections"] += 1
        try:
            async with asyncio.TaskGroup() as group:
                requests = group.create_task(self._pass_requests(reader, to_server))
                await self._pass_replies(connection, from_server)
                requests.cancel()
        except* OSError:
            pass
        finally:
            connection.close()
            if connection in self.connections:
                self.connections.remove(connection)

    async def _pass_requests(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._requests.wait()
            to_server.write(data)
            await to_server.drain()
        to_server.close()

    async def _pass_replies(self, connection: Connection, from_server: asyncio.StreamReader) -> None:
        buffer = bytearray()
        while data := await from_server.read(65536):
            buffer += data
            replies: deque[bytes] = deque()
            while buffer and (size := self._framer(buffer)) is not None:
                replies.append(bytes(buffer[:size]))
                del buffer[:size]
            while replies:
                self.counts["replies"] += 1
                await self._deliver(connection, replies.popleft(), replies)

    async def _deliver(self, connection: Connection, reply: bytes, behind: deque[bytes]) -> None:
        if self.delay is not None:
            await asyncio.sleep(self.delay(self._random))
        fault = self._fault(reply, bool(behind))
        if fault is not None:
            self.counts[fault] += 1
        if fault == "swap":
            behind.insert(1, reply)
            reply = behind.popleft()
            self.counts["replies"] += 1
        elif fault == "swap_between":
            reply = await self._swapped(connection, reply)
        if fault == "drop":
            return
        await self._replies.wait()
        if fault in ("half", "cut"):
            self._send(connection, reply[: len(reply) // 2])
            connection.dead = True
            if fault == "cut":
                connection.close()
            return
        self._send(connection, reply * (2 if fault == "duplicate" else 1))
        if not connection.dead:
            await connection.client.drain()

    def _send(self, connection: Connection, data: bytes) -> None:
        if self.black_hole is not None and connection.passed + len(data) > self.black_hole:
            data = data[: max(0, self.black_hole - connection.passed)]
            self.counts["black_hole"] += not connection.dead
            if data and not connection.dead:
                connection.client.write(data)
            connection.dead = True
        if connection.dead:
            return
        connection.passed += len(data)
        connection.client.write(data)

    def _fault(self, reply: bytes, pipelined: bool) -> Fault | None:
        replaceable = self.replaceable(reply)
        can = {"swap": pipelined, "swap_between": replaceable, "duplicate": replaceable}
        if self._next and can.get(self._next[0], True):
            return self._next.popleft()
        for name in FAULTS:
            # Drawn in any case, so that one chance more or less moves no other fault.
            hit = self._random.random() < self.chances.get(name, 0.0)
            if hit and can.get(name, True):
                return name
        return None

    async def _swapped(self, connection: Connection, reply: bytes) -> bytes:
        """The reply that `connection` gets in place of its own: that of the connection that comes next."""
        if self._swapping is not None and self._swapping[0] is not connection:
            _, other, answer = self._swapping
            self._swapping = None
            if not answer.done():
                answer.set_result(reply)
                return other
        answer = asyncio.get_running_loop().create_future()
        mine: Any = (connection, reply, answer)
        self._swapping = mine
        # Whoever comes next is the other one.
        self._next.appendleft("swap_between")
        try:
            async with asyncio.timeout(self.patience):
                other_reply = await answer
        except TimeoutError:
            self.counts["swap_between"] -= 1
            if self._swapping is mine:
                self._swapping = None
                with contextlib.suppress(ValueError):
                    self._next.remove("swap_between")
            return reply
        self.counts["swap_between"] -= 1  # two replies, one swap
        return other_reply or reply
