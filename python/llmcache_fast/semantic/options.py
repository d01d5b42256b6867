"""`SemanticOptions`: whether and how requests are answered with the answer to another one that asks the same.

What belongs here: the options and their checks. What does not: what they do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.semantic.asked import Attachment, Extract
from llmcache_fast.semantic.embedder import Embedder, check
from llmcache_fast.semantic.prior import Prior

Mode: TypeAlias = Literal["off", "shadow", "on"]

DEFAULT_FLOOR: Final = 0.80
"""Cosine below which nothing is looked at. Of 1,060 rewordings of the development sets that guards and
verifier accept at a score of 0.6, 14 lie below it, and each candidate costs a look-up and a judgement."""
DEFAULT_CANDIDATES: Final = 4
"""The nearest is the right one in nearly all cases; where guards refuse it, one of the next may be."""
_ATTACHMENTS: Final = ("images", "tool_results")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge is asked: whether the stored answer answers what is asked now. It holds texts."""

    asked: str
    stored: str
    """The question that the stored answer was computed for."""
    answer: Any
    """The stored answer, as a caller without `type` gets it."""
    fresh: Any = None
    """In a check afterwards: what the provider answered to `asked`. None before."""

    def __repr__(self) -> str:
        return f"<Comparison {'after' if self.fresh is not None else 'before'} the call>"


Judge: TypeAlias = Callable[[Comparison], Awaitable["bool | None"]]
"""True: it does; False: it does not; None: no saying."""


class SemanticOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How requests in other words are matched.

    Args:
        embedder: What makes vectors of texts: see `llmcache_fast.semantic`. With an `NGramEmbedder` only what
            differs in spacing, letter case and punctuation is matched.
        false_hit_budget: The share of semantic hits that may be wrong, 0 to 0.5; kept at `confidence`.
        confidence: Of the bound, 0.5 to 1.
        mode: `on` serves; `shadow` serves nothing and reports what it would have served; `off`.
        judge: Asked about candidates that the evidence so far does not clear, and in checks afterwards.
        shadow_rate: The least share of hits after which the provider is called all the same, in the
            background, to compare the answers; above 0, below 1. More while there is little evidence.
        prior: Evidence from elsewhere: see `llmcache-fast semantic calibrate`. None: that of the verifier.
        floor: The cosine below which nothing is looked at, -1 to 1.
        candidates: How many of the nearest are looked at.
        also: What a request may end in beside the user's text, if it is equal: `images`, `tool_results`.
        question: Takes a request apart, in place of the rules for known protocols: text and rest, or None.
        memory: Bytes of the cache's memory that vectors may take; None: a quarter.

    Raises:
        ConfigurationError: an option that cannot work.
    """

    embedder: Embedder
    false_hit_budget: float = 0.01
    confidence: float = 0.95
    mode: Mode = "on"
    judge: Judge | None = None
    shadow_rate: float = 0.05
    prior: Prior | None = None
    floor: float = DEFAULT_FLOOR
    candidates: int = DEFAULT_CANDIDATES
    also: tuple[Attachment, ...] = ()
    question: Extract | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        embedder: Any = self.embedder
        if not isinstance(embedder, Embedder):
            kind = type(embedder).__name__
            raise ConfigurationError(
                f"embedder: {kind} is none; llmcache_fast.semantic has some, see Embedder"
            )
        check(self.embedder)
        _between("false_hit_budget", self.false_hit_budget, 0.0, 0.5)
        _between("confidence", self.confidence, 0.5, 1.0)
        _between("shadow_rate", self.shadow_rate, 0.0, 1.0)
        _between("floor", self.floor, -1.0, 1.0, ends=True)
        _whole("candidates", self.candidates, 1, 64)
        if self.memory is not None:
            _whole("memory", self.memory, 1, 1 << 62)
        if self.mode not in ("off", "shadow", "on"):
            raise ConfigurationError(f"mode: must be 'off', 'shadow' or 'on', not {self.mode!r}")
        if not isinstance(self.also, tuple | list) or not set(self.also) <= set(_ATTACHMENTS):
            raise ConfigurationError(f"also: may name {' and '.join(_ATTACHMENTS)}, not {self.also!r}")
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise ConfigurationError("prior: must be a Prior; Prior.load reads those of `semantic calibrate`")


def _whole(option: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigurationError(f"{option}: must be a whole number from {low} to {high}, not {value!r}")


def _between(option: str, value: object, low: float, high: float, *, ends: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low <= value <= high if ends else low < value < high):  # type: ignore[operator]
        between = "from" if ends else "between"
        raise ConfigurationError(f"{option}: must be a number {between} {low:g} and {high:g}, not {value!r}")
