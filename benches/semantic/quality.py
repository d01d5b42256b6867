"""How many rewordings are found, and how many other questions are taken for the same: always both.

    python -m benches.semantic.quality FOLDER    # *.jsonl of {"a": ..., "b": ..., "same": ...}

The pairs are of others and stay where they are. Sets of what people asked and adversarial sets, whose pairs
differ by a number, a date, a name, a place, a negation or an order, are printed beside each other.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benches.semantic.cosines import cosines
from llmcache_fast import _core

Array = np.ndarray[Any, Any]
ERRORS = (0.01, 0.02)
BASELINES = (0.85, 0.90)
HARD = ("checklist", "contrast", "intents", "situated")
"""Sets whose name has one of these are adversarial."""


class Judged(NamedTuple):
    """The pairs of a set, with what was thought of them."""

    same: Array
    cosine: Array
    score: Array
    """-1 where a guard objects or the cosine is below the floor."""
    vetoes: list[tuple[str, ...]]


def judged(rows: list[dict[str, Any]]) -> Judged:
    texts = [(row["a"], row["b"]) for row in rows]
    found = cosines(texts)
    judgements = [
        _core.judge(_core.Question(one), _core.Question(two), cosine)
        for (one, two), cosine in zip(texts, found, strict=True)
    ]
    cosine = np.array(found)
    vetoed = np.array([bool(each.vetoes) for each in judgements])
    score = np.array([each.score for each in judgements])
    return Judged(
        np.array([row["same"] for row in rows], bool),
        cosine,
        np.where(vetoed | (cosine < _core.COSINE_FLOOR), -1.0, score),
        [each.vetoes for each in judgements],
    )


def pooled(sets: list[Judged]) -> Judged:
    return Judged(
        np.concatenate([each.same for each in sets]),
        np.concatenate([each.cosine for each in sets]),
        np.concatenate([each.score for each in sets]),
        [vetoes for each in sets for vetoes in each.vetoes],
    )


def at_error(values: Array, same: Array, error: float) -> float:
    """The share of rewordings above the value that this share of other questions reaches."""
    others = np.sort(values[~same])[::-1]
    return float((values[same] > others[int(error * len(others))]).mean())


def shares(accepted: Array, same: Array) -> str:
    """Of rewordings, and of other questions."""
    hits = f"{accepted[same].mean():6.1%}" if same.any() else "     -"
    return f"{hits} {accepted[~same].mean():6.2%}"


def row(name: str, of: Judged) -> str:
    columns = [shares(of.cosine >= floor, of.same) for floor in BASELINES]
    columns.append(shares(of.score >= _core.COLD_START_SCORE, of.same))
    line = f"{name:22} {len(of.same):5} {int(of.same.sum()):5} | " + " | ".join(columns)
    if of.same.any() and not of.same.all():
        ours = [at_error(of.score, of.same, error) for error in ERRORS]
        alone = [at_error(of.cosine, of.same, error) for error in ERRORS]
        line += " | " + " ".join(
            f"{mine:5.1%} ({other:5.1%})" for mine, other in zip(ours, alone, strict=True)
        )
    return line


def guards(name: str, of: Judged) -> str:
    """How often each guard objected, and how often it alone did: to other questions, and to rewordings."""
    lines = [f"{name}: guard, on other questions (alone), on rewordings (alone)"]
    counts: dict[tuple[bool, bool], Counter[str]] = {
        (same, alone): Counter(
            veto
            for vetoes, is_same in zip(of.vetoes, of.same, strict=True)
            if is_same == same and (len(vetoes) == 1 or not alone)
            for veto in vetoes
        )
        for same in (False, True)
        for alone in (False, True)
    }
    for guard in _core.GUARDS:
        numbers = [counts[same, alone][guard] for same in (False, True) for alone in (False, True)]
        if any(numbers):
            lines.append(f"  {guard:20} {numbers[0]:5} ({numbers[1]:4}) {numbers[2]:5} ({numbers[3]:4})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with files of labelled pairs")
    parser.add_argument("--guards", action="store_true", help="count what each guard objects to")
    options = parser.parse_args()
    sets = {}
    for path in sorted(options.folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows and "same" in rows[0]:
            sets[path.stem] = judged(rows)
    if not sets:
        parser.error(f"{options.folder} has no *.jsonl with pairs")
    hard = [name for name in sets if any(part in name for part in HARD)]
    easy = [name for name in sets if name not in hard]
    ours = f"guards, {_core.COLD_START_SCORE:.2f}"
    heads = [*(f"cosine {floor:.2f}" for floor in BASELINES), ours]
    print(
        f"{'share accepted of':22} {'pairs':>5} {'same':>5} | " + " | ".join(f"{head:13}" for head in heads)
    )
    print(f"{'same and different':34} | " + " | ".join(f"{'same   diff':13}" for _ in heads), end="")
    print(" | same at 1 % and 2 % of diff (cosine alone)")
    for group, names in (("easy", easy), ("adversarial", hard)):
        for name in names:
            print(row(name, sets[name]))
        if len(names) > 1:
            print(row(f"all {group}", pooled([sets[name] for name in names])))
    if options.guards:
        for name, one in sets.items():
            print(guards(name, one))


if __name__ == "__main__":
    main()
