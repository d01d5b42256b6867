"""The life of one tier in a cache: opened now or later, in an outage, closed in time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import ConfigurationError, LLMCache, TierError, TierUnavailableError
from llmcache_fast._floor import Floor
from llmcache_fast.actors.writers import Writers
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier, fail_first
from llmcache_fast.tiers.base import PutReport, StoredRecord
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.clocks import markers_of

REQUEST = {"q": 1}


async def answer() -> str:
    return "computed"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._floor.OPEN_AGAIN", 0.01)


async def available(cache: LLMCache) -> None:
    while not cache.stats().tiers[0].available:  # noqa: ASYNC110 - on a state, not for a time
        await anyio.sleep(0.002)


async def outage(cache: LLMCache) -> None:
    while cache.stats().tiers[0].guard["write"].state == "closed":  # noqa: ASYNC110 - on a state
        await anyio.sleep(0.002)


class Late(MemoryTier):
    """An authority that cannot be opened while `down`."""

    down = True

    async def open(self) -> None:
        if self.down:
            raise TierError("planned", tier=self.name, operation="open", reason="planned")
        await super().open()


@pytest.mark.usefixtures("soon")
async def test_an_option_found_wrong_late_costs_the_tier_and_not_the_cache(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    said = anyio.Event()

    class Wrong(Late):
        async def open(self) -> None:
            if not self.down:
                said.set()
                raise ConfigurationError("partitions: there are others")
            await super().open()

    tier = Wrong(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        tier.down = False
        await said.wait()
        await anyio.wait_all_tasks_blocked()
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
        assert not cache.stats().tiers[0].available
    assert "partitions" in caplog.text


@pytest.mark.usefixtures("soon")
async def test_a_tier_that_opens_late_joins(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    tier = Late(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        assert not cache.stats().tiers[0].available
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
        assert (await cache.invalidate(tags=["doc"])).deferred
        tier.down = False
        await available(cache)
        await cache.set({"q": 2}, "stored")
        await cache.flush()
        assert len(tier.records) == 1
        assert len(await markers_of(tier, cache._namespace_id("default"), 0)) == 1, "delivered"
    levels = [record.levelname for record in caplog.records if record.name == "llmcache_fast"]
    assert levels == ["WARNING"] * 2, "once that it is not there, once that it is"


@pytest.mark.usefixtures("soon")
async def test_what_is_there_already_is_found_when_it_joins(clock: ManualClock) -> None:
    tier = Late(clock=clock)
    tier.down = False
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        await cache.set(REQUEST, "stored")
    tier.down = True
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        assert await cache.get(REQUEST) is None
        tier.down = False
        await available(cache)
        assert await cache.get(REQUEST) == "stored"


async def test_an_option_that_cannot_work_ends_the_start(clock: ManualClock) -> None:
    error = ConfigurationError("no such schema")
    tier = FaultyTier(MemoryTier(clock=clock), fail_first(1, "open", error=error))
    with pytest.raises(ConfigurationError, match="no such schema"):
        async with LLMCache(tiers=[tier], clock=clock):
            pass


async def test_starting_waits_for_a_hanging_tier_no_longer_than_its_budget(clock: ManualClock) -> None:
    gate = anyio.Event()
    tier = FaultyTier(MemoryTier(clock=clock), lambda name, _: Fault(hold=gate) if name == "open" else None)
    async with LLMCache(tiers=[GuardedTier(tier, GuardOptions(open_budget=0.01))], clock=clock) as cache:
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
    gate.set()


async def test_closing_waits_for_a_hanging_tier_no_longer_than_its_budget(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = anyio.Event()

    class Hanging(MemoryTier):
        async def aclose(self) -> None:
            with anyio.CancelScope(shield=True):
                await gate.wait()

    tier = GuardedTier(Hanging(clock=clock), GuardOptions(close_budget=0.01))
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        assert await cache.set(REQUEST, "value")
    assert "close failed (timeout)" in caplog.text
    assert cache.close_report["memory-double"].written == 1
    gate.set()


async def test_tiers_are_closed_at_once(clock: ManualClock) -> None:
    """One that hangs does not keep another from writing what it has."""
    gate = anyio.Event()

    class Stuck(MemoryTier):
        name = "stuck"

        async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
            await gate.wait()
            return await super().put_many(records)

    class Well(MemoryTier):
        name = "well"

        async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
            report = await super().put_many(records)
            gate.set()
            return report

    async with LLMCache(tiers=[Stuck(clock=clock), Well(clock=clock)], clock=clock) as cache:
        assert await cache.set(REQUEST, "value")
    assert {name: report.written for name, report in cache.close_report.items()} == {"stuck": 1, "well": 1}


class Frozen(MemoryTier):
    """Answers nothing while `frozen`."""

    frozen = False

    async def _enter(self, operation: str) -> None:
        if self.frozen:
            await anyio.sleep_forever()
        await super()._enter(operation)


BRIEF = GuardOptions(
    read_budget=0.01,
    write_budget=0.01,
    batch_budget=0.01,
    linger=0.0,
    breaker=BreakerOptions(least=2, backoff=0.01, max_backoff=0.01),
)


async def test_closing_gives_up_a_tier_that_is_in_an_outage(
    clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test ends by its own time-out: there is an hour."""
    monkeypatch.setattr("llmcache_fast._cache.CLOSE_TIMEOUT", 3600.0)
    frozen, well = Frozen(clock=clock), MemoryTier(clock=clock)
    well.name = "well"
    options: dict[str, Any] = {"clock": clock, "journal": tmp_path}
    async with LLMCache(tiers=[GuardedTier(frozen, BRIEF), well], **options) as cache:
        assert await cache.set(REQUEST, "before")
        await cache.flush()
        frozen.frozen = True
        assert await cache.set(REQUEST, "the answer"), "the journal has it"
        await outage(cache)
    reports = cache.close_report
    assert (reports["memory-double"].remaining, reports["well"].remaining) == (1, 0)
    frozen.frozen = False
    async with LLMCache(tiers=[frozen, well], **options) as heir:
        await heir._lookup.writers.replayed()
    (record,) = frozen.records.values()
    assert b"the answer" in record.envelope


