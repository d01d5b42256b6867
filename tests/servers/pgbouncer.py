"""A PgBouncer of the tests' own, in transaction mode. An optional package: without it a test is skipped."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.postgres import START_LIMIT, PostgresServer, free_port


@contextlib.contextmanager
def running_pgbouncer(server: PostgresServer, connections: int) -> Iterator[int]:
    """The port of a pooler before `server` that has so many connections to it for each database."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer, or make system")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="llmcache-pgb-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users.txt").write_text(f'"postgres" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder}/users.txt\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 200\n"
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, folder / "pgbouncer.ini"],
                stdout=log,
                stderr=log,
                user="postgres" if os.getuid() == 0 else None,
            )
        try:
            deadline = time.monotonic() + START_LIMIT
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"pgbouncer did not start:\n{(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(START_LIMIT)
