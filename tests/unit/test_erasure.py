"""Erasing: everything that is named is gone from everywhere, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmcache_fast import ConfigurationError, LLMCache
from llmcache_fast._secrecy import Secrecy
from llmcache_fast.testing import Fault, FaultyTier, ManualClock, MemoryTier
from llmcache_fast.tiers.base import PutReport

pytestmark = pytest.mark.anyio

CANARY = "canary-" + "Qz" * 12
KEYS = Secrecy(bytes(range(32)), blinding=bytes(range(1, 33)))


class Named(MemoryTier):
    """A tier in memory with a name, that can refuse to be written to."""

    def __init__(self, name: str = "upper") -> None:
        super().__init__()
        self.name = name
        self.down = False

    async def put_many(self, records: Any) -> PutReport:
        if self.down:
            raise OSError("down")
        return await super().put_many(records)


def holding(folder: Path, text: str = CANARY) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@asynccontextmanager
async def opened(tiers: list[Any], **options: Any) -> AsyncIterator[LLMCache]:
    async with LLMCache(tiers=tiers, clock=ManualClock(), jitter=0.0, compress=False, **options) as cache:
        yield cache


async def fill(cache: LLMCache, count: int = 20) -> None:
    """Half of the entries of subject 42, with the canary."""
    for number in range(count):
        mine = number % 2 == 0
        await cache.set(
            {"n": number},
            f"{CANARY} {number}" if mine else f"other {number}",
            tags=["user:42" if mine else "user:7"],
            label=f"mail/{'42' if mine else '7'}/{number}",
        )
    await cache.flush()


async def left(cache: LLMCache, count: int = 20) -> list[int]:
    found = await cache.get_many([{"n": number} for number in range(count)])
    return [number for number, value in enumerate(found) if value is not None]


ODD = list(range(1, 20, 2))


@pytest.mark.parametrize("secrecy", [None, KEYS], ids=["plain", "sealed"])
async def test_a_subject_is_gone_from_every_tier_and_others_are_not(secrecy: Secrecy | None) -> None:
    upper, lower = Named("upper"), Named("lower")
    async with opened([upper, lower], secrecy=secrecy) as cache:
        await fill(cache)
        done = await cache.erase(tags=["user:42"])
        assert done.finished
        assert (done.memory, done.tiers) == (10, {"upper": 10, "lower": 10})
        assert (done.buffered, done.journal, done.dead_letters, done.unreadable) == (0, 0, 0, 0)
        assert len(upper.records) == len(lower.records) == 10
        assert not any(CANARY.encode() in record.envelope for record in upper.records.values())
        assert cache.stats().memory.entries == 10
        assert await left(cache) == ODD
        again = await cache.erase(tags=["user:42"])
        assert (again.memory, again.tiers) == (0, {"upper": 0, "lower": 0})
        assert again.seq > done.seq


@pytest.mark.parametrize(
    "named",
    [{"label": "mail/42/"}, {"label": "mail/42/*"}, {"pattern": "mail/4?/*"}, {"tags": ["user:42", "none"]}],
    ids=str,
)
async def test_what_can_be_invalidated_can_be_erased(named: dict[str, Any]) -> None:
    tier = Named()
    async with opened([tier]) as cache:
        await fill(cache)
        assert (await cache.erase(**named)).tiers == {"upper": 10}
        assert await left(cache) == ODD


async def test_one_request_and_a_whole_namespace_can_be_erased() -> None:
    tier = Named()
    async with opened([tier]) as cache:
        await fill(cache)
        await cache.set({"n": 0}, "kept", namespace="other")
        await cache.flush()
        assert (await cache.erase({"n": 3})).tiers == {"upper": 1}
        assert (await cache.erase(namespace="default")).tiers == {"upper": 19}
        assert await left(cache) == []
        assert await cache.get({"n": 0}, namespace="other") == "kept"


async def test_what_was_computed_since_is_kept() -> None:
    tier = Named()
    async with opened([tier]) as cache:
        await fill(cache)
        await cache.invalidate(tags=["user:42"])
        await cache.set({"n": 0}, "new", tags=["user:42"])
        await cache.flush()
        assert len(tier.records) == 20
        # It is named by the tag, too: an erasure invalidates it first.
        assert (await cache.erase(tags=["user:42"])).tiers == {"upper": 10}


async def test_buffer_journal_and_dead_letters_hold_nothing_of_it(tmp_path: Path) -> None:
    tier = Named()
    async with opened([tier], journal=tmp_path) as cache:
        tier.down = True
        for number in range(20):
            await cache.set({"n": number}, f"{CANARY} {number}", tags=["user:42"])
        await cache.set({"n": 20}, "kept-one", tags=["user:7"])
        assert holding(tmp_path)
        done = await cache.erase(tags=["user:42"])
        assert done.finished
        assert done.buffered == 20
        assert not holding(tmp_path)
        assert holding(tmp_path, "kept-one")
        tier.down = False
        await cache.flush()
    async with opened([tier], journal=tmp_path) as cache:
        await cache.flush()
        assert len(tier.records) == 1


async def test_a_tier_that_fails_leaves_it_unfinished_and_unreadable_and_the_next_time_ends_it() -> None:
    inner = Named()
    fails = True

    def plan(operation: str, _number: int) -> Fault | None:
        return Fault(OSError("broken")) if fails and operation == "discard_many" else None

    class Scannable(FaultyTier):
        name = "upper"

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def discard_many(self, stamped: Any) -> int:
            return await self._through("discard_many", inner.discard_many, stamped)

    async with opened([Scannable(inner, plan)]) as cache:
        await fill(cache)
        done = await cache.erase(tags=["user:42"])
        assert not done.finished
        assert set(done.unfinished) == {"upper"}
        assert await left(cache) == ODD
        fails = False
        assert (await cache.erase(tags=["user:42"])).tiers == {"upper": 10}


async def test_what_nobody_here_can_read_is_left_and_counted() -> None:
    tier = Named()
    async with opened([tier], secrecy=KEYS) as cache:
        await fill(cache)
    async with opened([tier], secrecy=Secrecy(bytes(range(2, 34)))) as cache:
        await fill(cache, 2)
        done = await cache.erase(tags=["user:42"])
        assert done.unreadable == 20
        assert done.tiers == {"upper": 1}
        assert len(tier.records) == 21


async def test_a_computation_that_is_running_is_not_stored() -> None:
    tier = Named()
    async with opened([tier]) as cache, anyio.create_task_group() as group:
        started, go = anyio.Event(), anyio.Event()

        async def compute() -> str:
            started.set()
            await go.wait()
            return CANARY

        async def call() -> None:
            assert await cache.get_or_compute({"n": 1}, compute, tags=["user:42"]) == CANARY

        group.start_soon(call)
        await started.wait()
        await cache.erase(tags=["user:42"])
        go.set()
        while cache.stats().flights["running"]:
            await anyio.lowlevel.checkpoint()
        await cache.flush()
        assert not tier.records
        assert await cache.get({"n": 1}) is None


async def test_a_dry_run_counts_and_changes_nothing(tmp_path: Path) -> None:
    upper, lower = Named("upper"), Named("lower")
    async with opened([upper, lower], journal=tmp_path) as cache:
        await fill(cache)
        lower.down = True
        await cache.set({"n": 100}, CANARY, tags=["user:42"])
        before = await cache.invalidate(tags=["user:9"])
        cases: list[tuple[dict[str, Any], int, int]] = [
            ({"tags": ["user:42"]}, 11, 10),
            ({"pattern": "mail/42/*"}, 10, 10),
            ({"label": "mail/7/3"}, 1, 1),
            ({"namespace": "default"}, 21, 20),
        ]
        for named, in_memory, below in cases:
            done = await cache.invalidate(**named, dry_run=True)
            assert done.seq == before.seq
            assert done.covered is not None
            assert (done.covered.memory, done.covered.tiers["lower"]) == (in_memory, below)
        assert len(await left(cache)) == 20
        done = await cache.invalidate({"n": 0}, dry_run=True)
        assert done.covered is not None
        assert (done.covered.memory, done.covered.tiers) == (1, {"upper": 1, "lower": 1})


async def test_a_dry_run_leaves_out_what_is_invalid_already() -> None:
    tier = Named()
    async with opened([tier]) as cache:
        await fill(cache)
        await cache.invalidate(tags=["user:42"])
        done = await cache.invalidate(namespace="default", dry_run=True)
        assert done.covered is not None
        assert (done.covered.memory, done.covered.tiers, done.covered.unfinished) == (10, {"upper": 10}, {})


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"tags": []},
        {"tags": ["x" * 257]},
        {"tags": [7]},
        {"tags": "user:42"},
        {"label": ""},
        {"pattern": "*/**"},
        {"namespace": ""},
        {"namespace": 7},
        {"key": b"short"},
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["erase", "invalidate"])
async def test_bad_input_changes_nothing(verb: str, named: dict[str, Any]) -> None:
    tier = Named()
    async with opened([tier]) as cache:
        await fill(cache)
        with pytest.raises(ConfigurationError):
            await getattr(cache, verb)(**named)
        assert len(await left(cache)) == len(tier.records) == 20


async def test_a_cache_without_tiers_erases_its_memory() -> None:
    async with opened([]) as cache:
        await fill(cache)
        done = await cache.erase(tags=["user:42"])
        assert (done.finished, done.memory, done.tiers) == (True, 10, {})
        assert cache.stats().memory.entries == 10
