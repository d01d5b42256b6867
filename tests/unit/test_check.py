"""`check`: silent about what is right, loud about each thing that must not be."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import ConfigurationError, LLMCache, Secrecy
from llmcache_fast._core import Engine
from llmcache_fast._entry import Entry, Facts, Seen
from llmcache_fast._wire import PLAIN, Wire
from llmcache_fast.cli.check import Report, examine
from llmcache_fast.cli.commands import run
from llmcache_fast.cli.output import Exit
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Message
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

KEYS = Secrecy(bytes(range(32)), blinding=bytes(range(1, 33)))
SPACE = Engine._namespace_id("default")


class Named(MemoryTier):
    def __init__(self, name: str, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.name = name


@asynccontextmanager
async def filled(
    secrecy: Secrecy | None = None, count: int = 20
) -> AsyncIterator[tuple[list[Named], LLMCache, Wire]]:
    """Two tiers with the same entries, and a cache on them that is open."""
    clock = ManualClock()
    tiers = [Named("upper", clock), Named("lower", clock)]
    wire = Wire(secrecy, compress=False)
    async with LLMCache(
        tiers=tiers, clock=clock, jitter=0.0, secrecy=secrecy, compress=False, sweep_rate=0
    ) as cache:
        for number in range(count):
            await cache.set(
                {"n": number}, number, tags=["odd" if number % 2 else "even"], label=f"a/{number}/b"
            )
        await cache.flush()
        yield tiers, cache, wire


async def report_of(
    tiers: list[Any], cache: LLMCache, wire: Wire, judge: Any = None, **options: Any
) -> Report:
    judge = judge or cache._erasures.would_serve
    return await examine(tiers, wire, judge, **({"sample": 0, "patience": 0} | options))


def invariants(report: Report) -> list[str]:
    return sorted({violation.invariant for violation in report.violations})


@pytest.mark.parametrize("secrecy", [None, KEYS], ids=["plain", "sealed"])
async def test_nothing_is_wrong_with_what_is_right(secrecy: Secrecy | None) -> None:
    async with filled(secrecy) as (tiers, cache, wire):
        await cache.invalidate(tags=["odd"])
        await cache.invalidate(pattern="a/?/b")
        await cache.set({"n": 1}, "anew", tags=["odd"])
        await cache.flush()
        report = await report_of(tiers, cache, wire)
        assert report.violations == []
        assert report.records == {"upper": 20, "lower": 20}
        # Ten with a tag, the one-digit even ones by the pattern; one was stored again.
        assert (report.invalid, report.copies, report.unreadable) == (2 * 14, 20, 0)
        assert report.heard_ms is not None
        assert (await report_of(tiers, cache, wire, sample=5)).records == {"upper": 5, "lower": 5}


async def test_a_reader_that_serves_what_is_invalid_is_found() -> None:
    async def serves_all(_seen: Seen) -> bool:
        return True

    async with filled() as (tiers, cache, wire):
        assert (await report_of(tiers, cache, wire, serves_all)).violations == []
        await cache.invalidate(tags=["odd"])
        report = await report_of(tiers, cache, wire, serves_all)
        assert invariants(report) == ["I1"]
        assert len(report.violations) == 20
        await cache.invalidate(pattern="a/4/*")
        assert len((await report_of(tiers, cache, wire, serves_all)).violations) == 22


async def test_an_invalidation_that_comes_meanwhile_is_no_violation() -> None:
    async with filled() as (tiers, cache, wire):
        late = False

        async def serves(_seen: Seen) -> bool:
            nonlocal late
            if not late:
                late = True
                await cache.invalidate(tags=["odd"])
            return True

        first = await report_of(tiers, cache, wire, serves)
        assert first.violations == []


def entry(number: int, **changes: Any) -> Entry:
    made = Entry(
        key=bytes([number]) * 32,
        namespace="default",
        content="text",
        payload="x",
        facts=Facts(compute_micros=7),
        created=1_000,
        fresh_until=2_000,
        stale_until=3_000,
        epoch=1,
        snap=1,
        cost=0,
    )
    return made._replace(**changes)


async def put(tier: MemoryTier, wire: Wire, one: Entry) -> None:
    await tier.put_many([wire.record(one)])


async def test_stamps_ahead_of_the_clock_and_copies_that_grow_younger_are_found() -> None:
    async with filled(count=1) as (tiers, cache, wire):
        epoch, seq = cache._stamp(SPACE)
        now = {"epoch": epoch, "snap": seq, "fresh_until": 2**62, "stale_until": 2**62}
        await put(tiers[1], wire, entry(1, **now | {"snap": seq + 10**9}))
        assert invariants(await report_of(tiers, cache, wire)) == ["I1"]
        await tiers[1].clear()
        for number, change in ((2, {"stale_until": 2**62 + 1}), (3, {"created": 1_001})):
            await put(tiers[0], wire, entry(number, **now | change))
            await put(tiers[1], wire, entry(number, **now))
        report = await report_of(tiers, cache, wire)
        assert invariants(report) == ["I7"]
        assert {violation.tier for violation in report.violations} == {"upper"}
        assert {violation.fingerprint[:2] for violation in report.violations} == {"02", "03"}


async def test_a_record_under_another_name_is_found() -> None:
    async with filled(count=2) as (tiers, cache, wire):
        (one, other) = tiers[0].records.values()
        tiers[0].records[one.key] = other._replace(key=one.key)
        assert "I9" in invariants(await report_of(tiers, cache, wire))


async def test_followers_that_do_not_hear_and_clocks_that_lag_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmcache_fast.cli.check.HEARD_WITHIN", 0.05)
    async with filled(count=1) as (tiers, cache, wire):

        async def deaf(_message: Message) -> None:
            return

        monkeypatch.setattr(tiers[0], "tell", deaf)
        report = await report_of(tiers, cache, wire)
        assert invariants(report) == ["I2"]
        assert report.heard_ms is None
        monkeypatch.undo()
        real = tiers[1].changes

        async def lagging(asked: Any) -> Any:
            return [each._replace(seq=each.seq - 10) for each in await real(asked)]

        monkeypatch.setattr(tiers[1], "changes", lagging)
        assert invariants(await report_of(tiers, cache, wire)) == ["I1", "I2"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("secrecy", [None, KEYS], ids=["plain", "sealed"])
async def test_nothing_is_wrong_with_real_servers_and_sweeping_leaves_nothing_invalid(
    tmp_path: Path, redis_server: RedisServer, redis_prefix: str, postgres_url: str, secrecy: Secrecy | None
) -> None:
    addresses = [
        f"disk://{tmp_path}/tier?budget=10",
        f"{redis_server.url}?prefix={redis_prefix}&budget=5",
        f"{postgres_url}?budget=5",
    ]
    wire = Wire(secrecy)
    async with LLMCache(tiers=addresses, secrecy=secrecy, sweep_rate=0) as cache:
        for number in range(1_200):
            await cache.set(
                {"n": number}, number, tags=["odd" if number % 2 else "even"], label=f"a/{number}"
            )
        await cache.flush()
        await cache.invalidate(tags=["odd"])
        await cache.invalidate(pattern="a/?")
        tiers: list[Any] = [floor.tier for floor in cache._lookup.floors]
        report = await report_of(tiers, cache, wire, patience=2)
        assert report.violations == []
        assert report.records == dict.fromkeys(("disk", "redis", "postgres"), 1_200)
        assert (report.invalid, report.copies) == (3 * 605, 1_200 * 3)
        sweeper = cache._erasures.sweeper(1e9)
        assert sweeper is not None
        await sweeper.sweep()
        assert (sweeper.statistics().walks, sweeper.statistics().deleted) == (3, 3 * 605)
        report = await report_of(tiers, cache, wire, patience=2)
        assert (report.violations, report.invalid) == ([], 0)
        assert report.records == dict.fromkeys(("disk", "redis", "postgres"), 595)


async def test_tiers_without_markers_cannot_be_checked() -> None:
    class Bare:
        name = "bare"

    with pytest.raises(ConfigurationError, match="keeps markers"):
        await examine([Bare()], PLAIN, lambda _seen: None, sample=1)  # type: ignore[arg-type,list-item,return-value]


@pytest.fixture
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LLMCACHE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("_no_configuration")
def test_the_command_looks_at_a_disk_tier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"disk://{tmp_path}/tier"

    async def fill() -> None:
        async with LLMCache(tiers=[address]) as cache:
            for number in range(10):
                await cache.set({"n": number}, number, tags=["odd" if number % 2 else "even"])
            await cache.flush()
            await cache.invalidate(tags=["odd"])

    anyio.run(fill)
    assert run(["check", address, "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert found["violations"] == []
    assert (found["records"], found["invalid"]) == ({"disk": 10}, 5)
    assert run(["check", address, "--sample", "3"]) == Exit.OK
    assert "no violation" in capsys.readouterr().out
    assert run(["check"]) == Exit.USAGE


@pytest.mark.usefixtures("_no_configuration")
def test_nothing_that_can_be_read_is_not_nothing_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, key = f"disk://{tmp_path}/tier", os.urandom(32).hex()

    async def fill() -> None:
        async with LLMCache(tiers=[address], secrecy=Secrecy({"k": key})) as cache:
            await cache.set({"n": 1}, "answer")

    anyio.run(fill)
    assert run(["check", address]) == Exit.UNREADABLE
    assert "so none was checked" in capsys.readouterr().out
    monkeypatch.setenv("LLMCACHE_KEYS", f"k={key}")
    assert run(["check", address]) == Exit.OK
    monkeypatch.undo()
    empty = f"disk://{tmp_path}/empty"

    async def make() -> None:
        async with LLMCache(tiers=[empty]):
            pass

    anyio.run(make)
    assert run(["check", empty]) == Exit.OK
    assert "there are no records" in capsys.readouterr().out
