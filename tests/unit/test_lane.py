"""Who may call, and how calls end: room, refusal, counts. With a tier behind it: `test_guarded`."""

from __future__ import annotations

import anyio
import pytest

from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.lane import Lane


def lane(concurrency: int = 1, max_waiting: int = 1) -> Lane:
    breaker = BreakerOptions(least=2, window=2)
    return Lane(
        "tier",
        breaker=breaker,
        concurrency=concurrency,
        max_waiting=max_waiting,
        max_abandoned=1,
        rng=lambda: 0.0,
    )


def now() -> float:
    return 1.0


async def test_one_at_a_time_and_the_next_when_a_place_is_left() -> None:
    one = lane()
    entered: list[float] = []

    async def enter() -> None:
        _, waited = await one.enter("get_many", 60.0, now)
        entered.append(waited)

    await enter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(TierError, match="too many") as caught:
            await enter()
        assert (caught.value.reason, caught.value.tier) == ("busy", "tier")
        assert len(entered) == 1
        one.leave()
    assert one.running == 1
    stats = one.statistics()
    assert (stats.calls, stats.busy, stats.running) == (2, 1, 1)


async def test_who_gets_no_place_within_the_budget_is_refused() -> None:
    one = lane()
    await one.enter("get_many", 60.0, now)
    with pytest.raises(TierError) as caught:
        await one.enter("get_many", 0.001, now)
    assert caught.value.reason == "busy"


async def test_bad_ends_open_it_and_refusals_are_counted() -> None:
    one = lane(concurrency=2)
    for outcome in (one.timed_out(), one.answered(late=True)):
        permit, _ = await one.enter("get_many", 60.0, now)
        one.leave()
        one.breaker.ended(permit, outcome, now())
    with pytest.raises(TierUnavailableError) as caught:
        await one.enter("get_many", 60.0, now)
    assert caught.value.reason == "open"
    stats = one.statistics()
    assert (stats.state, stats.timeouts, stats.slow, stats.rejected) == ("open", 1, 1, 1)


async def test_while_too_many_calls_are_abandoned_none_is_made() -> None:
    one, call = lane(), object()
    one.abandoned.add(call)
    with pytest.raises(TierUnavailableError) as caught:
        await one.enter("get_many", 60.0, now)
    assert caught.value.reason == "abandoned"
    one.came_late(call)
    await one.enter("get_many", 60.0, now)
    assert one.statistics().late == 1


@pytest.mark.parametrize(("reason", "outcome"), [("busy", "unknown"), ("corrupt", "unknown"), ("io", "bad")])
def test_which_failures_are_signs_of_an_outage(reason: str, outcome: str) -> None:
    assert lane().failed(TierError("x", tier="tier", reason=reason)) == outcome
