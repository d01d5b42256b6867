"""Share of the optimum's dollars by eviction policy: the replay bench of the core, and any trace files given.

It is Rust (`cargo bench -p llmcache-core --bench replay`): this passes its table through.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def table(traces: list[str]) -> str:
    """The bench's own output. `traces`: files to replay besides the workload that it generates."""
    if not (ROOT / "rust" / "core" / "benches" / "replay.rs").exists():
        return "no rust/core/benches/replay.rs in this checkout"
    return subprocess.run(
        ["cargo", "bench", "--quiet", "-p", "llmcache-core", "--bench", "replay", "--", *traces],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
