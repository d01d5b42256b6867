"""What an authority says of one namespace, in the form tests compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmcache_fast.tiers.base import Asked


async def clock_of(tier: Any, namespace: int) -> tuple[int, int]:
    """Epoch and last seq."""
    (changes,) = await tier.changes([Asked(namespace)])
    return changes.epoch, changes.seq


async def markers_of(tier: Any, namespace: int, since: int = 0) -> list[tuple[int, int]]:
    """`(target, seq)` of the markers raised after `since`."""
    epoch, _ = await clock_of(tier, namespace)
    (changes,) = await tier.changes([Asked(namespace, epoch, since)])
    markers: list[tuple[int, int]] = changes.markers
    return markers


async def raise_markers(tier: Any, namespace: int, targets: Sequence[int]) -> tuple[int, int]:
    """Epoch and seq of an invalidation."""
    epoch, seq, _ = await tier.raise_markers(namespace, targets)
    return epoch, seq
