"""Real Redis servers: one, one with TLS, a cluster of six; stopped, restarted and frozen at will.

    def test_something(redis_server: RedisServer) -> None:
        RedisTier.from_url(redis_server.url + "?prefix=mine:")

`redis_server` is shared by the whole session: use a prefix of your own and leave it running. A test that
stops, freezes or restarts a server starts one of its own with `start_redis()`, which ends with the test.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import pytest

_START_SECONDS = 30.0
_TLS_ARGUMENTS = "--tls-auth-clients no --tls-cert-file {cert} --tls-key-file {key} --tls-ca-cert-file {cert}"


def free_port(below: int = 1 << 16) -> int:
    """A TCP port of the loopback address that nobody listens on just now."""
    while True:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < below:
            return port


@dataclass(eq=False)
class RedisServer:
    """One `redis-server` process with an empty data set, on a TCP port and on a unix socket."""

    folder: Path
    port: int
    arguments: tuple[str, ...] = ()
    tls: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    @classmethod
    def start(cls, tmp_path: Path, *arguments: str, tls: Certificate | None = None) -> Self:
        """Start one in `tmp_path`; `arguments` go to the command line (`"--requirepass", "secret"`).

        Returns when it answers.
        """
        if tls is not None:
            arguments = (*arguments, *_TLS_ARGUMENTS.format(cert=tls.cert, key=tls.key).split())
        for _ in range(5):
            server = cls(tmp_path, free_port(), arguments, tls is not None)
            try:
                server._launch()
            except _PortTakenError:
                continue
            return server
        raise RuntimeError("redis-server found no free port in five attempts")

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`, or `rediss://` with TLS; without credentials."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        """The unix socket, without TLS."""
        return self.folder / "redis.sock"

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        """End it at once, as a crash would; nothing happens if it has ended."""
        self.process.kill()
        self.process.wait()

    def restart(self, *, empty: bool = False) -> None:
        """Stop and start on the same port, with what it held or `empty`; returns when it answers."""
        if empty:
            self.stop()
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        else:
            self.thaw()
            self.process.terminate()  # with a save point configured, it saves
            self.process.wait()
        self._launch()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, new ones are accepted by the kernel, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on and answers what has gathered."""
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """What `redis-cli` prints for a command; for looking and preparing, by the unix socket."""
        return subprocess.run(
            ["redis-cli", "-s", str(self.socket_path), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    def _launch(self) -> None:
        ports = ["--port", "0", "--tls-port"] if self.tls else ["--port"]
        log = self.folder / "redis.log"
        self.socket_path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                "redis-server",
                *ports,
                str(self.port),
                *("--bind", "127.0.0.1", "--dir", str(self.folder), "--logfile", str(log)),
                *("--unixsocket", str(self.socket_path), "--save", "86400 1000000", "--daemonize", "no"),
                *self.arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None:
                text = log.read_text() if log.exists() else ""
                if "bind:" in text or "Address already in use" in text:
                    log.unlink()
                    raise _PortTakenError
                raise RuntimeError(f"redis-server ended at its start:\n{text[-2000:]}")
            if time.monotonic() > give_up:
                self.stop()
                raise RuntimeError(f"redis-server on port {self.port} does not answer")
            time.sleep(0.005)

    def _answers(self) -> bool:
        """Whether it takes commands; a refusal for want of a password is an answer too."""
        with closing(socket.socket(socket.AF_UNIX)) as link:
            link.settimeout(1.0)
            try:
                link.connect(str(self.socket_path))
                link.sendall(b"PING\r\n")
                return link.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
            except OSError:
                return False


class _PortTakenError(Exception):
    """Somebody was faster."""


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost that is its own authority, and its key."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        cert, key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-days", "2", "-subj", "/CN=llmcache test", "-keyout", str(key)),
                *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
        return cls(cert, key)


class StartRedis(Protocol):
    """What the fixture `start_redis` gives."""

    def __call__(self, *arguments: str, tls: Certificate | None = None) -> RedisServer: ...


@dataclass
class RedisCluster:
    """Three primaries with a replica each."""

    nodes: list[RedisServer]

    @classmethod
    def start(cls, tmp_path: Path, *arguments: str, primaries: int = 3, replicas: int = 1) -> Self:
        """Start the nodes in folders of `tmp_path` and join them; returns when all slots are served."""
        cluster = cls([])
        try:
            for number in range(primaries * (1 + replicas)):
                folder = tmp_path / f"node-{number}"
                folder.mkdir(parents=True)
                cluster.nodes.append(_cluster_node(folder, arguments))
            addresses = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
            subprocess.run(
                [
                    *("redis-cli", "--cluster", "create", *addresses),
                    *("--cluster-replicas", str(replicas), "--cluster-yes"),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
            for node in cluster.nodes:
                _wait_for(node, primaries)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def url(self) -> str:
        """`redis+cluster://` with the first node's address: one is enough to find the others."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def primaries(self) -> list[RedisServer]:
        """The nodes that take writes now."""
        return [node for node in self.nodes if node.command("ROLE").startswith("master")]

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def _cluster_node(folder: Path, arguments: tuple[str, ...]) -> RedisServer:
    for _ in range(20):
        # The nodes talk to each other on a second port, 10000 above by default.
        port, bus = free_port(), free_port()
        options = f"--cluster-enabled yes --cluster-port {bus} --cluster-node-timeout 2000".split()
        node = RedisServer(folder, port, (*options, *arguments))
        try:
            node._launch()
        except (_PortTakenError, RuntimeError):
            continue
        return node
    raise RuntimeError("no free ports for a cluster node")


def _wait_for(node: RedisServer, primaries: int) -> None:
    """Until the node knows that all slots are served and who serves them."""
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        info = node.command("CLUSTER", "INFO")
        if "cluster_state:ok" in info and f"cluster_size:{primaries}" in info:
            return
        time.sleep(0.02)
    raise RuntimeError(f"the cluster does not come up:\n{node.command('CLUSTER', 'INFO')}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's server: shared, so leave it running and use a prefix of your own."""
    server = RedisServer.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The session's cluster of six: as `redis_server`."""
    cluster = RedisCluster.start(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """`RedisServer.start` in folders of the test's own; stopped at its end, however that comes."""
    servers: list[RedisServer] = []

    def start(*arguments: str, tls: Certificate | None = None) -> RedisServer:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer.start(folder, *arguments, tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for servers of tests."""
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def redis_prefix() -> str:
    """A key prefix of the test's own."""
    return f"{secrets.token_hex(4)}:"
