"""Fresh, stale, fallback, gone: properties over all times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmcache_fast._entry import NEVER
from llmcache_fast._freshness import MICROS, lifetime, state

NOW = st.integers(0, 2**60)
SECONDS = st.floats(0, 10**8)
CHANCE = st.floats(0, 1, exclude_max=True)
ORDER = ["fresh", "stale", "fallback", "gone"]


@given(NOW, SECONDS, SECONDS, st.floats(0, 0.5), CHANCE)
def test_jitter_only_takes_away_and_at_most_its_share(
    now: int, ttl: float, stale: float, jitter: float, chance: float
) -> None:
    life = lifetime(now, ttl, stale, jitter, chance)
    # Lengths, not times: a float does not tell times beyond 2**53 apart.
    assert ttl * (1 - jitter) * MICROS - 1 <= life.fresh_until - now <= ttl * MICROS + 1
    assert abs(life.stale_until - life.fresh_until - stale * MICROS) <= 1
    assert now <= life.fresh_until <= life.stale_until <= NEVER


@given(NOW, SECONDS, CHANCE)
def test_none_never_expires(now: int, stale: float, chance: float) -> None:
    assert lifetime(now, None, stale, 0.1, chance) == (NEVER, NEVER)
    assert state(NEVER - 1, NEVER, NEVER, stale) == "fresh"


@given(st.integers(2**62, NEVER), SECONDS, SECONDS)
def test_times_do_not_run_over(now: int, ttl: float, stale: float) -> None:
    life = lifetime(now, ttl, stale, 0, 0)
    assert life.fresh_until <= life.stale_until <= NEVER


@given(NOW, NOW, SECONDS, SECONDS, SECONDS)
def test_an_entry_only_grows_older(
    one: int, other: int, ttl: float, stale: float, while_revalidate: float
) -> None:
    life = lifetime(0, ttl, stale, 0, 0)
    earlier, later = sorted((one, other))
    states = [state(now, *life, while_revalidate) for now in (earlier, later)]
    assert ORDER.index(states[0]) <= ORDER.index(states[1])


def test_the_borders() -> None:
    life = lifetime(0, 10, 60, 0, 0)
    assert life == (10 * MICROS, 70 * MICROS)

    def at(seconds: float, while_revalidate: float = 20.0) -> str:
        return state(round(seconds * MICROS), *life, while_revalidate)

    assert [at(0), at(9.999999), at(10), at(29.999999)] == ["fresh", "fresh", "stale", "stale"]
    assert [at(30), at(69.999999), at(70)] == ["fallback", "fallback", "gone"]
    assert at(10, 0.0) == "fallback", "no revalidating window: only for errors"
    assert at(70, 1000.0) == "gone", "the stored end wins"
