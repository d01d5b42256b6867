"""Token usage as the providers report it, and the price table that turns it into micro-USD.

What belongs here: integers and one table look-up. Reports and sums are `insight.cost`.
"""

from __future__ import annotations

import functools
import os
import re
from importlib import resources
from pathlib import Path

import msgspec

from llmcache_fast._errors import ConfigurationError


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of one call."""

    input_tokens: int = 0
    """All tokens of the input, those the provider read from or wrote to its own prompt cache included.

    Anthropic reports three parts: this is `input + cache_read + cache_creation`.
    """
    output_tokens: int = 0
    cached_input_tokens: int = 0
    """The part of the input that the provider read from its own prompt cache."""
    cache_write_tokens: int = 0
    """The part of the input that the provider wrote to its own prompt cache (Anthropic)."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    def times(self, count: int) -> Usage:
        """The usage of the same call made `count` times."""
        return Usage(
            self.input_tokens * count,
            self.output_tokens * count,
            self.cached_input_tokens * count,
            self.cache_write_tokens * count,
        )


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of a model in USD for a million tokens, which is the same number in micro-USD for one token.

    The base tier: what providers add for very long inputs, batches or priority is not in the table.
    """

    input: float
    output: float = 0.0
    cached_input: float | None = None
    """Input read from the provider's prompt cache; as `input` where the provider has no such price."""
    cache_write: float | None = None
    """Input written to the provider's prompt cache; as `input` where the provider has no such price."""


class PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices by model name, with the date they were taken down."""

    dated: str
    """ISO date; prices change, and a report should say how old its own are."""
    models: dict[str, Price]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PriceTable:
        """The table in a JSON file: `{"dated": "2026-01-31", "models": {"NAME": {"input": 2.5, ...}}}`.

        Raises:
            ConfigurationError: the file cannot be read or is not such a table.
        """
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except OSError as problem:
            raise ConfigurationError(
                f"price table {path}: {problem.strerror}; check LLMCACHE_PRICES"
            ) from None
        except msgspec.DecodeError as problem:
            raise ConfigurationError(f"price table {path}: {problem}") from None

    @classmethod
    def shipped(cls) -> PriceTable:
        """The table that comes with the package, overridden by the file that `LLMCACHE_PRICES` names."""
        return _shipped(os.environ.get("LLMCACHE_PRICES"))

    def price(self, model: str | None) -> Price | None:
        """The price of a model, or None when it is unknown: nothing is guessed.

        A name is known when it is in the table, or is a name in the table followed by a date
        (`gpt-4o-2024-08-06`, `claude-sonnet-4-5-20250929`); a gateway's prefix (`openai/gpt-4o`) is skipped.
        """
        if model is None:
            return None
        for name in (model, model.rpartition("/")[2]):
            found = self.models.get(name) or self.models.get(_DATE.sub("", name))
            if found is not None:
                return found
        return None

    def cost(self, model: str | None, usage: Usage | None) -> int | None:
        """What a call cost in micro-USD, rounded to the nearest; None when the model is unknown."""
        price = self.price(model)
        if price is None or usage is None:
            return None
        read, written = usage.cached_input_tokens, usage.cache_write_tokens
        plain = max(0, usage.input_tokens - read - written)
        total = (
            plain * price.input
            + read * (price.input if price.cached_input is None else price.cached_input)
            + written * (price.input if price.cache_write is None else price.cache_write)
            + usage.output_tokens * price.output
        )
        return round(total)

    def merged(self, over: PriceTable) -> PriceTable:
        """This table with another's models put over it; the other's date."""
        return PriceTable(over.dated, {**self.models, **over.models})


_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


@functools.lru_cache(maxsize=4)
def _shipped(override: str | None) -> PriceTable:
    data = resources.files("llmcache_fast").joinpath("prices.json").read_bytes()
    table = msgspec.json.decode(data, type=PriceTable)
    return table.merged(PriceTable.load(override)) if override else table