async def test_closing_waits_for_a_tier_that_comes_back(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast.actors.recovery.SPREAD", 0.0)
    tier = Frozen(clock=clock)
    guarded = GuardedTier(tier, dataclasses.replace(BRIEF, write_budget=5.0))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        await cache.set(REQUEST, "before")
        await cache.flush()
        tier.frozen = True
        await cache.set(REQUEST, "the answer")
        await outage(cache)
        tier.frozen = False
    assert cache.close_report["memory-double"].remaining == 0


def test_a_guard_is_not_guarded_again(clock: ManualClock) -> None:
    tier = GuardedTier(MemoryTier(clock=clock))
    assert Floor(tier, Writers(), clock).tier is tier
    assert isinstance(Floor(MemoryTier(clock=clock), Writers(), clock).tier, GuardedTier)


async def test_its_statistics_say_what_the_guard_did(clock: ManualClock) -> None:
    tier: Any = FaultyTier(MemoryTier(clock=clock), fail_first(10**6, "get_many"))
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        for number in range(9):
            await cache.get({"q": number})
        stats = cache.stats().tiers[0]
    assert not stats.available
    assert set(stats.guard) == {"read", "write", "markers"}
    assert stats.guard["read"].state in ("open", "half-open")
    assert stats.guard["read"].failures >= 4
    assert stats.guard["read"].opened == 1
    assert stats.reads < 9, "in an outage nobody's read gets as far as the tier"
    assert stats.guard["write"].state == "closed"


@pytest.mark.parametrize("strict", [False, True])
async def test_what_no_tier_can_take_is_not_durable(clock: ManualClock, strict: bool) -> None:
    async with LLMCache(tiers=[Late(clock=clock)], clock=clock, durability="sync", strict=strict) as cache:
        assert not await cache.set(REQUEST, "not to be stored", ttl=0)
        if strict:
            with pytest.raises(TierUnavailableError, match="not durable"):
                await cache.set(REQUEST, "value")
        else:
            assert not await cache.set(REQUEST, "value")
