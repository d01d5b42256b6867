"""The tables of the fingerprint page are the published rules of the profiles, neither more nor less."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROFILES: dict[str, dict[str, Any]] = json.loads((ROOT / "tests" / "golden" / "profiles_v1.json").read_text())
PAGE = (ROOT / "docs" / "reference" / "fingerprint.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    _, _, after = PAGE.partition(f"\n### {heading}\n")
    rows = re.split(r"\n(?!\|)", after.strip(), maxsplit=1)[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def profiles_of(cell: str) -> set[str]:
    if cell.startswith("all"):
        return PROFILES.keys() - set(codes(cell))
    return {
        name for pattern in codes(cell) for name in PROFILES if re.fullmatch(pattern.replace("*", ".*"), name)
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_dropped(profile: str) -> None:
    told = [
        field
        for fields, where, _ in table("Dropped")
        if profile in profiles_of(where)
        for field in codes(fields)
    ]
    assert len(told) == len(set(told))
    assert set(told) == set(PROFILES[profile]["drop"])


@pytest.mark.parametrize("profile", PROFILES)
def test_what_equals_absent(profile: str) -> None:
    defaults: dict[str, Any] = {}
    nullable: set[str] = set()
    for fields, default, where, null in table("Equal to absent"):
        if profile not in profiles_of(where):
            continue
        for field in codes(fields):
            if default:
                assert field not in defaults
                defaults[field] = json.loads(codes(default)[0])
            if null in {"yes", "only null"} or profile in profiles_of(null):
                nullable.add(field)
    assert defaults == PROFILES[profile]["default"]
    assert nullable == set(PROFILES[profile]["nullable"])


@pytest.mark.parametrize("profile", PROFILES)
def test_where_order_is_kept(profile: str) -> None:
    told = [
        path
        for where, paths in table("Order of keys kept")
        if profile in codes(where)
        for path in codes(paths)
    ]
    assert sorted(told) == sorted(PROFILES[profile]["ordered"])


def test_a_wrong_table_is_noticed() -> None:
    assert profiles_of("all but `generic`") == {"openai.chat", "openai.responses", "anthropic.messages"}
    assert profiles_of("`openai.*`") == {"openai.chat", "openai.responses"}
    assert profiles_of("") == set()
    assert len(table("Dropped")) > 1
    assert {len(row) for row in table("Equal to absent")} == {4}
