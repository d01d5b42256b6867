"""Fits the verifier, `rust/core/src/guard/verifier.model`, on the pairs of `pairs`.

    python -m benches.semantic.fit              # from the kept cosines
    python -m benches.semantic.fit --check      # fails if that would give another model than the shipped one
    python -m benches.semantic.fit --embed      # computes the cosines anew, after a change of the questions

The result is the same, bit for bit, wherever it is fitted: pairs come from a seeded generator, cosines are
kept in `cosines.bin` (of all-MiniLM-L6-v2, rounded: an embedder's last digits depend on the processor),
features come from the extension, and LightGBM runs on one thread at the version of `benches/constraints.txt`.
After a change of the guards or the features the model is fitted again.

What is fitted is what guards let pass, above a floor of the cosine: nothing else is asked of the verifier.
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from benches.semantic.pairs import Pair, digest, pairs
from llmcache_fast import _core

MODEL = Path(__file__).parents[2] / "rust" / "core" / "src" / "guard" / "verifier.model"
COSINES = Path(__file__).parent / "cosines.bin"
STEPS = 10_000
"""Cosines are kept as multiples of one part in so many."""
FLOOR = 0.5
"""Pairs below are no candidates; 0.5 and 0.65 were compared, and made little difference."""
TREES, LEAVES, RATE = 30, 4, 0.05
"""Few and small: with 100 trees, or trees of 6 leaves, the share of accepted rewordings on questions of
others falls by one to two points at the same error, while on our own it rises."""
CORRECTION = 2 / 3
"""What is kept of what the trees add to the line. They learn how our own questions were written as well: with
two thirds of it (and, nearly as well, with half) more rewordings of others are accepted at the same error."""
SIGNS = {
    "cosine": 1,
    "covered_least": 1,
    "order": 1,
    "kinds": 1,
    "conjunctions_differ": -1,
    "names_only_most": -1,
    "numbers_only_most": -1,
    "opposites": -1,
    "negations_differ": -1,
    "aspects_shared": 1,
    "aspects_apart": -1,
}
"""What can only speak for a pair, or only against it, whatever our own questions happen to say."""


def kept_cosines(given: Sequence[Pair]) -> np.ndarray[Any, Any]:
    stored = COSINES.read_bytes()
    if stored[:16] != digest(given):
        sys.exit(f"{COSINES.name} is of other pairs: run with --embed")
    return np.frombuffer(stored[16:], "<i2") / STEPS


def keep_cosines(given: Sequence[Pair], cosines: Sequence[float]) -> None:
    values = array("h", (round(cosine * STEPS) for cosine in cosines))
    if sys.byteorder == "big":
        values.byteswap()
    COSINES.write_bytes(digest(given) + values.tobytes())


def line(x: Sequence[float], y: Sequence[bool]) -> tuple[float, float]:
    """Base and slope of the logistic regression on the cosine, by Newton's method; `fsum` adds exactly."""
    base, slope = 0.0, 0.0
    for _ in range(30):
        p = [1 / (1 + math.exp(-(base + slope * value))) for value in x]
        g0 = math.fsum(a - b for a, b in zip(p, y, strict=True))
        g1 = math.fsum((a - b) * value for a, b, value in zip(p, y, x, strict=True))
        h0 = math.fsum(a * (1 - a) for a in p)
        h1 = math.fsum(a * (1 - a) * value for a, value in zip(p, x, strict=True))
        h2 = math.fsum(a * (1 - a) * value * value for a, value in zip(p, x, strict=True))
        size = h0 * h2 - h1 * h1
        base -= (h2 * g0 - h1 * g1) / size
        slope -= (h0 * g1 - h1 * g0) / size
    return float(np.float32(base)), float(np.float32(slope))


def fitted(given: Sequence[Pair], cosines: np.ndarray[Any, Any]) -> bytes:
    """The model's file."""
    features, same = [], []
    for pair, cosine in zip(given, cosines, strict=True):
        judgement = _core.judge(_core.Question(pair.one), _core.Question(pair.two), float(cosine))
        if cosine > FLOOR and not judgement.vetoes:
            features.append(judgement.features)
            same.append(pair.same)
    x = np.array(features, np.float64)
    base, slope = line([row[0] for row in features], same)
    booster = lightgbm.train(
        {
            "objective": "binary",
            "num_leaves": LEAVES,
            "learning_rate": RATE,
            "min_data_in_leaf": 40,
            "lambda_l2": 5.0,
            "monotone_constraints": [SIGNS.get(name, 0) for name in _core.FEATURES],
            "boost_from_average": False,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        },
        lightgbm.Dataset(x, np.array(same, np.float64), init_score=base + slope * x[:, 0]),
        TREES,
    )
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    header = struct.pack("<4sHHIff", b"LCFV", 1, len(_core.FEATURES), len(trees), base, slope)
    return header + b"".join(encoded(tree) for tree in trees)


def encoded(root: dict[str, Any]) -> bytes:
    """A tree as `guard/trees.rs` reads it: parents before their children."""
    nodes: list[bytes] = []

    def add(node: dict[str, Any]) -> int:
        at = len(nodes)
        nodes.append(b"")
        if "leaf_value" in node:
            nodes[at] = struct.pack("<HHHf", 0xFFFF, 0, 0, CORRECTION * node["leaf_value"])
        else:
            left, right = add(node["left_child"]), add(node["right_child"])
            nodes[at] = struct.pack("<HHHf", node["split_feature"], left, right, node["threshold"])
        return at

    add(root)
    return struct.pack("<H", len(nodes)) + b"".join(nodes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if the result is not what is shipped")
    parser.add_argument("--embed", action="store_true", help="compute the cosines anew")
    options = parser.parse_args()
    given = pairs()
    if options.embed:
        from benches.semantic.cosines import cosines

        keep_cosines(given, cosines([(pair.one, pair.two) for pair in given]))
    model = fitted(given, kept_cosines(given))
    if not options.check:
        MODEL.write_bytes(model)
    elif MODEL.read_bytes() != model:
        sys.exit(f"{MODEL.name} is not what the pairs and the features give: run benches.semantic.fit")
    print(f"{len(model)} bytes, {blake2b(model, digest_size=8).hexdigest()}")


if __name__ == "__main__":
    main()
