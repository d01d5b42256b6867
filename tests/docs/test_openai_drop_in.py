"""The example of a drop-in client runs as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llmcache_fast.cli.upstream import DemoUpstream

EXAMPLE = Path(__file__).parents[2] / "examples" / "openai_drop_in.py"


def test_second_call_is_a_hit() -> None:
    with DemoUpstream() as upstream:
        environment = {**os.environ, "OPENAI_BASE_URL": upstream.url + "/v1", "OPENAI_API_KEY": "none"}
        command = [sys.executable, str(EXAMPLE)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert (first.split()[0], second.split()[0]) == ("miss", "hit")
    assert first.split(maxsplit=2)[2] == second.split(maxsplit=2)[2]
