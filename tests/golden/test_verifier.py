"""The shipped verifier is of the questions and the features that are here.

`python -m benches.semantic.fit --check`, which needs LightGBM, says that fitting gives the same bytes again.
"""

from __future__ import annotations

import struct
from pathlib import Path

from benches.semantic.pairs import digest, pairs
from llmcache_fast import _core

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "rust" / "core" / "src" / "guard" / "verifier.model"
COSINES = ROOT / "benches" / "semantic" / "cosines.bin"


def test_the_cosines_are_of_these_pairs() -> None:
    given, stored = pairs(), COSINES.read_bytes()
    assert stored[:16] == digest(given)
    assert len(stored) == 16 + 2 * len(given)


def test_the_pairs_are_the_same_each_time() -> None:
    assert pairs() == pairs()


def test_no_pair_is_said_to_be_both() -> None:
    given = pairs()
    same = {frozenset((pair.one, pair.two)) for pair in given if pair.same}
    other = {frozenset((pair.one, pair.two)) for pair in given if not pair.same}
    assert same.isdisjoint(other)


def test_the_model_is_of_these_features() -> None:
    magic, version, features, trees = struct.unpack_from("<4sHHI", MODEL.read_bytes())
    assert (magic, version, features) == (b"LCFV", 1, len(_core.FEATURES))
    assert trees > 0
