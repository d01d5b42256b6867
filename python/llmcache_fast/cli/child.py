"""The demo upstream in a process of its own, so that its work is not measured as the cache's."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

import msgspec

from llmcache_fast.cli.output import Exit, stop


class UpstreamProcess:
    """`llmcache-fast demo-upstream` as a child on a free loopback port; a context manager.

    `CommandError` when it does not come up. The child is ended with the context.
    """

    def __init__(self, *arguments: str) -> None:
        self._command = [sys.executable, "-m", "llmcache_fast.cli", "demo-upstream", "--json", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        # The program is this interpreter and the arguments are numbers.
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)  # noqa: S603
        said = b""
        for line in self._process.stdout or ():
            said += line
            if line.rstrip() == b"}":
                break
        else:
            stop(Exit.ENVIRONMENT, f"the demo upstream ended at once with code {self._process.wait()}")
        self.url = msgspec.json.decode(said)["url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
