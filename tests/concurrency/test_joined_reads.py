"""Reads that are taken in together: each caller gets what it would get alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast import LLMCache, Secrecy, TierUnavailableError
from llmcache_fast._wire import Wire
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions

KEYS = Secrecy(bytes(range(32)), blinding=bytes(range(1, 33)))


class Gated(MemoryTier):
    """Counts reads, holds them at `gate`, and fails them by `error`."""

    reads = 0
    gate: anyio.Event | None = None
    error: Exception | None = None

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.reads += 1
        found = await super().get_many(keys)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return found


def patient(tier: MemoryTier) -> GuardedTier:
    return GuardedTier(tier, GuardOptions(read_budget=60.0, write_budget=60.0))


def request(name: str) -> dict[str, str]:
    return {"q": name}


async def stored(inner: MemoryTier, clock: ManualClock, secrecy: Secrecy | None) -> dict[str, Any]:
    """Entries of all kinds in a tier, and what a reader is to get of each."""
    expected: dict[str, Any] = {}
    async with LLMCache(tiers=[inner], clock=clock, jitter=0.0, secrecy=secrecy) as writer:

        async def put(name: str, value: Any, gets: Any, **options: Any) -> None:
            await writer.set(request(name), value, **options)
            expected[name] = gets

        for number in range(20):
            await put(
                f"bytes {number}",
                bytes([number]) * 150 * number or b"0",
                bytes([number]) * 150 * number or b"0",
            )
            await put(
                f"tagged {number}", f"text {number}", f"text {number}", tags=[f"t{number}"], label="a/b"
            )
        await put("object", {"a": [1, 2]}, {"a": [1, 2]})
        await put("stale", "old", None, ttl=1, stale_while_revalidate=100)
        await put("gone", "old", None, ttl=1)
        await put("tag", "old", None, tags=["old"])
        await put("pattern", "old", None, label="x/1")
        await put("damaged", "whole", None)
        await put("swapped", "mine", None)
        await writer.flush()
        wire = Wire(secrecy)
        names = {name: wire.tier_key(writer.fingerprint(request(name))) for name in expected}
        await writer.invalidate(tags=["old"])
        await writer.invalidate(pattern="x/*")
    record = inner.records[names["damaged"]]
    spoilt = record.envelope[:-20] + bytes([record.envelope[-20] ^ 1]) + record.envelope[-19:]
    inner.records[names["damaged"]] = record._replace(envelope=spoilt)
    other = inner.records[names["object"]].envelope
    inner.records[names["swapped"]] = inner.records[names["swapped"]]._replace(envelope=other)
    clock.advance(2)
    expected["missing"] = None
    return expected


@pytest.mark.parametrize("secrecy", [None, KEYS], ids=["plain", "sealed"])
async def test_each_gets_what_it_would_get_alone(secrecy: Secrecy | None) -> None:
    clock = ManualClock()
    tier = Gated(clock=clock)
    expected = await stored(tier, clock, secrecy)
    got: dict[str, Any] = {}
    async with LLMCache(tiers=[patient(tier)], clock=clock, secrecy=secrecy) as cache:

        async def read(name: str) -> None:
            got[name] = await cache.get(request(name))

        async with anyio.create_task_group() as group:
            for name in expected:
                group.start_soon(read, name)
        assert got == expected
        assert tier.reads <= 3
        stats = cache.stats().tiers[0]
        fresh = sum(value is not None for value in expected.values())
        assert (stats.reads, stats.hits) == (len(expected), fresh + 1), "what is stale was found, too"
        incidents = Counter(stats.incidents)
        assert incidents.total() == 2
        assert incidents["wrong_fingerprint" if secrecy is None else "unauthentic"] >= 1
        nowait = {name: cache.get_nowait(request(name)) for name in expected}
        assert nowait == expected, "it is in memory now"


async def test_what_is_written_meanwhile_is_newer_than_what_was_read() -> None:
    tier = Gated()
    async with LLMCache(tiers=[tier]) as writer:
        await writer.set(request("a"), "old")
    tier.gate, tier.reads = anyio.Event(), 0
    got: list[Any] = []
    async with LLMCache(tiers=[patient(tier)]) as cache:

        async def read() -> None:
            got.append(await cache.get(request("a")))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            while not tier.reads:
                await checkpoint()
            await cache.set(request("a"), "new")
            tier.gate.set()
        assert got == ["new"]


async def test_a_tier_that_fails_is_a_miss_and_the_next_one_is_read() -> None:
    failing, lower = Gated(), MemoryTier()
    async with LLMCache(tiers=[lower]) as writer:
        await writer.set(request("a"), "there")
    failing.error = TierUnavailableError("planned", tier="t", operation="get_many", reason="planned")
    got: list[Any] = []
    async with LLMCache(tiers=[patient(failing), patient(lower)]) as cache:

        async def read(name: str) -> None:
            got.append(await cache.get(request(name), "absent"))

        async with anyio.create_task_group() as group:
            for name in "aab":
                group.start_soon(read, name)
        assert sorted(got) == ["absent", "there", "there"]
        assert cache.stats().tiers[0].errors == 3


async def test_a_cancelled_reader_disturbs_no_other() -> None:
    tier = Gated()
    async with LLMCache(tiers=[tier]) as writer:
        for name in "abc":
            await writer.set(request(name), name)
    tier.gate, tier.reads = anyio.Event(), 0
    got: list[Any] = []
    async with LLMCache(tiers=[patient(tier)]) as cache:

        async def read(name: str) -> None:
            got.append(await cache.get(request(name)))

        async with anyio.create_task_group() as readers, anyio.create_task_group() as cancelled:
            for name in "abc":
                readers.start_soon(read, name)
                cancelled.start_soon(read, name)
            while not tier.reads:
                await checkpoint()
            cancelled.cancel_scope.cancel()
            tier.gate.set()
        assert sorted(got) == ["a", "b", "c"]


async def test_a_value_of_another_type_is_a_miss() -> None:
    inner = MemoryTier()
    async with LLMCache(tiers=[inner]) as writer:
        await writer.set(request("a"), "no number")
    async with LLMCache(tiers=[inner]) as cache:
        assert await cache.get(request("a"), 7, type=int) == 7
        assert await cache.get(request("a"), type=str) == "no number"
