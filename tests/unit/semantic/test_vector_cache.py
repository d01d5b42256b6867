"""Vectors of texts seen before, within a bound."""

from __future__ import annotations

import pytest

from llmcache_fast.semantic.vector_cache import OVERHEAD, VectorCache, digest_of

ONE = OVERHEAD + 8


def key(number: int) -> bytes:
    return digest_of(str(number))


def test_what_was_put_is_got_and_counted() -> None:
    cache = VectorCache(10 * ONE)
    assert cache.get(key(1)) is None
    cache.put(key(1), b"12345678")
    assert cache.get(key(1)) == b"12345678"
    found = cache.statistics()
    assert (found.hits, found.misses, found.entries, found.bytes) == (1, 1, 1, ONE)


def test_the_least_recently_used_goes_first() -> None:
    cache = VectorCache(3 * ONE)
    for number in range(3):
        cache.put(key(number), b"12345678")
    cache.get(key(0))
    cache.put(key(3), b"12345678")
    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert cache.statistics().evictions == 1


def test_the_bound_holds_whatever_is_put() -> None:
    cache = VectorCache(3 * ONE)
    for number in range(50):
        cache.put(key(number % 7), bytes(1 + number % 300))
        assert cache.statistics().bytes <= 3 * ONE
    cache.put(key(1), bytes(4 * ONE))
    assert (cache.statistics().entries, cache.statistics().bytes) == (0, 0)


def test_one_that_is_put_again_counts_once() -> None:
    cache = VectorCache(10 * ONE)
    cache.put(key(1), b"12345678")
    cache.put(key(1), b"1234")
    assert (cache.statistics().entries, cache.statistics().bytes) == (1, OVERHEAD + 4)


def test_without_room_nothing_is_kept() -> None:
    cache = VectorCache(0)
    cache.put(key(1), b"12345678")
    assert cache.get(key(1)) is None
    with pytest.raises(ValueError, match="max_bytes"):
        VectorCache(-1)


def test_what_was_erased_is_forgotten() -> None:
    cache = VectorCache(10 * ONE)
    cache.put(key(1), b"12345678")
    cache.put(key(2), b"12345678")
    cache.forget(key(1))
    cache.forget(key(3))
    assert (cache.get(key(1)), cache.get(key(2))) == (None, b"12345678")
    cache.clear()
    assert (cache.get(key(2)), cache.statistics().bytes) == (None, 0)


def test_any_text_has_a_digest_of_its_own() -> None:
    assert len({digest_of(text) for text in ("", "a", "A", "\ud800", "\udfff")}) == 5
