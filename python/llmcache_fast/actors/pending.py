"""One record in a write-behind buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmcache_fast.tiers.base import StoredRecord

ITEM_OVERHEAD = 512
"""Bytes counted per item beside its envelope: the record, the item, the dict, queue and heap slots."""


@dataclass(slots=True, eq=False)
class Pending:
    """A record that waits for its tier."""

    record: StoredRecord
    number: int
    """Place in the order of arrival; a replacement takes over the place."""
    receipt: Any = None
    writing: bool = False
    attempts: int = 0

    @property
    def size(self) -> int:
        return len(self.record.envelope) + ITEM_OVERHEAD

    @property
    def worth(self) -> float:
        """Dollars per byte, up to a factor; what a record costs to compute again is unknown at 0."""
        return max(self.record.cost, 1) / self.size


def is_newer(there: StoredRecord, record: StoredRecord) -> bool:
    """Whether `there` has a newer stamp than `record`; stamps of two epochs do not compare."""
    return there.epoch == record.epoch and there.snap > record.snap
