"""What is known of a verifier before its first question.

What belongs here: evidence that comes from elsewhere than the traffic itself. What does not: the traffic's
own (`evidence`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from llmcache_fast import _core
from llmcache_fast.semantic.evidence import GRID

_VERSION: Final = 1


class _File(msgspec.Struct):
    version: int
    answers: tuple[tuple[float, float], ...]
    worth: float


class Prior(msgspec.Struct, frozen=True):
    """What is known before the first question: per threshold of the grid, answers that were right and wrong
    at that score or above. It counts as `worth` answers at the most, and no longer once a threshold was
    closed."""

    answers: tuple[tuple[float, float], ...]
    worth: float = 100.0

    @classmethod
    def above(cls, floor: float, worth: float = 100.0) -> Prior:
        """As if `worth` answers scoring `floor` or more had been right."""
        return cls(tuple((worth if threshold >= floor else 0.0, 0.0) for threshold in GRID), worth)

    def __post_init__(self) -> None:
        if len(self.answers) != len(GRID) or not 0 <= self.worth <= 1e6:
            raise ValueError(
                f"prior: needs right and wrong answers of {len(GRID)} thresholds, and a worth of 0 to 1e6"
            )
        if not all(0 <= number < math.inf for pair in self.answers for number in pair):
            raise ValueError("prior: numbers of answers must be finite and not negative")

    def dump(self) -> bytes:
        """As JSON, for `load`."""
        return msgspec.json.encode(_File(_VERSION, self.answers, self.worth))

    @classmethod
    def load(cls, data: bytes) -> Prior:
        """What `dump` wrote, or `llmcache-fast semantic calibrate --out`.

        Raises:
            ValueError: the bytes are none of these.
        """
        try:
            file = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise ValueError(f"prior: cannot be read ({problem})") from None
        if file.version != _VERSION:
            raise ValueError(f"prior: version {file.version}, not {_VERSION}: make it anew by calibrate")
        return cls(file.answers, file.worth)


PRIOR: Final = Prior.above(_core.COLD_START_SCORE, 130.0)
"""Without one of your own: what the verifier's floor is worth. A hundred and thirty labels open it at once
for budgets from about 0.05, and for 0.01 not before some 470 of your own."""
