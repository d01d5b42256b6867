"""Parsing the control headers."""

from __future__ import annotations

import msgspec
import pytest

from llmcache_fast.integrations.wire.controls import ControlError, Controls, parse_controls


def test_no_control_is_the_default() -> None:
    assert parse_controls({"content-type": "application/json"}) == Controls()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-llmcache-control": "no-cache"}, Controls(refresh=True)),
        ({"x-llmcache-control": "Refresh"}, Controls(refresh=True)),
        ({"x-llmcache-control": "no-store"}, Controls(store=False)),
        ({"x-llmcache-control": " only-if-cached , no-store"}, Controls(only_if_cached=True, store=False)),
        ({"x-llmcache-ttl": "90.5"}, Controls(ttl=90.5)),
        ({"x-llmcache-ttl": "0"}, Controls(ttl=0.0)),
        ({"x-llmcache-ttl": "None"}, Controls(ttl=None)),
        ({"x-llmcache-tags": "a, b:1,,"}, Controls(tags=("a", "b:1"))),
        ({"x-llmcache-variant": "2", "x-llmcache-label": "a/b"}, Controls(variant="2", label="a/b")),
    ],
)
def test_what_each_control_means(headers: dict[str, str], expected: Controls) -> None:
    assert parse_controls(headers) == expected


def test_bypass_is_neither_read_nor_store() -> None:
    assert parse_controls({"x-llmcache-control": "no-cache, no-store"}).bypass
    assert not parse_controls({"x-llmcache-control": "no-store"}).bypass
    assert parse_controls({"x-llmcache-control": "no-store"}).ttl is msgspec.UNSET


@pytest.mark.parametrize("ttl", ["-3", "nan", "inf", "1h", ""])
def test_bad_ttl(ttl: str) -> None:
    with pytest.raises(ControlError, match=r"x-llmcache-ttl must be .* zero or more, or 'none'"):
        parse_controls({"x-llmcache-ttl": ttl})


def test_unknown_names_are_listed_with_the_known() -> None:
    with pytest.raises(ControlError, match=r"x-llmcache-tag; the controls are .*x-llmcache-tags"):
        parse_controls({"x-llmcache-tag": "a"})
