"""Patterns of labels as callers write them."""

from __future__ import annotations

from typing import Any

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast._patterns import MAX_PATTERN, literal_prefix, pattern_of


@pytest.mark.parametrize("pattern", ["content/*/2024-*", "**/x", "a?", "a", "*a*", "x" * MAX_PATTERN])
def test_a_pattern_with_something_literal_can_be(pattern: str) -> None:
    assert pattern_of(pattern) == pattern


@pytest.mark.parametrize(
    "wrong", ["", "*", "**", "*/*", "?", "/a", "a/", "a//b", "x" * (MAX_PATTERN + 1), 7, None, b"a", "\ud800"]
)
def test_any_other_is_refused_with_a_reason(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="pattern"):
        pattern_of(wrong)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("content/*/2024-*", "content/"),
        ("a/b/c*", "a/b/"),
        ("a*/b", ""),
        ("**/b", ""),
        ("a/b", "a/"),
        ("plain", ""),
    ],
)
def test_all_that_matches_is_below_the_literal_prefix(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix
