"""The heap of what is worth least."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast.actors.cheapest import Cheapest


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=400))
def test_the_lowest_of_those_that_are_there_comes_first(steps: list[tuple[float, bool]]) -> None:
    there: dict[int, float] = {}
    heap: Cheapest[int] = Cheapest(lambda: ((worth, item) for item, worth in there.items()))
    for number, (worth, take) in enumerate(steps):
        if take:
            found = heap.pop(there.__contains__)
            assert (found is None) == (not there)
            if found is not None:
                lowest = min(there.values())
                assert there.pop(found) == lowest
        else:
            there[number] = worth
            heap.add(worth, number, len(there))
    order = []
    while (found := heap.pop(there.__contains__)) is not None:
        order.append(there.pop(found))
    assert order == sorted(order)
    assert not there
