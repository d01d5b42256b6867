"""Every figure beside its peers: what `make bench` runs.

    python -m benches.figures [--only NAME ...] [--rounds N] [--json FILE] [--trace FILE ...]

Each row prints what the work is, what each contender takes relative to the base of the row (median and
quartiles of interleaved rounds), the target, and whether it is met. Nothing fails here: a missed target is
a fact to report.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

ROWS = {
    "fingerprint": "benches.test_fingerprint",
    "l1": "benches.test_l1",
    "validity": "benches.test_validity",
    "memory": "benches.memory",
    "get": "benches.test_get",
    "get_or_compute": "benches.test_get_or_compute",
    "flights": "benches.test_flights",
    "disk": "benches.test_disk",
    "envelope": "benches.test_envelope",
    "postgres": "benches.test_postgres",
    "journal": "benches.test_journal",
    "redis": "benches.test_redis",
    "staleness": "benches.test_staleness",
    "erase": "benches.test_erase",
    "embedding": "benches.test_embedding",
    "vector": "benches.test_vector",
    "traces": "benches.traces",
}
PEERS = (
    "blake3 orjson litellm langchain-core gptcache cachetools cachebox moka-py theine lru-dict aiocache "
    "cashews async-lru diskcache zstandard cryptography asyncpg onnxruntime tokenizers "
    "usearch hnswlib faiss-cpu"
).split()


def machine() -> dict[str, Any]:
    """Where and against what the figures were taken."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "peers": {name: importlib.metadata.version(name) for name in PEERS},
    }


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the rows asked for, as they are measured."""
    parser = argparse.ArgumentParser(prog="benches.figures", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="these rows and no others")
    parser.add_argument(
        "--rounds", type=int, default=15, help="interleaved rounds (15); more narrow the spread"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    parser.add_argument("--trace", nargs="*", default=[], metavar="FILE", help="trace files to replay")
    options = parser.parse_args()

    where = machine()
    _say(f"{where['cpu']}, {where['cores']} cores, Python {where['python']}, load {where['load'][0]}")
    if where["load"][0] > 0.5 * where["cores"]:
        _say("the machine is busy: trust the ratios, not the times, and mind the quartiles")
    _say("peers: " + ", ".join(f"{name} {version}" for name, version in where["peers"].items()))

    report: dict[str, Any] = {"machine": where, "figures": []}
    missed, met = [], 0
    for row in options.only or ROWS:
        module = importlib.import_module(ROWS[row])
        if row == "traces":
            report["traces"] = module.table(options.trace)
            _say("\nshare of the optimum's dollars, by eviction policy\n" + report["traces"])
            continue
        for figure in module.figures(options.rounds):
            _say("\n" + "\n".join(figure.lines()))
            report["figures"].append(figure.as_json())
            if figure.met is False:
                missed.append(f"{figure.work} ({figure.excess()})")
            elif figure.met:
                met += 1
    report["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
    _say(f"\n{met} targets met, {len(missed)} missed" + "".join(f"\n  missed: {work}" for work in missed))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
