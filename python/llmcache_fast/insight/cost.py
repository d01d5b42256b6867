"""What calls cost and what hits saved, summed over many of them for a report.

Prices are applied here and when an entry is recorded, never on the hit path: a hit adds integers. A model
without a price counts as unknown: its tokens are reported, its money is not guessed.
"""

from __future__ import annotations

import msgspec

from llmcache_fast._usage import Price, PriceTable, Usage

__all__ = ["Bill", "Price", "PriceTable", "Usage", "dollars"]


class Bill(msgspec.Struct):
    """A running sum over calls."""

    calls: int = 0
    usage: Usage = Usage()
    micro_usd: int = 0
    """Cost of the calls whose model has a price."""
    unpriced_calls: int = 0
    """Calls whose model has none, or which reported no usage."""

    def add(self, table: PriceTable, model: str | None, usage: Usage | None, *, times: int = 1) -> None:
        """Count the same call `times` times."""
        self.calls += times
        if usage is not None:
            self.usage += usage.times(times)
        cost = table.cost(model, usage)
        if cost is None:
            self.unpriced_calls += times
        else:
            self.micro_usd += cost * times


def dollars(micro_usd: int) -> str:
    """`$1.23`; below a cent as many digits as it takes to show two that count."""
    if micro_usd >= 10_000 or micro_usd == 0:
        return f"${micro_usd / 1e6:,.2f}"
    return f"${micro_usd / 1e6:.6f}".rstrip("0")
