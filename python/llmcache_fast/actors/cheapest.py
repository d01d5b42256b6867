"""Which of many items is worth least, while items come and go."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Cheapest(Generic[T]):
    """A heap of items by worth in which items that are gone stay behind until they are met.

    `present` says which items are still there; it is asked when the heap is made anew, which happens when
    most of it is gone, so that adding is O(log n) on the average.
    """

    def __init__(self, present: Callable[[], Iterable[tuple[float, T]]]) -> None:
        self._present = present
        self._heap: list[tuple[float, int, T]] = []
        self._ties = count()

    def add(self, worth: float, item: T, among: int) -> None:
        """Remember an item; `among` is how many are there."""
        if len(self._heap) > 2 * among + 64:
            self._heap = [(worth, next(self._ties), item) for worth, item in self._present()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (worth, next(self._ties), item))

    def pop(self, is_there: Callable[[T], bool]) -> T | None:
        """Take out the item of the lowest worth for which `is_there` holds; None if there is none."""
        while self._heap:
            item = heapq.heappop(self._heap)[2]
            if is_there(item):
                return item
        return None
