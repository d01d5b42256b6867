"""Tokens and prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcache_fast import ConfigurationError, PriceTable, Usage
from llmcache_fast._usage import Price

TABLE = PriceTable(
    "2026-01-31", {"m": Price(2.0, 10.0, cached_input=0.5, cache_write=2.5), "bare": Price(3.0)}
)


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert Usage(1, 2, 3, 4).times(3) == Usage(3, 6, 9, 12)
    assert Usage().times(5) == Usage()


def test_cost_in_micro_usd() -> None:
    # A price in USD for a million tokens is micro-USD for one.
    assert TABLE.cost("m", Usage(1000, 100)) == 1000 * 2 + 100 * 10
    assert TABLE.cost("m", Usage(1000, 100, cached_input_tokens=400, cache_write_tokens=200)) == (
        400 * 2 + 400 * 0.5 + 200 * 2.5 + 100 * 10
    )
    assert TABLE.cost("bare", Usage(1000, 100, cached_input_tokens=400)) == 3000, (
        "as input without a price of its own"
    )
    assert TABLE.cost("m", Usage(10, 0, cached_input_tokens=50)) == 25, "never below nothing"


def test_nothing_is_guessed() -> None:
    assert TABLE.cost("unknown", Usage(1)) is None
    assert TABLE.cost(None, Usage(1)) is None
    assert TABLE.cost("m", None) is None
    assert TABLE.price("m2") is None


@pytest.mark.parametrize("name", ["m", "m-20250929", "m-2024-08-06", "openai/m", "a/b/m-20250929"])
def test_dates_and_gateways_are_looked_through(name: str) -> None:
    assert TABLE.price(name) == TABLE.models["m"]


def test_the_shipped_table_is_overridden_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = PriceTable.shipped()
    assert shipped.models
    assert len(shipped.dated) == 10
    file = tmp_path / "prices.json"
    file.write_text('{"dated": "2030-01-01", "models": {"mine": {"input": 1.5}}}')
    monkeypatch.setenv("LLMCACHE_PRICES", str(file))
    table = PriceTable.shipped()
    assert table.price("mine") == Price(1.5)
    assert table.models.items() > shipped.models.items()
    assert table.dated == "2030-01-01"


@pytest.mark.parametrize(
    "text", [None, "{", '{"dated": "x"}', '{"dated": "x", "models": {"a": {"inputs": 1}}}']
)
def test_a_table_that_is_none_says_so(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "prices.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"prices\.json: "):
        PriceTable.load(file)
