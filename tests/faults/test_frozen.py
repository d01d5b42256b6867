"""A tier that is frozen, not refused, in more than fourteen ways: no caller gets an error or waits longer
than the budget, and the tier is used again when it is well (I6). A double first, then servers behind a proxy.

`-s` prints the figures. The bounds asserted here are wide: the machine may be busy with other things.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from llmcache_fast._errors import TierError
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers import lane
from llmcache_fast.tiers.base import Asked, Changes, PutReport, StoredRecord, Tier
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.faults.endurance import CALLERS, CALLS, Endured, endure
from tests.faults.frames import is_of_a_statement, postgres_reply, resp_reply
from tests.faults.proxy import Proxy

SLACK = 2.0
"""Seconds that a call may take beyond its budget here."""

BUDGET = 0.05


ONLY = {"only reads hang": "get_many", "only writes hang": "put_many", "only markers hang": "changes"}


class Breaking(MemoryTier):
    """A tier whose calls fail in the way that `way` names, while it is set."""

    name = "breaking"
    read_budget = BUDGET

    def __init__(self) -> None:
        super().__init__()
        self.way = ""
        self.mended = anyio.Event()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await self.before("get_many")
        found = await super().get_many(keys)
        await self.after("get_many")
        return self.told(found)

    async def get_or_lease_many(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        await self.before("get_many")
        found = await super().get_or_lease_many(keys, token, seconds)
        await self.after("get_many")
        envelopes = self.told([envelope for envelope, _ in found])
        return [(envelope, held) for envelope, (_, held) in zip(envelopes, found, strict=False)]

    def told(self, found: list[bytes | None]) -> list[bytes | None]:
        """What the caller is told in place of what was found."""
        if self.way == "short":
            return found[:-1]
        if self.way == "garbage":
            return [b"garbage" for _ in found]
        if self.way == "swapped":
            others = [record.envelope for record in self.records.values()]
            return [others[number] for number, _ in enumerate(found)]
        return found

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        await self.before("put_many")
        report = await super().put_many(records)
        await self.after("put_many")
        return report

    async def lease_many(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        await self.before("lease_many")
        leased = await super().lease_many(keys, token, seconds)
        await self.after("lease_many")
        return leased

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        await self.before("changes")
        changes = await super().changes(asked)
        await self.after("changes")
        return changes

    async def before(self, operation: str) -> None:
        if self.way == "hangs":
            await self.mended.wait()
        elif self.way == "hangs and ignores cancellation":
            while not self.mended.is_set():
                with anyio.CancelScope(shield=True):
                    try:
                        await self.mended.wait()
                    except anyio.get_cancelled_exc_class():
                        continue
        elif self.way == "fails":
            raise self.error(operation, "io")
        elif self.way == "is busy":
            raise self.error(operation, "busy")
        elif self.way == "raises what no tier may":
            raise ZeroDivisionError
        elif self.way == "is slow":
            await anyio.sleep(3 * BUDGET)
        elif self.way == "is nearly too slow":
            await anyio.sleep(0.8 * BUDGET)
        elif self.way in ONLY and operation == ONLY[self.way]:
            await self.mended.wait()

    async def after(self, operation: str) -> None:
        if self.way == "does it and hangs":
            await self.mended.wait()
        elif self.way == "does it and fails":
            raise self.error(operation, "io")

    def error(self, operation: str, reason: str) -> TierError:
        return TierError("planned", tier=self.name, operation=operation, reason=reason)


OUTAGES = [
    "hangs",
    "hangs and ignores cancellation",
    "fails",
    "raises what no tier may",
    "is slow",
    "is nearly too slow",
    "only reads hang",
    "does it and hangs",
    "does it and fails",
]
OTHERS = ["is busy", "only writes hang", "only markers hang", "short", "garbage", "swapped"]


async def break_and_mend(tier: Breaking, way: str, guard: Tier | None = None) -> Endured:
    async def break_() -> None:
        tier.way = way

    async def mend() -> None:
        tier.way = ""
        tier.mended.set()

    return await endure(guard or tier, break_, mend)


def check(seen: Endured, budget: float) -> None:
    assert seen.errors == []
    assert seen.wrong == []
    assert len(seen.waits) == CALLERS * CALLS
    assert seen.p99 <= budget + SLACK


def check_outage(seen: Endured) -> None:
    """Beyond what it takes to find out, nobody's call gets as far as the tier."""
    assert seen.after is not None
    opened = seen.after.guard["read"].opened + seen.after.guard["markers"].opened
    assert opened >= 1
    # A full window and what was under way; then one probe at a time.
    assert seen.asked <= 60


@pytest.mark.parametrize("way", OUTAGES)
async def test_a_tier_in_an_outage_costs_a_budget_and_then_nothing(way: str) -> None:
    seen = await break_and_mend(Breaking(), way)
    report(way, seen)
    check(seen, BUDGET)
    check_outage(seen)


@pytest.mark.parametrize("way", OTHERS)
async def test_a_tier_in_any_other_trouble_fails_no_call(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast._markers.SYNC_EVERY", -1.0)
    seen = await break_and_mend(Breaking(), way)
    report(way, seen)
    check(seen, BUDGET)
    assert seen.after is not None
    if way in ("garbage", "swapped"):
        assert sum(seen.after.incidents.values()) > 0
    if way == "is busy":
        assert seen.after.guard["read"].opened == 0


async def test_without_a_budget_callers_would_wait() -> None:
    """The planted bug of the tests above."""
    tier = Breaking()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(BUDGET + SLACK):
            await break_and_mend(tier, "hangs", GuardedTier(tier, GuardOptions(read_budget=60.0)))


async def test_without_a_breaker_every_call_would_try_it() -> None:
    never = BreakerOptions(window=10**6, least=10**6)
    tier = Breaking()
    guard = GuardedTier(tier, GuardOptions(breaker=never))
    seen = await break_and_mend(tier, "fails", guard)
    with pytest.raises(AssertionError):
        check_outage(seen)


async def test_a_breaker_that_takes_busy_for_an_outage_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "NO_OUTAGE", frozenset())
    seen = await break_and_mend(Breaking(), "is busy")
    assert seen.after is not None
    assert seen.after.guard["read"].opened > 0


