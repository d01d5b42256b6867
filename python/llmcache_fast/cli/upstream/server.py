"""Running the demo upstream: in the foreground for the command, in a thread for the demo and tests."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn

from llmcache_fast.cli.upstream.app import UpstreamOptions, create_app


class DemoUpstream:
    """The server on a loopback port, in a thread of its own; a context manager.

    The port is bound before the thread starts, so a client may connect at once. `start_timeout` bounds the
    wait for the server to be ready, in seconds; `RuntimeError` when it passes.
    """

    def __init__(
        self, options: UpstreamOptions | None = None, *, port: int = 0, start_timeout: float = 30.0
    ) -> None:
        self._options = options or UpstreamOptions()
        self._start_timeout = start_timeout
        self._socket = bind(port)
        self.port: int = self._socket.getsockname()[1]
        self._server = _QuietServer(config(self._options))
        self._thread = threading.Thread(target=self._run, name="demo-upstream", daemon=True)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._server.ready.wait(self._start_timeout):
            self._server.should_exit = True
            raise RuntimeError(f"the demo upstream did not start within {self._start_timeout:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=10)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


class _QuietServer(uvicorn.Server):
    """uvicorn's server that says when it listens."""

    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()


def bind(port: int) -> socket.socket:
    """A listening socket on loopback; OSError when the port is taken."""
    # The protocol is named because asyncio sets TCP_NODELAY for sockets that name it: else each answer waits
    # 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # From here on a client may connect: it waits in the backlog until the server accepts.
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def config(options: UpstreamOptions) -> uvicorn.Config:
    """The server's settings. Cut streams raise on purpose, so tracebacks are kept out of the terminal."""
    return uvicorn.Config(
        create_app(options), log_level="critical", access_log=False, lifespan="off", timeout_keep_alive=30
    )


def serve_forever(options: UpstreamOptions, listener: socket.socket) -> None:
    """Serve on the listener until the process is interrupted."""
    uvicorn.Server(config(options)).run(sockets=[listener])
