"""What cannot work is said at once, with what can."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast import Comparison, ConfigurationError, SemanticOptions
from llmcache_fast.testing import FakeEmbedder


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("false_hit_budget", 0),
        ("false_hit_budget", 0.6),
        ("false_hit_budget", "1%"),
        ("false_hit_budget", True),
        ("confidence", 0.4),
        ("confidence", 1),
        ("shadow_rate", 0),
        ("shadow_rate", 1.5),
        ("floor", 1.1),
        ("floor", float("nan")),
        ("mode", "maybe"),
        ("candidates", 0),
        ("candidates", 65),
        ("candidates", 2.0),
        ("also", "images"),
        ("also", ("videos",)),
        ("memory", 0),
        ("memory", "1GiB"),
    ],
)
def test_an_option_that_cannot_work_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option}: "):
        SemanticOptions(embedder=FakeEmbedder(), **{option: value})


def test_what_is_no_embedder_is_told_apart() -> None:
    with pytest.raises(ConfigurationError, match=r"^embedder: str is none"):
        SemanticOptions(embedder="minilm")  # type: ignore[arg-type]


def test_the_ends_that_can_be_chosen() -> None:
    for given in (
        {"floor": -1},
        {"floor": 1.0},
        {"candidates": 64},
        {"also": ["images"]},
        {"memory": 1 << 20},
    ):
        SemanticOptions(embedder=FakeEmbedder(), **given)


def test_a_comparison_shows_no_text() -> None:
    before = Comparison(asked="secret", stored="secret too", answer="most secret")
    assert "secret" not in repr(before)
    assert "before" in repr(before)
    assert "after" in repr(Comparison(asked="a", stored="b", answer="c", fresh="d"))
