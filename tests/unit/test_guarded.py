"""A guarded tier costs its callers a budget at most, whatever the tier does; breakers, room, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast.testing import Fault, FaultyTier, MemoryTier, fail_first
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

KEY = bytes(32)
RECORD = StoredRecord(KEY, b"x", 1, 1, NEVER, 0)
BREAKER = BreakerOptions(least=3, backoff=1.0, max_backoff=8.0, probes=2)
QUICK = GuardOptions(read_budget=0.02, write_budget=0.02, batch_budget=0.02, linger=0.0, breaker=BREAKER)
PATIENT = GuardOptions(read_budget=60.0, write_budget=60.0, batch_budget=60.0, breaker=BREAKER)


class Seconds:
    """The breakers' clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def guarded(
    inner: Any, options: GuardOptions = PATIENT, seconds: Callable[[], float] | None = None
) -> GuardedTier:
    tier = GuardedTier(inner, options, now=seconds or Seconds(), rng=lambda: 0.0)
    await tier.open()
    return tier


def failing(count: int, operation: str = "get_many", *, reason: str = "planned") -> FaultyTier:
    error = TierError("planned", tier="faulty", operation=operation, reason=reason)
    return FaultyTier(MemoryTier(), fail_first(count, operation, error=error))


def holding(gate: anyio.Event, operation: str = "get_many", count: int = 10**9) -> FaultyTier:
    return FaultyTier(
        MemoryTier(), lambda name, number: Fault(hold=gate) if name == operation and number < count else None
    )


