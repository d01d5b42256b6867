"""Validity: what tags cost a hit in memory, and what it costs to invalidate one.

A hit whose entry was judged since the last invalidation compares two numbers. Otherwise the markers of the
entry's targets are looked up: at worst at each hit, when something is invalidated between any two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benches.figure import Figure, duration, from_times
from benches.ours import HOUR, L1, NAMESPACE, l1_engine
from benches.rounds import Contender, Spread, interleave, pedantic
from benches.workloads import keys
from llmcache_fast._core import Engine
from llmcache_fast._entry import Facts, pack_facts

TAGGED, PLAIN = "with 3 tags", "without tags"
NOTHING, SOMETHING = "nothing invalidated since", "something invalidated before each"
ENTRIES = 1000
MARKERS = 10_000
"""Raised before, by other tags."""
COVERED = {"1 entry": 1, "10^3 entries": 1000, "10^6 entries": 1_000_000}
SPACE = Engine._namespace_id(NAMESPACE)


def targets(tag: str) -> list[int]:
    return Engine._named_targets(NAMESPACE, tags=[tag])


def put(store: L1, key: bytes, tags: list[str]) -> None:
    """An entry as `LLMCache` stores it, of a value that takes no place of its own."""
    facts = (tags, None, [], pack_facts(Facts(tags=tuple(tags)))) if tags else None
    until = 1 << 60
    outcome = store.engine._insert(key, b"", NAMESPACE, facts, 0, until, until, HOUR, *store.stamp)
    assert outcome == "stored", outcome


def _get_each(get: Callable[[bytes], Any]) -> Callable[[list[bytes]], None]:
    def run(batch: list[bytes]) -> None:
        for key in batch:
            assert get(key) is not None

    return run


def _raise_and_get_each(
    raise_: Callable[[int, list[int]], int], get: Callable[[bytes], Any]
) -> Callable[[list[bytes]], None]:
    invalidated = targets("another")

    def run(batch: list[bytes]) -> None:
        for key in batch:
            raise_(SPACE, invalidated)
            assert get(key) is not None

    return run


def hit_contenders(when: str) -> dict[str, Contender]:
    """Hits of 1,000 entries in turn; their cost is that of the processor's own caches."""
    contenders = {}
    for name in (PLAIN, TAGGED):
        store = l1_engine(64 << 20)
        raise_, get = store.engine._raise, store.get
        for number in range(MARKERS):
            raise_(SPACE, targets(f"other {number}"), 1 + number)
        own = keys(ENTRIES)
        store.stamp = store.engine._stamp(SPACE)
        for number, key in enumerate(own):
            tags = [f"user:{number % 100}", f"prompt:{number % 7}", f"document:{number}"]
            put(store, key, tags if name == TAGGED else [])

        turns = itertools.cycle(own)
        contenders[name] = Contender(
            lambda size, turns=turns: list(itertools.islice(turns, size)),
            _get_each(get) if when == NOTHING else _raise_and_get_each(raise_, get),
        )
    return contenders


def hits(rounds: int) -> Iterator[Figure]:
    for when in (NOTHING, SOMETHING):
        times = interleave(hit_contenders(when), size=5_000, rounds=8 * rounds)
        pairs = zip(times.rounds[TAGGED], times.rounds[PLAIN], strict=True)
        yield Figure(
            f"validity of an L1 hit with 3 tags, {when}",
            PLAIN,
            {TAGGED: Spread.of([tagged - plain for tagged, plain in pairs])},
            30.0,
            {TAGGED: f"{duration(times.ns(TAGGED).median)}, {PLAIN} {duration(times.ns(PLAIN).median)}"},
            TAGGED,
            ["with the invalidation, in both"] if when == SOMETHING else [],
            "ns",
        )


def invalidation_contenders() -> dict[str, Contender]:
    """One tier with all entries, each with one of three tags: from the names to the raised markers."""
    store = l1_engine(1 << 30)
    for name, count in COVERED.items():
        for key in keys(count, seed=count):
            put(store, key, [name])
    held = sum(shard["entries"] for shard in store.engine._shards())
    assert held == sum(COVERED.values()), held
    raise_, named = store.engine._raise, Engine._named_targets

    def contender(tag: str) -> Contender:
        def run(size: int) -> None:
            for _ in range(size):
                raise_(SPACE, named(NAMESPACE, tags=[tag]))

        return Contender(lambda size: size, run)

    return {name: contender(name) for name in COVERED}


def invalidations(rounds: int) -> Iterator[Figure]:
    first, *_, last = COVERED
    times = interleave(invalidation_contenders(), size=20_000, rounds=3 * rounds)
    yield from_times("invalidate a tag that covers …", times, first, target=1.05, ours=last)


def figures(rounds: int) -> Iterator[Figure]:
    yield from hits(rounds)
    yield from invalidations(rounds)


@pytest.mark.parametrize("when", [NOTHING, SOMETHING])
@pytest.mark.parametrize("name", [PLAIN, TAGGED])
def test_hit(benchmark: Any, name: str, when: str) -> None:
    pedantic(benchmark, hit_contenders(when)[name], size=20_000)


@pytest.mark.parametrize("name", COVERED)
def test_invalidate(benchmark: Any, name: str) -> None:
    pedantic(benchmark, invalidation_contenders()[name], size=20_000)
