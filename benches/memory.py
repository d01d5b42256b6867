"""What an entry costs in memory beyond its payload object: resident memory of a process that holds N of them.

    python -m benches.memory [--json]

Each contender fills a cache in a process of its own. All entries share one payload object of 2 KB, and each
key is made as it is inserted, so what grows is keys, tables and bookkeeping. Tables grow in steps: the
figure is the mean over several N. Not a pytest-benchmark suite, because what it measures is not time.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benches.figure import OURS, Figure
from benches.rounds import Spread

COUNTS = (150_000, 200_000, 270_000)
CONTENDERS = (
    "dict",
    "cachebox LRU",
    "cachebox VTTL",
    "lru-dict",
    "moka-py",
    "theine",
    "cachetools TTL",
    OURS,
)


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def measure(name: str, count: int) -> float:
    """Bytes an entry, in this process. Imports of the peers happen before the first reading."""
    from benches.test_l1 import STORES, VALUE

    payload = bytes(VALUE)
    rng = random.Random(1)
    kept: Any
    put: Callable[[bytes, bytes], Any]
    kept, put = {}, None  # type: ignore[assignment]
    gc.collect()
    before = _resident()
    if name == "dict":
        put = kept.__setitem__
    else:
        store = STORES[name]
        kept = store.make(count + count // 10)
        put = store.put(kept)
    for _ in range(count):
        put(rng.randbytes(32), payload)
    gc.collect()
    return (_resident() - before) / count


def figures(rounds: int) -> Iterator[Figure]:
    """`rounds` is of no use here: memory does not jitter."""
    del rounds
    by_name: dict[str, list[float]] = {}
    for name in CONTENDERS:
        by_name[name] = [
            float(
                subprocess.run(
                    [sys.executable, "-m", "benches.memory", name, str(count)],
                    check=True,
                    capture_output=True,
                    text=True,
                    cwd=Path(__file__).parent.parent,
                ).stdout.splitlines()[-1]
            )
            for count in COUNTS
        ]
    extra = {
        name: Spread.of([mine - theirs for mine, theirs in zip(measured, by_name["dict"], strict=True)])
        for name, measured in by_name.items()
    }
    mean = {name: statistics.mean(measured) for name, measured in by_name.items()}
    yield Figure(
        "memory per entry beyond the payload object",
        "dict",
        extra,
        64.0,
        {name: f"{value:.0f} bytes" for name, value in mean.items()},
        unit="bytes more than dict",
    )


def main() -> None:
    """One contender at one count, as `figures` calls it; or the figure."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    if len(arguments) == 2:
        sys.stdout.write(f"{measure(arguments[0], int(arguments[1]))}\n")
        return
    for figure in figures(1):
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps(figure.as_json(), indent=2) + "\n")
        else:
            sys.stdout.write("\n".join(figure.lines()) + "\n")


if __name__ == "__main__":
    main()
