"""The way below memory: a tier's failure is nobody's, promotion keeps the age, identity fails closed."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from llmcache_fast import LLMCache, _core
from llmcache_fast._core import View
from llmcache_fast._entry import Entry, Facet, unpack_facts
from llmcache_fast._wire import Wire
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier, fail_first
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

REQUEST = {"q": 1}


def facts_of(view: View) -> tuple[Any, ...]:
    names = ("created", "fresh_until", "stale_until", "epoch", "snap", "cost", "facts")
    return tuple(getattr(view, name) for name in names)


async def answer() -> str:
    return "computed"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# -- I6: a tier failure never fails a call ------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["open", "get_many", "put_many", "delete_many"])
async def test_a_failing_tier_is_gone_without(clock: ManualClock, operation: str) -> None:
    tier = FaultyTier(MemoryTier(clock=clock), fail_first(10**6, operation))
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
        assert await cache.get({"q": 2}) is None
        assert await cache.set({"q": 3}, "set")
        assert await cache.get_many([{"q": 3}, {"q": 4}]) == ["set", None]
        assert await cache.expire({"q": 3})
        assert await cache.delete(REQUEST)
        assert await cache.get(REQUEST) is None
        stats = cache.stats().tiers[0]
    assert stats.available == (operation not in ("open", "get_many"))
    if operation != "put_many":
        assert stats.errors > 0


async def test_a_failure_and_an_outage_are_logged_once_and_without_any_text(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tier = FaultyTier(MemoryTier(clock=clock), fail_first(10**6, "get_many"))
    with caplog.at_level(logging.INFO, "llmcache_fast"):
        async with LLMCache(tiers=[tier], clock=clock) as cache:
            for number in range(9):
                await cache.get({"prompt": "a secret", "n": number})
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "read failed (planned)" in caplog.text
    assert "outage (read)" in caplog.text
    assert "secret" not in caplog.text


async def test_a_tier_that_hangs_costs_its_budget_and_no_more(clock: ManualClock) -> None:
    gate = anyio.Event()
    tier = FaultyTier(
        MemoryTier(clock=clock), lambda name, _: Fault(hold=gate) if name == "get_many" else None
    )
    guarded = GuardedTier(tier, GuardOptions(read_budget=0.02))
    async with LLMCache(tiers=[guarded], clock=clock) as cache:
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
        assert cache.stats().tiers[0].errors == 1
        gate.set()


# -- promotion ----------------------------------------------------------------------------------------------


async def test_promotion_keeps_stamp_times_and_facts(clock: ManualClock) -> None:
    fast, slow = MemoryTier(clock=clock), MemoryTier(clock=clock)
    async with LLMCache(tiers=[fast, slow], clock=clock, ttl=100, jitter=0.0) as cache:
        await cache.set(REQUEST, "value", tags=["t"], cost=5)
        await cache.flush()
        before = dict(slow.records)
        key = cache.fingerprint(REQUEST)
        view = cache._peek(key)
        assert view is not None
        facts = facts_of(view)
        cache._clear()
        await fast.clear()
        clock.advance(60)
        result = await cache.resolve(REQUEST, answer)
        assert (result.value, result.status, result.age) == ("value", "hit", 60.0)
        again = cache._peek(key)
        assert again is not None
        assert facts_of(again) == facts
        await cache.flush()
        assert fast.records == before, "the upper tier has the same record"
        clock.advance(40)
        assert await cache.get(REQUEST) is None, "it does not live longer for having been promoted"


async def test_the_first_tier_that_has_it_answers(clock: ManualClock) -> None:
    fast, slow = FaultyTier(MemoryTier(clock=clock)), FaultyTier(MemoryTier(clock=clock))
    async with LLMCache(tiers=[fast, slow], clock=clock) as cache:
        await cache.set(REQUEST, "value")
        await cache.flush()
        cache._clear()
        assert (await cache.resolve(REQUEST, answer)).tier == "faulty"
    assert (fast.calls["get_many"], slow.calls["get_many"]) == (1, 0)


async def test_what_is_buffered_is_found_before_it_is_written(clock: ManualClock) -> None:
    gate = anyio.Event()
    tier = FaultyTier(
        MemoryTier(clock=clock), lambda name, _: Fault(hold=gate) if name == "put_many" else None
    )
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        await cache.set(REQUEST, "buffered")
        cache._clear()
        assert await cache.get(REQUEST) == "buffered"
        assert tier.calls["get_many"] == 0
        gate.set()


async def test_a_stale_entry_of_a_lower_tier_is_given_while_it_is_renewed(clock: ManualClock) -> None:
    async with LLMCache(
        tiers=[MemoryTier(clock=clock)], clock=clock, ttl=10, jitter=0.0, stale_while_revalidate=50
    ) as cache:
        await cache.set(REQUEST, "old")
        await cache.flush()
        cache._clear()
        clock.advance(20)
        assert (await cache.resolve(REQUEST, answer)).status == "stale"
        while cache.stats().flights["running"]:
            await anyio.lowlevel.checkpoint()
        assert await cache.get(REQUEST) == "computed"


async def test_no_stale_entry_is_given_past_its_window_while_it_is_renewed(clock: ManualClock) -> None:
    gate = anyio.Event()

    async def slow() -> str:
        await gate.wait()
        return "late"

    async with LLMCache(
        tiers=[MemoryTier(clock=clock)], clock=clock, ttl=10, jitter=0.0, stale_while_revalidate=50
    ) as cache:
        await cache.set(REQUEST, "old")
        await cache.flush()
        cache._clear()
        clock.advance(20)
        assert (await cache.resolve(REQUEST, slow)).status == "stale"
        clock.advance(60)
        result = await cache.resolve(REQUEST, answer)
        assert (result.value, result.status) == ("computed", "miss")
        gate.set()
        while cache.stats().flights["running"]:
            await anyio.lowlevel.checkpoint()
        assert await cache.get(REQUEST) == "computed"


async def test_a_read_under_way_does_not_undo_expire(clock: ManualClock) -> None:
    async with LLMCache(tiers=[MemoryTier(clock=clock)], clock=clock, stale_if_error=100) as cache:
        await cache.set(REQUEST, "value")
        await cache.flush()
        cache._clear()

        async def read() -> None:
            await cache.get(REQUEST)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(cache.expire, REQUEST)
        assert await cache.get(REQUEST) is None


# -- I9: identity fails closed ------------------------------------------------------------------------------


async def test_swapped_records_are_misses_and_counted(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        one, other = cache.fingerprint({"q": 1}), cache.fingerprint({"q": 2})
        await cache.set({"q": 1}, "one's answer")
        await cache.set({"q": 2}, "other's answer")
        await cache.flush()
        cache._clear()
        # A desynchronised connection: each gets the other's reply.
        tier.records[one], tier.records[other] = tier.records[other], tier.records[one]
        assert await cache.get({"q": 1}) is None
        assert await cache.get_or_compute({"q": 2}, answer) == "computed"
        assert sum(cache.stats().tiers[0].incidents.values()) == 3  # one each time it was read


async def test_another_namespaces_record_is_a_miss(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        await cache.set(REQUEST, "theirs", namespace="other")
        await cache.flush()
        cache._clear()
        theirs, mine = cache.fingerprint(REQUEST, namespace="other"), cache.fingerprint(REQUEST)
        tier.records[mine] = tier.records[theirs]
        assert await cache.get(REQUEST) is None
        assert await cache.get(theirs) is None, "a fingerprint alone opens no other namespace"
        assert sum(cache.stats().tiers[0].incidents.values()) == 2
        assert await cache.get(REQUEST, namespace="other") == "theirs"


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 500])
async def test_damaged_records_are_misses_and_counted(clock: ManualClock, damage: bytes) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        key = cache.fingerprint(REQUEST)
        tier.records[key] = StoredRecord(key, damage, 1, 1, 2**62, 0)
        assert await cache.get_or_compute(REQUEST, answer) == "computed"
        # Read, and read again when the right to compute was there.
        assert sum(cache.stats().tiers[0].incidents.values()) == 2


# -- I1: no resurrection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{"tags": ["doc"]}, {"label": "a/"}, {"namespace": "default"}], ids=str)
async def test_an_invalidated_entry_does_not_come_back_from_the_disk(
    tmp_path: Path, named: dict[str, Any]
) -> None:
    """Though its record is still there: the marker outlives the process."""
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as cache:
        await cache.set(REQUEST, "old", tags=["doc"], label="a/b")
        await cache.flush()
        await cache.invalidate(**named)
        cache._clear()
        assert await cache.get(REQUEST) is None
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as again:
        assert await again.get(REQUEST) is None
        assert again.stats().tiers[0].reads == 1
        assert await again.get_or_compute(REQUEST, answer, tags=["doc"], label="a/b") == "computed"
    async with LLMCache(tiers=[f"disk://{tmp_path}"]) as third:
        assert await third.get(REQUEST) == "computed", "what was computed after it is kept"


async def test_delete_takes_it_out_of_every_tier(clock: ManualClock) -> None:
    tiers = [MemoryTier(clock=clock), MemoryTier(clock=clock)]
    async with LLMCache(tiers=tiers, clock=clock) as cache:
        await cache.set(REQUEST, "value")
        await cache.flush()
        assert await cache.delete(REQUEST)
        assert [len(tier.records) for tier in tiers] == [0, 0]


# -- addresses ----------------------------------------------------------------------------------------------


async def test_a_busy_event_loop_is_not_taken_for_a_slow_tier(tmp_path: Path) -> None:
    async with LLMCache(tiers=[DiskTier(tmp_path)]) as cache:
        await cache.set(REQUEST, "stored")

    async def busy() -> None:
        time.sleep(0.4)  # noqa: ASYNC251 - longer than the budget of a read

    async with LLMCache(tiers=[DiskTier(tmp_path)]) as cache:
        cache._lookup.markers.doubt()
        results: list[str] = []

        async def look() -> None:
            results.append(await cache.get_or_compute(REQUEST, answer))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            for _ in range(2):
                tasks.start_soon(busy)
        stats = cache.stats()
    assert results == ["stored"]
    assert stats.tiers[0].errors == 0


# -- the usual end of a read is one call: it must do as the others do ----------------------------------------


@pytest.mark.parametrize("value", [b"bytes", "text", "t\u00e9xt", {"json": 1}, 7])
@pytest.mark.parametrize("facts", [{}, {"tags": ["a", "b"], "label": "x/y"}, {"depends_on": ["v"]}])
async def test_a_get_promotes_as_a_flight_does(clock: ManualClock, value: Any, facts: dict[str, Any]) -> None:
    tier = MemoryTier(clock=clock)
    views = []
    async with LLMCache(tiers=[tier], clock=clock) as writer:
        await writer.set(REQUEST, value, **facts)
        await writer.flush()
    for by_get in (True, False):
        async with LLMCache(tiers=[tier], clock=clock) as cache:
            key = cache.fingerprint(REQUEST)
            if by_get:
                assert await cache.get(REQUEST) == value
            else:
                assert await cache._lookup.read(key, "default") is not None
            view = cache._view(key)
            assert view is not None
            views.append(facts_of(view))
            assert await cache.get(REQUEST) == value
            assert cache.stats().tiers[0].hits == 1
    assert views[0] == views[1]
    async with LLMCache(tiers=[tier], clock=clock) as cache:
        assert await cache.get(REQUEST) == value
        await cache.invalidate(tags=["b"])
        assert await cache.get(REQUEST) == (None if "tags" in facts else value)


async def test_a_get_takes_nothing_stale_invalid_or_made_up(clock: ManualClock) -> None:
    tier = MemoryTier(clock=clock)
    async with LLMCache(tiers=[tier], clock=clock, ttl=10, jitter=0, stale_while_revalidate=100) as cache:
        key = cache.fingerprint(REQUEST)
        await cache.set(REQUEST, "value", tags=["a"])
        await cache.flush()
        (record,) = tier.records.values()

        async def got(**changes: Any) -> Any:
            cache._clear()
            fields: dict[str, Any] = {
                "kind": 0,
                "content_type": 1,
                "epoch": record.epoch,
                "snap": record.snap,
                "created": record.created,
                "fresh_until": record.fresh_until,
                "stale_until": record.stale_until,
                "compute_micros": 0,
                "cost": 0,
                "fingerprint": key,
                "namespace": "default",
                "facts": b"",
                "payload": b"made up",
            }
            envelope = _core.encode_envelope(**(fields | changes))
            tier.records[record.key] = record._replace(envelope=envelope)
            return await cache.get(REQUEST)

        assert await got() == "made up"
        for changes in (
            {"kind": 1},
            {"content_type": 1, "payload": b"\xff"},
            {"content_type": 2, "payload": b"{"},
            {"facts": b"\xc1"},
            {"facts": b"\x91\x91\x01"},
            {"namespace": "other"},
            {"fingerprint": bytes(32)},
            {"epoch": record.epoch + 1},
        ):
            assert await got(**changes) is None, changes
        incidents = cache.stats().tiers[0].incidents
        assert incidents == {
            "kind": 1,
            "payload": 2,
            "facts": 2,
            "wrong_namespace": 1,
            "wrong_fingerprint": 1,
        }
        clock.advance(20)
        assert await got() is None, "it is stale"
        assert cache._view(key) is not None, "and kept for who takes that"
        await cache.invalidate(tags=["a"])
        tier.records[record.key] = record
        cache._clear()
        assert await cache.get(REQUEST) is None


# -- facets ------------------------------------------------------------------------------------------------

FACET = Facet(bytes(range(32)), bytes(range(16)), "the question", bytes(range(200)))


async def with_facet(cache: LLMCache) -> Entry:
    """Write an entry that has a facet, as one that was computed."""
    await cache.set(REQUEST, "value", tags=["a"])
    entry = cache._lookup.peek(cache.fingerprint(REQUEST), "default")
    assert entry is not None
    entry = entry._replace(facts=msgspec.structs.replace(entry.facts, semantic=FACET))
    cache._lookup.put(entry)
    await cache.flush()
    return entry


def in_memory(cache: LLMCache) -> Facet | None:
    view = cache._peek(cache.fingerprint(REQUEST))
    assert view is not None
    return unpack_facts(view.facts).semantic


def in_tier(tier: MemoryTier) -> Facet | None:
    (record,) = tier.records.values()
    entry, _ = Wire().entry(record.envelope, "default", record.key)
    assert entry is not None
    return entry.facts.semantic


async def test_memory_keeps_a_facet_without_its_vector_and_tiers_keep_all_of_it(clock: ManualClock) -> None:
    fast, slow = MemoryTier(clock=clock), MemoryTier(clock=clock)
    fast.name = "fast"
    bare = msgspec.structs.replace(FACET, vector=b"")
    async with LLMCache(tiers=[fast, slow], clock=clock, ttl=100, stale_while_revalidate=100) as cache:
        entry = await with_facet(cache)
        assert in_memory(cache) == bare
        assert in_tier(fast) == in_tier(slow) == FACET
        assert (await slow.members(FACET.partition))[0] == [entry.key]
        # The quick way and the other.
        for by_get in (True, False):
            cache._clear()
            if by_get:
                assert await cache.get(REQUEST) == "value"
            else:
                found = await cache._lookup.read(entry.key, "default")
                assert found is not None
                assert found[0].facts.semantic == FACET
            assert in_memory(cache) == bare
        # Neither a promotion from tier to tier nor an expiry writes what memory has.
        cache._clear()
        await fast.clear()
        assert await cache.get(REQUEST) == "value"
        await cache.flush()
        assert in_tier(fast) == FACET
        assert await fast.members(FACET.partition) != ([], None)
        assert await cache.expire(REQUEST)
        await cache.flush()
        assert in_tier(fast) == in_tier(slow) == FACET
        await cache.invalidate(tags=["a"])
        assert await cache.get(REQUEST) is None
        assert (await cache.erase(tags=["a"])).finished
        assert (await fast.members(FACET.partition))[0] == (await slow.members(FACET.partition))[0] == []
