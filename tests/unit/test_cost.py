"""Sums for reports."""

from __future__ import annotations

import pytest

from llmcache_fast.insight.cost import Bill, Price, PriceTable, Usage, dollars

TABLE = PriceTable("2026-01-01", {"m": Price(2.0, 8.0)})


def test_a_bill_sums_known_prices_and_counts_the_others() -> None:
    bill = Bill()
    bill.add(TABLE, "m", Usage(100, 10))
    bill.add(TABLE, "m", Usage(50, 5), times=2)
    bill.add(TABLE, "unheard-of", Usage(7, 7))
    bill.add(TABLE, "m", None)
    assert bill.calls == 5
    assert bill.usage == Usage(207, 27)
    assert bill.micro_usd == 200 * 2 + 20 * 8
    assert bill.unpriced_calls == 2


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (120, "$0.00012"), (10_000, "$0.01"), (1_234_567_890, "$1,234.57")],
)
def test_dollars(micro: int, text: str) -> None:
    assert dollars(micro) == text
