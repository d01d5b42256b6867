"""Share of the optimum's dollars by eviction policy: the replay bench of the core, or any trace files given.

It is Rust (`cargo bench -p llmcache-core --bench replay`): this passes its table through.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def table(traces: list[str]) -> str:
    """The bench's own output. `traces`: files to replay instead of the workloads that it generates."""
    return subprocess.run(
        [
            "cargo",
            "bench",
            "--quiet",
            "-p",
            "llmcache-core",
            "--bench",
            "replay",
            "--",
            *(str(Path(trace).resolve()) for trace in traces),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
