"""When a tier comes back: markers, then the buffer, then writing at a limited rate, then reading."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.actors import recovery
from llmcache_fast.actors.recovery import Recovery
from llmcache_fast.actors.write_behind import WriteBehind
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import Asked, Changes, PutReport, StoredRecord
from llmcache_fast.tiers.breaker import BreakerOptions
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.clocks import clock_of

OPTIONS = GuardOptions(breaker=BreakerOptions(least=2, window=2, backoff=0.01, max_backoff=0.02, probes=2))


def record(number: int) -> StoredRecord:
    return StoredRecord(bytes([number]) * 32, b"%d" % number, 1, 1, NEVER, 0)


class Logged(MemoryTier):
    """Says in `log` what is asked of it, and fails the operations in `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.broken: set[str] = set()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.note("read")
        return await super().get_many(keys)

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        self.note("put")
        return await super().put_many(records)

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        self.note("write")
        return await super().delete_many(keys, stamp)

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        self.note("markers")
        return await super().changes(asked)

    def note(self, what: str) -> None:
        self.log.append(what)
        if what in self.broken:
            raise TierError("planned", tier=self.name, operation=what, reason="planned")


class Outage:
    """A tier with everything around it, and how to break it."""

    def __init__(self) -> None:
        self.inner = Logged()
        self.tier: Any = GuardedTier(self.inner, OPTIONS, rng=lambda: 0.0)
        self.writer = WriteBehind(self.tier)
        self.invalid: set[bytes] = set()
        self.recovery = Recovery(
            self.tier, self.writer, catch_up=self.catch_up, is_valid=self.is_valid, rng=lambda: 0.0
        )

    async def catch_up(self) -> bool:
        try:
            await clock_of(self.tier, 1)
        except TierError:
            return False
        return True

    def is_valid(self, record: StoredRecord) -> bool:
        if "check" not in self.inner.log[-1:]:
            self.inner.log.append("check")
        return record.key not in self.invalid

    async def break_(self, *operations: str, call: Callable[[], Any]) -> None:
        self.inner.broken = set(operations)
        for _ in range(2):
            with pytest.raises(TierError):
                await call()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def outage_of() -> AsyncIterator[Outage]:
    outage = Outage()
    await outage.tier.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outage.recovery.run)
        await tasks.start(outage.writer.run)
        await anyio.wait_all_tasks_blocked()
        yield outage
        tasks.cancel_scope.cancel()


async def settle(outage: Outage) -> None:
    while not outage.recovery.trusted or outage.tier.disturbed():  # noqa: ASYNC110 - on a state, not for a time
        await anyio.sleep(0.002)


async def test_it_comes_back_in_the_order_of_the_semantics() -> None:
    async with outage_of() as outage:
        await outage.break_("read", "markers", "put", "write", call=lambda: outage.tier.get_many([bytes(32)]))
        assert not outage.recovery.trusted
        outage.writer.put_nowait(record(1))
        outage.writer.put_nowait(record(2))
        outage.invalid.add(record(2).key)
        await anyio.wait_all_tasks_blocked()
        assert "put" not in outage.inner.log, "nothing is written in an outage, not even tried"
        outage.inner.log.clear()
        outage.inner.broken.clear()
        await settle(outage)
        log = [what for what in outage.inner.log if what != "write"]
        assert log[-5:] == ["markers", "check", "put", "read", "read"]
        assert list(outage.inner.records) == [record(1).key], "what was invalidated meanwhile is not written"
        assert outage.writer.statistics().dropped == 1


async def test_while_the_markers_are_not_known_nothing_is_read() -> None:
    async with outage_of() as outage:
        await outage.break_("read", "markers", call=lambda: outage.tier.get_many([bytes(32)]))
        outage.inner.broken = {"markers"}
        outage.inner.log.clear()
        while outage.inner.log.count("markers") < 3:  # noqa: ASYNC110
            await anyio.sleep(0.002)
        assert set(outage.inner.log) == {"markers"}
        assert not outage.recovery.trusted
        outage.inner.broken = set()
        await settle(outage)


async def test_a_tier_that_only_cannot_be_written_to_is_read() -> None:
    """A server that has become read-only."""
    async with outage_of() as outage:
        await outage.break_("write", "put", call=lambda: outage.tier.delete_many([bytes(32)]))
        assert outage.recovery.trusted
        outage.writer.put_nowait(record(1))
        assert await outage.tier.get_many([bytes(32)]) == [None]
        outage.inner.log.clear()
        while outage.inner.log.count("write") < 2:  # noqa: ASYNC110
            await anyio.sleep(0.002)
        assert outage.recovery.trusted
        assert "put" not in outage.inner.log
        outage.inner.broken = set()
        await settle(outage)
        await outage.writer.flush()
        assert list(outage.inner.records) == [record(1).key]


async def test_readers_come_back_though_writers_cannot() -> None:
    async with outage_of() as outage:
        await outage.break_("read", "write", "put", call=lambda: outage.tier.get_many([bytes(32)]))
        for _ in range(2):
            with pytest.raises(TierError):
                await outage.tier.delete_many([bytes(32)])
        outage.inner.broken = {"write", "put"}
        while not outage.recovery.trusted:  # noqa: ASYNC110
            await anyio.sleep(0.002)
        assert outage.tier.disturbed() == ["write"]


async def test_a_long_buffer_is_written_at_a_limited_rate_beside_the_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "DRAIN", 0.01)
    monkeypatch.setattr(recovery, "RATE", 1e-3)
    async with outage_of() as outage:
        outage.writer._batch_items = outage.writer._batch_limit = 1
        await outage.break_("write", "put", call=lambda: outage.tier.delete_many([bytes(32)]))
        for number in range(3):
            outage.writer.put_nowait(record(number))
        outage.inner.broken = set()
        await settle(outage)
        await anyio.wait_all_tasks_blocked()
        assert outage.writer.statistics().items == 2, "one batch, and the next one in a quarter of an hour"
        assert (await outage.writer.aclose(0.01)).remaining == 2


async def test_closing_in_an_outage_tries_what_is_buffered_once_more() -> None:
    outage = Outage()
    await outage.tier.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outage.recovery.run)
        await anyio.wait_all_tasks_blocked()
        await outage.break_("read", "markers", call=lambda: outage.tier.get_many([bytes(32)]))
        outage.writer.put_nowait(record(1))
        tasks.cancel_scope.cancel()
    assert (await outage.writer.aclose(10.0)).written == 1


async def test_what_was_not_caught_up_with_is_tried_again() -> None:
    """The breakers are closed by then: some caller was their probe."""
    async with outage_of() as outage:
        await outage.break_("read", call=lambda: outage.tier.get_many([bytes(32)]))
        outage.inner.broken = set()
        refusals = 3

        async def catch_up() -> bool:
            nonlocal refusals
            refusals -= 1
            return refusals < 0

        outage.recovery._catch_up = catch_up
        outage.writer.put_nowait(record(1))
        while outage.tier.disturbed():
            with contextlib.suppress(TierError):
                await outage.tier.get_many([bytes(32)])
            await anyio.sleep(0.002)
        await settle(outage)
        await outage.writer.flush()
        assert list(outage.inner.records) == [record(1).key]


class TrustsAtOnce(Recovery):
    """The bug that the first test is there for: readers are let in without knowing the markers."""

    async def _probe_all(self) -> bool:
        if await self._probe("read", lambda: self._tier.get_many([bytes(32)])):
            self._distrusted = False
        return not self._distrusted


async def test_the_order_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Recovery", TrustsAtOnce)
    with pytest.raises(ExceptionGroup):
        await test_it_comes_back_in_the_order_of_the_semantics()