class Stubborn(MemoryTier):
    """Its reads end when `gate` is set, and by no cancellation."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.cancelled = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await self.stand()
        return await super().get_many(keys)

    async def stand(self) -> None:
        while not self.gate.is_set():
            with anyio.CancelScope(shield=True):
                try:
                    await self.gate.wait()
                except anyio.get_cancelled_exc_class():
                    self.cancelled += 1


# -- budgets ------------------------------------------------------------------------------------------------


async def test_a_call_that_ignores_cancellation_holds_up_nobody() -> None:
    inner = Stubborn()
    tier = await guarded(inner, QUICK)
    with pytest.raises(TierUnavailableError) as caught:
        await tier.get_many([KEY])
    assert (caught.value.reason, caught.value.operation) == ("timeout", "get_many")
    stats = tier.statistics()["read"]
    assert (stats.timeouts, stats.abandoned, stats.running, stats.late) == (1, 1, 0, 0)
    inner.gate.set()
    while tier.statistics()["read"].abandoned:
        await anyio.lowlevel.checkpoint()
    assert tier.statistics()["read"].late == 1
    assert tier.breaker("read").state == "closed", "what came late is dropped, whatever it is"


async def test_an_abandoned_call_may_go_on_for_a_while_and_is_then_cancelled() -> None:
    ended = anyio.Event()

    class Endless(MemoryTier):
        async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()
            return []

    tier = await guarded(Endless(), QUICK)
    with pytest.raises(TierUnavailableError):
        await tier.get_many([KEY])
    await ended.wait()
    while tier.statistics()["read"].abandoned:
        await anyio.lowlevel.checkpoint()


async def test_no_more_than_so_many_calls_are_left_behind() -> None:
    inner = Stubborn()
    options = GuardOptions(read_budget=0.01, max_abandoned=2, breaker=BreakerOptions(least=20))
    tier = await guarded(inner, options)
    for _ in range(2):
        with pytest.raises(TierUnavailableError, match="no answer"):
            await tier.get_many([KEY])
    with pytest.raises(TierUnavailableError) as caught:
        await tier.get_many([KEY])
    assert caught.value.reason == "abandoned"
    assert tier.statistics()["read"].calls == 2
    assert tier.statistics()["read"].rejected == 1
    inner.gate.set()


async def test_a_caller_that_goes_away_costs_the_tier_nothing() -> None:
    gate = anyio.Event()
    tier = await guarded(holding(gate))
    for _ in range(5):
        with anyio.move_on_after(0):
            await tier.get_many([KEY])
    await anyio.wait_all_tasks_blocked()
    gate.set()
    while tier.statistics()["read"].abandoned:
        await anyio.lowlevel.checkpoint()
    stats = tier.statistics()["read"]
    assert (stats.failures, stats.timeouts, stats.state) == (0, 0, "closed")


async def test_a_good_answer_passes() -> None:
    tier = await guarded(MemoryTier())
    assert await tier.put_many([RECORD]) == (1, 0, 0)
    assert await tier.get_many([KEY]) == [b"x"]
    assert await tier.delete_many([KEY], (1, 2)) == 1
    stats = tier.statistics()
    assert [stats[name].calls for name in ("read", "write", "markers")] == [1, 2, 0]


# -- breakers -----------------------------------------------------------------------------------------------


async def test_after_some_failures_nothing_is_tried_and_then_one_call_at_a_time() -> None:
    seconds = Seconds()
    inner = failing(3)
    tier = await guarded(inner, PATIENT, seconds)
    for _ in range(3):
        with pytest.raises(TierError, match="planned"):
            await tier.get_many([KEY])
    for _ in range(5):
        with pytest.raises(TierUnavailableError) as caught:
            await tier.get_many([KEY])
        assert caught.value.reason == "open"
    assert inner.calls["get_many"] == 3
    assert tier.disturbed() == ["read"]
    assert await tier.put_many([RECORD]) == (1, 0, 0), "the other direction goes on"
    seconds.now += 1.0
    gate = anyio.Event()
    inner.plan = lambda name, _: Fault(hold=gate) if name == "get_many" else None
    answers: list[Any] = []

    async def probe() -> None:
        answers.append(await tier.get_many([KEY]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        await anyio.wait_all_tasks_blocked()
        assert tier.breaker("read").state == "half-open"
        with pytest.raises(TierUnavailableError):
            await tier.get_many([KEY])
        gate.set()
    assert tier.breaker("read").state == "half-open", "one good probe is not enough"
    await probe()
    assert tier.disturbed() == []
    assert answers == [[b"x"], [b"x"]]
    assert tier.statistics()["read"].opened == 1
    assert tier.statistics()["read"].rejected == 6


async def test_a_probe_that_fails_opens_it_again_for_longer() -> None:
    seconds = Seconds()
    tier = await guarded(failing(4), PATIENT, seconds)
    for _ in range(3):
        with pytest.raises(TierError):
            await tier.get_many([KEY])
    seconds.now += 1.0
    with pytest.raises(TierError, match="planned"):
        await tier.get_many([KEY])
    assert tier.breaker("read").retry_at == seconds.now + 2.0


async def test_a_probe_whose_caller_goes_away_leaves_its_place() -> None:
    seconds, gate = Seconds(), anyio.Event()
    inner = failing(3)
    tier = await guarded(inner, PATIENT, seconds)
    for _ in range(3):
        with pytest.raises(TierError):
            await tier.get_many([KEY])
    seconds.now += 1.0
    inner.plan = lambda name, number: Fault(hold=gate) if number == 3 else None
    with anyio.move_on_after(0):
        await tier.get_many([KEY])
    assert await tier.get_many([KEY]) == [None]
    gate.set()


async def test_slow_answers_open_it_too() -> None:
    """Each answer comes in time, but late: half of the budget is over."""

    class Slow(MemoryTier):
        async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            await anyio.sleep(0.05)
            return await super().get_many(keys)

    options = GuardOptions(read_budget=60.0, slow=0.0005, breaker=BREAKER)
    tier = await guarded(Slow(), options)
    for _ in range(3):
        assert await tier.get_many([KEY]) == [None]
    assert tier.statistics()["read"].slow == 3
    assert tier.breaker("read").state == "open"


@pytest.mark.parametrize("reason", ["busy", "corrupt", "refused"])
async def test_a_busy_pool_or_a_bad_record_is_no_outage(reason: str) -> None:
    tier = await guarded(failing(50, reason=reason))
    for _ in range(50):
        with pytest.raises(TierError) as caught:
            await tier.get_many([KEY])
        assert caught.value.reason == reason
    assert tier.disturbed() == []
    assert tier.statistics()["read"].busy == (50 if reason == "busy" else 0)


async def test_whatever_a_tier_raises_is_a_failure_of_the_tier(caplog: pytest.LogCaptureFixture) -> None:
    inner = FaultyTier(MemoryTier(), fail_first(1, "get_many", error=KeyError("a secret")))
    tier = await guarded(inner)
    with pytest.raises(TierError) as caught:
        await tier.get_many([KEY])
    assert (caught.value.reason, caught.value.tier) == ("bug", "faulty")
    assert tier.statistics()["read"].failures == 1
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_driver_that_cancels_itself_cancels_nobody_else() -> None:
    class Cancelling(MemoryTier):
        async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            raise anyio.get_cancelled_exc_class()

    tier = await guarded(Cancelling())
    with pytest.raises(TierError) as caught:
        await tier.get_many([KEY])
    assert caught.value.reason == "cancelled"


# -- room ---------------------------------------------------------------------------------------------------


async def test_calls_beyond_the_limit_wait_within_their_budget_and_count_against_nothing() -> None:
    gate = anyio.Event()
    inner = holding(gate)
    options = GuardOptions(read_budget=60.0, concurrency=2, max_waiting=1, breaker=BREAKER)
    tier = await guarded(inner, options)
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await tier.get_many([KEY]))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert inner.calls["get_many"] == 2
        for _ in range(10):
            with pytest.raises(TierError) as caught:
                await tier.get_many([KEY])
            assert caught.value.reason == "busy"
        gate.set()
    assert answers == [[None]] * 3
    assert tier.disturbed() == []
    assert tier.statistics()["read"].busy == 10


async def test_an_abandoned_call_takes_no_room() -> None:
    inner = Stubborn()
    tier = await guarded(inner, GuardOptions(read_budget=0.01, concurrency=1, breaker=BREAKER))
    with pytest.raises(TierUnavailableError, match="no answer"):
        await tier.get_many([KEY])
    inner.gate.set()
    assert await tier.get_many([KEY]) == [None]


# -- what it looks like -------------------------------------------------------------------------------------


def test_it_has_the_methods_its_tier_has() -> None:
    full, plain = GuardedTier(MemoryTier()), GuardedTier(FaultyTier(MemoryTier()))
    optional = ["raise_markers", "changes"]
    optional += ["get_or_lease_many", "lease_many", "renew_leases", "release_leases", "lease_released"]
    assert [name for name in optional if not hasattr(full, name)] == []
    assert [name for name in optional if hasattr(plain, name)] == []
    assert full.name == "memory-double"


async def test_leases_pass_through() -> None:
    tier: Any = await guarded(MemoryTier())
    assert await tier.get_or_lease_many([KEY], b"me", 10.0) == [(None, True)]
    assert await tier.lease_many([KEY], b"other", 10.0) == [False]
    assert await tier.renew_leases([KEY], b"me", 10.0) == [True]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tier.lease_released, KEY)
        await anyio.wait_all_tasks_blocked()
        await tier.release_leases([KEY], b"me")
    with anyio.move_on_after(0) as scope:
        await tier.lease_released(KEY)
    assert scope.cancelled_caught


async def test_budgets_are_the_tiers_own_unless_given() -> None:
    inner: Any = MemoryTier()
    assert (GuardedTier(inner).read_budget, GuardedTier(inner).write_budget) == (0.25, 1.0)
    inner.read_budget, inner.write_budget = 0.05, 0.1
    assert (GuardedTier(inner).read_budget, GuardedTier(inner).write_budget) == (0.05, 0.1)
    assert GuardedTier(inner, GuardOptions(read_budget=3.0)).read_budget == 3.0


def test_options_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"read_budget": -1.0},
        {"batch_budget": 0.0},
        {"slow": 1.0},
        {"linger": -1.0},
        {"concurrency": 0},
        {"max_abandoned": 0},
        {"max_waiting": -1},
    ):
        with pytest.raises(ValueError, match=r"must be|share"):
            GuardOptions(**wrong)


# -- opening and closing ------------------------------------------------------------------------------------


async def test_opening_that_takes_long_goes_on_and_is_joined() -> None:
    gate = anyio.Event()
    inner = holding(gate, "open")
    tier = GuardedTier(inner, GuardOptions(open_budget=0.01))
    for _ in range(2):
        with pytest.raises(TierUnavailableError) as caught:
            await tier.open()
        assert caught.value.reason == "timeout"
    gate.set()
    await tier.open()
    assert inner.calls["open"] == 1
    assert await tier.get_many([KEY]) == [None]


async def test_an_option_that_cannot_work_is_told_on_opening() -> None:
    error = ConfigurationError("no such option")
    tier = GuardedTier(FaultyTier(MemoryTier(), fail_first(1, "open", error=error)))
    with pytest.raises(ConfigurationError):
        await tier.open()
    await tier.open()


async def test_closing_ends_in_time_whatever_the_tier_does() -> None:
    class Hanging(Stubborn):
        async def aclose(self) -> None:
            await self.stand()

    inner = Hanging()
    tier = await guarded(inner, GuardOptions(read_budget=0.01, close_budget=0.01, linger=60.0))
    with pytest.raises(TierUnavailableError, match="no answer"):
        await tier.get_many([KEY])
    with pytest.raises(TierUnavailableError, match="did not close"):
        await tier.aclose()
    inner.gate.set()
    while tier.statistics()["read"].abandoned:
        await anyio.lowlevel.checkpoint()


async def test_closing_cancels_what_was_left_behind() -> None:
    tier = await guarded(holding(anyio.Event()), GuardOptions(read_budget=0.01, linger=60.0))
    with pytest.raises(TierUnavailableError):
        await tier.get_many([KEY])
    assert tier.statistics()["read"].abandoned == 1
    await tier.aclose()
    while tier.statistics()["read"].abandoned:
        await anyio.lowlevel.checkpoint()


async def test_an_outage_is_announced() -> None:
    tier = await guarded(failing(3))
    told: list[list[str]] = []

    async def watch() -> None:
        await tier.outage()
        told.append(list(tier.disturbed()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            with pytest.raises(TierError):
                await tier.get_many([KEY])
    await watch()
    assert told == [["read"], ["read"]]


async def test_members_are_read_within_the_budget_of_a_batch_and_an_outage_is_one_of_reads() -> None:
    gate = anyio.Event()
    tier: Any = await guarded(holding(gate, "members"), QUICK)
    for _ in range(BREAKER.least):
        with pytest.raises(TierUnavailableError) as caught:
            await tier.members(KEY)
        assert caught.value.reason == "timeout"
    assert tier.breaker("read").state == "open"
    with pytest.raises(TierUnavailableError) as caught:
        await tier.members(KEY)
    assert caught.value.reason == "open"
    gate.set()
    await tier.aclose()
    tier = await guarded(MemoryTier())
    assert await tier.members(KEY) == ([], None)
    await tier.aclose()


async def test_a_tier_without_partitions_has_none_behind_a_guard() -> None:
    class Plain:
        name = "plain"

    assert not hasattr(GuardedTier(Plain()), "members")  # type: ignore[arg-type]
