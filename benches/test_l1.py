"""The in-process tier alone: hits and inserts by 32-byte key, beside `dict` and the in-process caches.

Every contender holds the same 100,000 value objects of 2 KB and is asked for the same keys in the same loop.
Ours runs with its lifetimes, statistics and eviction policy on; so do the peers as far as they have them.
"""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cachebox
import cachetools
import lru
import moka_py
import pytest
import theine

from benches.figure import OURS, Figure, from_times
from benches.ours import l1_engine
from benches.peers import litellm_cache
from benches.rounds import Contender, interleave, pedantic
from benches.workloads import keys, zipf_indices

ENTRIES = 100_000
VALUE = 2048
TTL = 3600.0


class Store(NamedTuple):
    """One in-process cache: how to make it, and its two verbs as a program would call them."""

    make: Callable[[int], Any]
    get: Callable[[Any], Callable[[bytes], Any]]
    put: Callable[[Any], Callable[[bytes, bytes], Any]]
    put_all: Callable[[Any], Callable[[list[tuple[bytes, bytes]]], None]] | None = None
    """A loop over entries without a Python function in between, where `put` is one."""


def _litellm(size: int) -> Any:
    return type(litellm_cache().cache)(max_size_in_memory=size, default_ttl=int(TTL))


def _vttl_put(cache: Any) -> Callable[[bytes, bytes], Any]:
    insert = cache.insert
    return lambda key, value: insert(key, value, ttl=TTL)


def _vttl_put_all(cache: Any) -> Callable[[list[tuple[bytes, bytes]]], None]:
    def run(batch: list[tuple[bytes, bytes]]) -> None:
        insert, ttl = cache.insert, TTL
        for key, value in batch:
            insert(key, value, ttl=ttl)

    return run


def _theine_put(cache: Any) -> Callable[[bytes, bytes], Any]:
    put, ttl = cache.set, dt.timedelta(seconds=TTL)
    return lambda key, value: put(key, value, ttl)


def _theine_put_all(cache: Any) -> Callable[[list[tuple[bytes, bytes]]], None]:
    def run(batch: list[tuple[bytes, bytes]]) -> None:
        put, ttl = cache.set, dt.timedelta(seconds=TTL)
        for key, value in batch:
            put(key, value, ttl)

    return run


STORES: dict[str, Store] = {
    "cachebox LRU": Store(cachebox.LRUCache, lambda c: c.__getitem__, lambda c: c.__setitem__),
    "cachebox VTTL": Store(cachebox.VTTLCache, lambda c: c.__getitem__, _vttl_put, _vttl_put_all),
    "lru-dict": Store(lru.LRU, lambda c: c.__getitem__, lambda c: c.__setitem__),
    "moka-py": Store(lambda size: moka_py.Moka(size, ttl=TTL), lambda c: c.get, lambda c: c.set),
    "theine": Store(theine.Cache, lambda c: c.get, _theine_put, _theine_put_all),
    "cachetools TTL": Store(
        lambda size: cachetools.TTLCache(size, TTL), lambda c: c.__getitem__, lambda c: c.__setitem__
    ),
    "litellm": Store(_litellm, lambda c: c.get_cache, lambda c: c.set_cache),
    OURS: Store(
        lambda size: l1_engine(size * (VALUE + 256)),
        lambda c: c.get,
        lambda c: c.put,
        lambda c: c.put_all,
    ),
}