# -- real servers, behind the proxy -------------------------------------------------------------------------

Deed = Callable[[Any, Proxy], Awaitable[None]]


async def _freeze_server(server: Any, _: Proxy) -> None:
    server.freeze()


async def _freeze_requests(_: Any, proxy: Proxy) -> None:
    proxy.freeze("requests")


async def _freeze_replies(_: Any, proxy: Proxy) -> None:
    proxy.freeze("replies")


async def _half_replies(_: Any, proxy: Proxy) -> None:
    proxy.chances["half"] = 1.0


async def _cut_replies(_: Any, proxy: Proxy) -> None:
    proxy.chances["cut"] = 1.0


async def _drop_replies(_: Any, proxy: Proxy) -> None:
    proxy.chances["drop"] = 1.0


async def _drop_some(_: Any, proxy: Proxy) -> None:
    proxy.chances["drop"] = 0.2


async def _duplicate_some(_: Any, proxy: Proxy) -> None:
    proxy.chances["duplicate"] = 0.2


async def _swap_some(_: Any, proxy: Proxy) -> None:
    proxy.chances["swap_between"] = 0.2


async def _refuse(_: Any, proxy: Proxy) -> None:
    proxy.refuse()


async def _reset(_: Any, proxy: Proxy) -> None:
    proxy.cut(reset=True)
    proxy.refuse()


async def _black_hole(_: Any, proxy: Proxy) -> None:
    proxy.black_hole = 100


async def _silence(_: Any, proxy: Proxy) -> None:
    proxy.silent = True
    proxy.cut()


async def _slow(_: Any, proxy: Proxy) -> None:
    proxy.delay = lambda rng: 0.5 + rng.random()


async def _jitter(_: Any, proxy: Proxy) -> None:
    proxy.delay = lambda rng: rng.choice([0.0, 0.0, 0.0, 0.4])


async def _kill(server: Any, _: Proxy) -> None:
    server.stop()


WAYS: dict[str, Deed] = {
    "server stopped (SIGSTOP)": _freeze_server,
    "frozen before the request": _freeze_requests,
    "frozen after the request": _freeze_replies,
    "half a reply, then silence": _half_replies,
    "half a reply, then the end": _cut_replies,
    "replies dropped": _drop_replies,
    "some replies dropped": _drop_some,
    "some replies duplicated": _duplicate_some,
    "some replies swapped": _swap_some,
    "refused": _refuse,
    "reset": _reset,
    "black hole after 100 bytes": _black_hole,
    "accepted, never answered": _silence,
    "slow": _slow,
    "slow at times": _jitter,
    "killed": _kill,
}


async def endure_server(
    server: Any, port: int, framer: Any, tier_at: Callable[[int], Tier], way: str
) -> None:
    async with Proxy(port, framer, seed=7) as proxy:
        if framer is postgres_reply:
            proxy.replaceable = is_of_a_statement

        async def break_() -> None:
            await WAYS[way](server, proxy)

        async def mend() -> None:
            if way == "killed":
                server.restart()
            server.thaw()
            proxy.well()
            await proxy.accept()

        tier = tier_at(proxy.port)
        budget = GuardedTier(tier).read_budget
        # What a driver raises in callbacks of the event loop is told to the loop's handler, and to no caller.
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        try:
            seen = await endure(tier, break_, mend)
        finally:
            loop.set_exception_handler(None)
            server.thaw()
    report(f"{tier.name}: {way}", seen)
    check(seen, budget)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", list(WAYS))
async def test_redis_frozen(way: str, request: pytest.FixtureRequest) -> None:
    redis = pytest.importorskip("llmcache_fast.tiers.redis")
    server = request.getfixturevalue("start_redis")()

    def tier_at(port: int) -> Tier:
        tier: Tier = redis.RedisTier.from_url(f"redis://127.0.0.1:{port}/0")
        return tier

    await endure_server(server, server.port, resp_reply, tier_at, way)


@pytest.fixture(scope="module")
def own_postgres() -> Any:
    postgres = pytest.importorskip("tests.servers.postgres")
    with postgres.running_postgres() as server:
        yield server


# asyncpg's half-made connections raise when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", list(WAYS))
async def test_postgres_frozen(way: str, own_postgres: Any) -> None:
    postgres = pytest.importorskip("llmcache_fast.tiers.postgres")
    name = own_postgres.create_database()

    def tier_at(port: int) -> Tier:
        url = own_postgres.url(name).replace(f":{own_postgres.port}/", f":{port}/")
        tier: Tier = postgres.PostgresTier.from_url(url)
        return tier

    await endure_server(own_postgres, own_postgres.port, postgres_reply, tier_at, way)


def report(way: str, seen: Endured) -> None:
    """A line of figures for who reads them (`-s`)."""
    print(  # noqa: T201 - figures for a reader
        f"{way:42} p50 {sorted(seen.waits)[len(seen.waits) // 2] * 1e3:7.2f} ms"
        f"  p99 {seen.p99 * 1e3:7.1f} ms  max {max(seen.waits) * 1e3:7.1f} ms"
        f"  reads asked {seen.asked:3}  healed {seen.healed:5.2f} s"
    )
