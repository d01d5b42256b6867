"""Token usage and prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast._usage import Price, PriceTable, Usage

TABLE = PriceTable("2026-01-01", {"m": Price(2.0, 8.0, 0.5, 2.5), "plain": Price(1.0, 4.0)})


def test_cost_counts_each_part_of_the_input_once() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=300, cache_write_tokens=200)
    assert TABLE.cost("m", usage) == 500 * 2 + 300 * 0.5 + 200 * 2.5 + 100 * 8
    assert TABLE.cost("plain", usage) == 1000 * 1 + 100 * 4, "as input without a price of its own"
    assert TABLE.cost("m", Usage(10, 0, cached_input_tokens=50)) == 25, "never below nothing"


def test_a_name_is_known_exactly_dated_or_behind_a_gateway() -> None:
    for name in ("m", "m-2024-08-06", "m-20250929", "openai/m", "gateway/openai/m-20250929"):
        assert TABLE.price(name) == TABLE.models["m"]
    for other in ("m2", "m-mini", "m-audio-preview", "mm", "m-2024", "", None):
        assert TABLE.price(other) is None
        assert TABLE.cost(other, Usage(1, 1)) is None
    assert TABLE.cost("m", None) is None


def test_usage_adds_and_multiplies() -> None:
    usage = Usage(1, 2, 3, 4)
    assert usage + usage == usage.times(2) == Usage(2, 4, 6, 8)
    assert usage + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert Usage().times(5) == Usage()


def test_the_shipped_table_is_dated_and_can_be_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMCACHE_PRICES", raising=False)
    shipped = PriceTable.shipped()
    assert shipped.dated >= "2026-11-23"
    assert shipped.cost("gpt-4o-mini", Usage(1_000_000, 1_000_000)) == 150_000 + 600_000
    assert all(price.input > 0 for price in shipped.models.values())
    path = tmp_path / "prices.json"
    path.write_text('{"dated": "2027-01-01", "models": {"own": {"input": 3}}}')
    monkeypatch.setenv("LLMCACHE_PRICES", str(path))
    mine = PriceTable.shipped()
    assert mine.dated == "2027-01-01"
    assert mine.cost("own", Usage(10, 10)) == 30
    assert mine.models.items() > shipped.models.items()


@pytest.mark.parametrize("text", ["{", '{"dated": "x"}', '{"dated": "x", "models": {"m": {"inptu": 1}}}'])
def test_a_bad_table_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"prices\.json"):
        PriceTable.load(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        PriceTable.load(tmp_path / "absent.json")
