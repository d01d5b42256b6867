"""A PostgreSQL of the tests' own: started once for all of them, a fresh database for each.

The binaries are those of the distribution's package. As root the server runs as the user `postgres`, because
it refuses to run as root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

START_LIMIT = 60.0
_names = count(1)


def binaries() -> Path:
    """The folder of the newest installed server's programs.

    Raises:
        RuntimeError: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if (elsewhere := shutil.which("postgres")) is not None:
        return Path(elsewhere).resolve().parent
    raise RuntimeError("no PostgreSQL server is installed: apt-get install postgresql, or make system")


class PostgresServer:
    """One running server: superuser `postgres`, passwords asked for over TCP, trust on its Unix socket."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @classmethod
    def start(cls, folder: Path, **settings: str) -> PostgresServer:
        """A new cluster in `folder`, answering. `settings` go beside or over the defaults for tests.

        By default nothing is synced to the disk (`fsync="on"` where a test is about that).
        """
        folder.mkdir(parents=True, exist_ok=True)
        server = cls(folder, settings)
        server._own(folder)
        password_file = folder / "password"
        password_file.write_text(server.password)
        server._own(password_file)
        subprocess.run(
            [
                binaries() / "initdb",
                *("--pgdata", folder / "data", "--username", "postgres", "--pwfile", password_file),
                *("--encoding", "UTF8", "--locale", "C", "--auth-local", "trust"),
                *("--auth-host", "scram-sha-256", "--no-sync", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            user=server._user,
        )
        server._launch()
        return server

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """The address of a database, with the superuser's name and password unless others are given."""
        secret = self.password if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """The name of a new, empty database."""
        name = f"test_{next(_names)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run SQL as the superuser; what it answers, unaligned, one row a line."""
        done = subprocess.run(
            [
                binaries() / "psql",
                *("-h", self.folder, "-p", str(self.port), "-U", "postgres", "-d", database),
                *("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            # Whatever a test did to the server, the test set-up may go on writing.
            env={**os.environ, "PGOPTIONS": "-c default_transaction_read_only=off"},
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def wait_until(self, condition: str, database: str = "postgres") -> None:
        """Ask the server until an SQL condition is true."""
        deadline = time.monotonic() + START_LIMIT
        while self.execute(f"SELECT {condition}", database) != "t":
            if time.monotonic() > deadline:
                raise RuntimeError(f"never true: {condition}")

    def stop(self, *, crash: bool = False) -> None:
        """End it and wait for its end; with `crash`, without a checkpoint, as `kill -9` would."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self._process.wait(START_LIMIT)
        self._process = None

    def restart(self, *, crash: bool = False) -> None:
        """Stop and start again, on the same port and the same data."""
        self.stop(crash=crash)
        self._launch()

    def launch(self) -> None:
        """Start again after `stop`."""
        self._launch()

    def freeze(self) -> None:
        """Stop every process of the server where it stands: it accepts connections and answers none."""
        os.kill(self.pid, signal.SIGSTOP)  # first, so that it starts no more of them
        self._frozen = [self.pid, *self._children()]
        for pid in self._frozen[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        frozen, self._frozen = self._frozen, []
        for pid in reversed(frozen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _launch(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "100",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.folder / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._user,
                start_new_session=True,  # an interrupt of the test run is for its fixture to act on
            )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == "1"
        except RuntimeError:
            return False

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def _user(self) -> str | None:
        return "postgres" if os.getuid() == 0 else None

    def _own(self, path: Path) -> None:
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_postgres(**settings: str) -> Iterator[PostgresServer]:
    """A server of one's own, for what would disturb the other tests; gone with its data afterwards."""
    # Not below pytest's folder: that is its owner's alone, and the server may be another user.
    with tempfile.TemporaryDirectory(prefix="llmcache-pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = PostgresServer.start(folder / "server", **settings)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole session. Whoever stops or freezes it starts it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a fresh, empty database."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
