"""A stream of requests against a cache that starts empty: fixed cosines beside the false-hit budget.

    python -m benches.semantic.stream FILE --vectors FOLDER   # FILE: lines of {"text": ..., "cls": ...}

Equal `cls` is the same answer. The file is of others and stays where it is; FOLDER keeps its vectors for the
next run. Labels stand for the answers of the provider: what is not served, and what is checked, is compared
by them. Over shuffles of the stream it tells, beside hits and errors, in how many of them a budget was
exceeded at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import anyio
import numpy as np

from llmcache_fast import _core
from llmcache_fast.semantic import MiniLMEmbedder
from llmcache_fast.semantic.budget import Budget
from llmcache_fast.semantic.prior import PRIOR, Prior

Array = np.ndarray[Any, Any]
FIXED = (0.80, 0.85, 0.90, 0.95)
BUDGETS = (0.01, 0.02, 0.05, 0.1)
CANDIDATES = 4
"""Nearest stored questions: the first of them to which no guard objects counts."""


class Stream:
    """Requests, their answers, and how alike any two of them are."""

    def __init__(self, path: Path, folder: Path, *, judged: bool) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.texts = [row["text"] for row in rows]
        self.answers = [row["cls"] for row in rows]
        vectors = _vectors(self.texts, folder)
        self.cosines = np.minimum(vectors @ vectors.T, 1.0)
        self._judged: dict[tuple[int, int], float] = {}
        self._questions = [_core.Question(text) for text in self.texts] if judged else None

    def score(self, asked: int, stored: int) -> float:
        """Of the guards and the verifier; of the cosine where there are none."""
        cosine = float(self.cosines[asked, stored])
        if self._questions is None:
            return cosine
        key = (asked, stored)
        if key not in self._judged:
            found = _core.judge(self._questions[asked], self._questions[stored], cosine)
            rejected = found.vetoes or cosine < _core.COSINE_FLOOR
            self._judged[key] = -1.0 if rejected else found.score
        return self._judged[key]


def _vectors(texts: list[str], folder: Path) -> Array:
    name = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    kept = folder / f"minilm-{name}.npy"
    if kept.exists():
        return np.load(kept)

    async def embed() -> Array:
        model = MiniLMEmbedder(truncate=True)
        return np.concatenate([await model.embed(texts[at : at + 256]) for at in range(0, len(texts), 256)])

    found = anyio.run(embed)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(kept, found)
    return found


class Run(NamedTuple):
    """One shuffle."""

    hits: int
    wrong: int
    possible: int
    """Requests whose answer had been given before: what a perfect cache would have hit."""
    checks: int
    off: bool


def replay(stream: Stream, seed: int, *, fixed: float | None, budget: Budget | None, judged: bool) -> Run:
    """A question that was answered from the cache is not stored."""
    order = list(range(len(stream.texts)))
    random.Random(seed).shuffle(order)
    stored: list[int] = []
    given: set[str] = set()
    hits = wrong_hits = possible = checks = 0
    for asked in order:
        answer = stream.answers[asked]
        possible += answer in given
        given.add(answer)
        served = False
        if stored:
            cosines = stream.cosines[asked, stored]
            if judged:
                count = min(CANDIDATES, len(stored))
                nearest = np.argpartition(-cosines, count - 1)[:count]
                near = [stored[at] for at in nearest[np.argsort(-cosines[nearest])]]
                scores = [(stream.score(asked, one), one) for one in near]
                score, found = next((pair for pair in scores if pair[0] >= 0), scores[0])
            else:
                at = int(cosines.argmax())
                score, found = float(cosines[at]), stored[at]
            wrong, entry = stream.answers[found] != answer, str(found).encode()
            if budget is None:
                served = fixed is not None and score >= fixed
            else:
                verdict = budget.decide(score, entry)
                served = verdict == "accept"
                if served and budget.should_check(score, entry):
                    checks += 1
                    budget.observe(score, entry, wrong, served=True, source="shadow")
                elif verdict == "uncertain":
                    budget.observe(score, entry, wrong, served=False, source="uncertain")
            hits += served
            wrong_hits += served and wrong
        if not served:
            stored.append(asked)
    return Run(hits, wrong_hits, possible, checks, budget is not None and budget.is_off)


def row(name: str, runs: list[Run], requests: int, budget: float | None = None) -> str:
    correct = mean((run.hits - run.wrong) / run.possible for run in runs)
    shares = [run.wrong / run.hits if run.hits else 0.0 for run in runs]
    cells = [
        f"{name:34}",
        f"{correct:7.1%}",
        f"{mean(run.wrong for run in runs) / requests:9.2%}",
        f"{mean(shares):8.2%}",
        f"{max(shares):8.2%}",
    ]
    if budget is not None:
        hits = sum(run.hits for run in runs)
        over = sum(run.wrong > budget * run.hits for run in runs)
        cells += [
            f"{over:4} of {len(runs):2}",
            f"{sum(run.checks for run in runs) / max(hits, 1):7.1%}",
            f"{sum(run.off for run in runs):4}",
        ]
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--vectors", type=Path, required=True, help="folder that keeps vectors")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument(
        "--fixed", type=float, nargs="*", default=list(FIXED), help="scores, without a budget"
    )
    parser.add_argument("--score", choices=("judge", "cosine"), default="judge", help="what ours is given")
    parser.add_argument("--shadow-rate", type=float, default=0.05)
    parser.add_argument("--prior", type=Path, help="what `semantic calibrate --out` wrote")
    options = parser.parse_args()
    judged = options.score == "judge"
    stream = Stream(options.file, options.vectors, judged=judged)
    prior = Prior.load(options.prior.read_bytes()) if options.prior else PRIOR
    requests, seeds = len(stream.texts), range(options.shuffles)
    print(f"{requests} requests, {options.shuffles} shuffles")
    print(
        f"{'':34} {'correct':>7} {'wrong a':>9} {'wrong a':>8} {'largest':>8} {'over the':>10} {'checks':>7} "
        f"{'off':>4}\n{'':34} {'of poss.':>7} {'request':>8} {'hit':>8} {'':8} {'budget':>10} {'a hit':>7}"
    )
    for fixed in options.fixed:
        runs = [replay(stream, seed, fixed=fixed, budget=None, judged=False) for seed in seeds]
        print(row(f"cosine, fixed {fixed:.2f}", runs, requests), flush=True)
    if judged:
        for fixed in options.fixed:
            runs = [replay(stream, seed, fixed=fixed, budget=None, judged=True) for seed in seeds]
            print(row(f"guards and verifier, fixed {fixed:.2f}", runs, requests), flush=True)
    for share in options.budgets:
        runs = [
            replay(
                stream,
                seed,
                fixed=None,
                budget=Budget(
                    share, shadow_rate=options.shadow_rate, prior=prior, rng=random.Random(seed).random
                ),
                judged=judged,
            )
            for seed in seeds
        ]
        print(row(f"{options.score}, budget {share:.2f}", runs, requests, share), flush=True)


if __name__ == "__main__":
    main()