def values(count: int) -> list[bytes]:
    """Value objects of their own, so that each hit touches another place in memory."""
    return [number.to_bytes(4) * (VALUE // 4) for number in range(count)]


def _get_each(get: Callable[[bytes], Any]) -> Callable[[list[bytes]], None]:
    def run(batch: list[bytes]) -> None:
        for key in batch:
            get(key)

    return run


def hit_contenders(*, identical: bool) -> dict[str, Contender]:
    """All stores, full; asked for keys that are equal (or `identical`) to those they were filled with."""
    own_keys, own_values = keys(ENTRIES), values(ENTRIES)
    draws = zipf_indices(ENTRIES, 400_000)
    position = 0

    def prepare(size: int) -> list[bytes]:
        nonlocal position
        if position + size > len(draws):
            position = 0
        picked = draws[position : position + size]
        position += size
        if identical:
            return [own_keys[index] for index in picked]
        # A key just computed: its own object, its hash not yet known.
        return [bytes(memoryview(own_keys[index])) for index in picked]

    plain = dict(zip(own_keys, own_values, strict=True))

    def run_dict(batch: list[bytes]) -> None:
        for key in batch:
            plain[key]

    contenders = {"dict": Contender(prepare, run_dict)}
    for name, store in STORES.items():
        cache = store.make(ENTRIES)
        put = store.put(cache)
        for key, value in zip(own_keys, own_values, strict=True):
            put(key, value)
        contenders[name] = Contender(prepare, _get_each(store.get(cache)))
    return contenders


SLOW = {"litellm": 5_000, "theine": 20_000, "cachetools TTL": 20_000}


def hits(rounds: int) -> Iterator[Figure]:
    for identical in (False, True):
        times = interleave(hit_contenders(identical=identical), size=50_000, rounds=rounds, sizes=SLOW)
        yield from_times(
            f"L1 hit: 100k entries of 2 KB, zipf, {'identical' if identical else 'equal'} keys",
            times,
            "dict",
            target=None if identical else 1.0,
        )


def insert_contenders() -> dict[str, Contender]:
    """All stores, full; given keys they do not hold, so that every insert evicts.

    Key objects are new and made before the timing, as are the values; a key's hash is not yet known. Every
    store is called from a loop of its own, with nothing in between that it does not need.
    """
    filled, shared = keys(ENTRIES), values(1000)
    seed = 100

    def prepare(size: int) -> list[tuple[bytes, bytes]]:
        nonlocal seed
        seed += 1
        return [(key, shared[number % 1000]) for number, key in enumerate(keys(size, seed))]

    bounded = {key: shared[number % 1000] for number, key in enumerate(filled)}
    grown = dict(bounded)
    # A dict that is bounded in the cheapest way: it is told which key is the oldest.
    oldest = collections.deque(filled)

    def run_bounded(batch: list[tuple[bytes, bytes]]) -> None:
        pop, push = oldest.popleft, oldest.append
        for key, value in batch:
            bounded[key] = value
            push(key)
            del bounded[pop()]

    added: list[tuple[bytes, bytes]] = []

    def prepare_growing(size: int) -> list[tuple[bytes, bytes]]:
        # Back to its first entries, one by one: a copy just made would lie in the processor's caches, which
        # no other contender's entries do.
        for key, _ in added:
            del grown[key]
        added[:] = prepare(size)
        return list(added)

    def run_growing(batch: list[tuple[bytes, bytes]]) -> None:
        for key, value in batch:
            grown[key] = value  # noqa: PERF403

    contenders = {
        "dict": Contender(prepare_growing, run_growing),
        "dict + deque, oldest out": Contender(prepare, run_bounded),
    }
    for name, store in STORES.items():
        cache = store.make(ENTRIES)
        put = store.put(cache)
        put_all = store.put_all(cache) if store.put_all else _put_each(put)
        for number, key in enumerate(filled):
            put(key, shared[number % 1000])
        contenders[name] = Contender(prepare, put_all)
    return contenders


def _put_each(put: Callable[[bytes, bytes], Any]) -> Callable[[list[tuple[bytes, bytes]]], None]:
    def run(batch: list[tuple[bytes, bytes]]) -> None:
        for key, value in batch:
            put(key, value)

    return run


def inserts(rounds: int) -> Iterator[Figure]:
    times = interleave(insert_contenders(), size=20_000, rounds=rounds, sizes={"litellm": 2_000})
    yield from_times(
        "L1 insert while evicting: 100k entries of 2 KB",
        times,
        "dict",
        target=2.0,
        notes=[
            "dict grows without bound here; 'dict + deque' is the least that bounds it, evicting the oldest",
            "ours reads the clock, checks invalidation and weighs costs; times and stamp are given to it",
            "in bytes ours is bounded, the peers in entries",
        ],
    )


def figures(rounds: int) -> Iterator[Figure]:
    yield from hits(rounds)
    yield from inserts(rounds)


@pytest.fixture(scope="module")
def hit_entrants() -> dict[str, Contender]:
    return hit_contenders(identical=False)


@pytest.fixture(scope="module")
def insert_entrants() -> dict[str, Contender]:
    return insert_contenders()


@pytest.mark.parametrize("name", ["dict", *STORES])
def test_hit(benchmark: Any, hit_entrants: dict[str, Contender], name: str) -> None:
    pedantic(benchmark, hit_entrants[name], size=SLOW.get(name, 20_000))


@pytest.mark.parametrize("name", ["dict", "dict + deque, oldest out", *STORES])
def test_insert(benchmark: Any, insert_entrants: dict[str, Contender], name: str) -> None:
    pedantic(benchmark, insert_entrants[name], size=2_000)
