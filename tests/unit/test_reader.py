"""The read actor: batches what has arrived, loses no waiter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError, TierUnavailableError
from llmcache_fast.actors.reader import ReadActor, Untaken
from llmcache_fast.testing import Fault, FaultyTier, MemoryTier
from llmcache_fast.tiers.base import StoredRecord

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


async def filled(count: int) -> FaultyTier:
    inner = MemoryTier()
    await inner.open()
    await inner.put_many([StoredRecord(key(n), b"%d" % n, 1, 1, NEVER, 0) for n in range(count)])
    return FaultyTier(inner)


async def test_concurrent_reads_share_round_trips() -> None:
    tier = await filled(100)
    actor = ReadActor(tier)
    got: dict[int, bytes | None] = {}

    async def read(number: int) -> None:
        got[number] = await actor.get(key(number))

    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as readers:
            for number in range(120):
                readers.start_soon(read, number)
        group.cancel_scope.cancel()
    assert got == {n: b"%d" % n if n < 100 else None for n in range(120)}
    statistics = actor.statistics()
    assert (statistics.reads, statistics.keys, statistics.waiting) == (120, 120, 0)
    assert tier.calls["get_many"] == statistics.batches <= 3


async def test_batches_are_bounded_and_so_are_round_trips_under_way() -> None:
    tier = await filled(0)
    gate = anyio.Event()
    tier.plan = lambda operation, number: Fault(hold=gate)
    actor = ReadActor(tier, max_batch=10, concurrency=2)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as readers:
            for number in range(55):
                readers.start_soon(actor.get, key(number))
            while tier.calls["get_many"] < 2:
                await checkpoint()
            for _ in range(20):
                await checkpoint()
            assert tier.calls["get_many"] == 2
            assert actor.statistics().waiting == 35
            gate.set()
        group.cancel_scope.cancel()
    assert tier.calls["get_many"] == 6


async def test_reads_of_one_key_that_wait_together_are_one_but_never_join_one_under_way() -> None:
    tier = await filled(1)
    gate = anyio.Event()
    tier.plan = lambda operation, number: Fault(hold=gate) if number == 0 else None
    actor = ReadActor(tier)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as readers:
            readers.start_soon(actor.get, key(0))
            readers.start_soon(actor.get, key(0))
            while not tier.calls["get_many"]:
                await checkpoint()
            assert await actor.get(key(0)) == b"0"  # does not wait for the first round trip
            gate.set()
        group.cancel_scope.cancel()
    statistics = actor.statistics()
    assert (statistics.reads, statistics.keys, statistics.batches) == (3, 2, 2)


async def test_a_failure_reaches_each_waiter_as_its_own_and_the_actor_goes_on() -> None:
    tier = await filled(1)
    original = TierUnavailableError("no", tier="faulty", operation="get_many", reason="io")
    tier.plan = lambda operation, number: Fault(original) if number == 0 else None
    actor = ReadActor(tier)
    caught: list[TierError] = []

    async def read() -> None:
        with pytest.raises(TierUnavailableError) as info:
            await actor.get(key(0))
        caught.append(info.value)

    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            readers.start_soon(read)
        assert await actor.get(key(0)) == b"0"
        group.cancel_scope.cancel()
    assert len({id(error) for error in caught}) == 2
    assert all(error.__cause__ is original and error.reason == "io" for error in caught)
    assert str(caught[0]) == str(original)


async def test_a_defect_of_a_tier_is_a_tier_error_to_callers() -> None:
    tier = await filled(1)
    tier.plan = lambda operation, number: Fault(ZeroDivisionError()) if number == 0 else None
    actor = ReadActor(tier)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        with pytest.raises(TierError, match="ZeroDivisionError"):
            await actor.get(key(0))
        assert await actor.get(key(0)) == b"0"
        group.cancel_scope.cancel()


async def test_a_cancelled_waiter_disturbs_nobody() -> None:
    tier = await filled(1)
    gate = anyio.Event()
    tier.plan = lambda operation, number: Fault(hold=gate)
    actor = ReadActor(tier, concurrency=1)
    got: list[bytes | None] = []

    async def read() -> None:
        got.append(await actor.get(key(0)))

    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            while not tier.calls["get_many"]:
                await checkpoint()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as cancelled:
                    cancelled.start_soon(actor.get, key(1))
                    cancelled.start_soon(actor.get, key(0))
                    while actor.statistics().waiting < 2:
                        await checkpoint()
                    scope.cancel()
            assert actor.statistics().waiting == 0  # nobody waits, so nothing is read
            gate.set()
        group.cancel_scope.cancel()
    assert got == [b"0"]
    assert actor.statistics().keys == 1


class Prompt(FaultyTier):
    """Keeps a budget of a second, and says in whose task it was read."""

    keeps_budget, read_budget = True, 1.0

    def __init__(self, inner: MemoryTier) -> None:
        super().__init__(inner)
        self.tasks: list[int] = []

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.tasks.append(anyio.get_current_task().id)
        return await super().get_many(keys)


async def test_a_lone_read_of_a_tier_that_keeps_its_budget_is_its_callers_own() -> None:
    tier = Prompt((await filled(1)).inner)  # type: ignore[arg-type]
    actor = ReadActor(tier)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        assert await actor.get(key(0), 1.0) == b"0"
        assert await actor.get(key(0), 0.5) == b"0"  # less than the tier may take
        assert await actor.get(key(0)) == b"0"
        tier.plan = lambda operation, number: Fault(ZeroDivisionError())
        with pytest.raises(TierError, match="ZeroDivisionError"):
            await actor.get(key(0), 1.0)
        group.cancel_scope.cancel()
    own = anyio.get_current_task().id
    assert [task == own for task in tier.tasks] == [True, False, False, True]
    statistics = actor.statistics()
    assert (statistics.reads, statistics.batches, statistics.failures) == (4, 4, 1)


async def test_who_comes_while_a_caller_asks_the_tier_is_not_concerned_by_that_callers_end() -> None:
    tier = Prompt((await filled(2)).inner)  # type: ignore[arg-type]
    gate = anyio.Event()
    tier.plan = lambda operation, number: Fault(hold=gate) if number == 0 else None
    actor = ReadActor(tier)
    got: list[bytes | None] = []

    async def read(number: int) -> None:
        got.append(await actor.get(key(number), 1.0))

    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        async with anyio.create_task_group() as others, anyio.create_task_group() as alone:
            alone.start_soon(read, 0)
            while not tier.calls["get_many"]:
                await checkpoint()
            others.start_soon(read, 0)
            others.start_soon(read, 1)
            await checkpoint()
            alone.cancel_scope.cancel()
        assert sorted(got) == [b"0", b"1"]  # type: ignore[type-var]
        assert await actor.get(key(0), 1.0) == b"0"
        group.cancel_scope.cancel()
    own = anyio.get_current_task().id
    assert tier.tasks[-1] == own, "it is idle again"


def tagged(found: list[tuple[Any, Any]]) -> list[Any]:
    return [Untaken(True) if value is None else (value, item) for value, item in found]


@on_asyncio
async def test_those_who_join_get_what_is_made_of_all_answers_at_once() -> None:
    tier = await filled(3)
    actor = ReadActor(tier)
    taken: list[int] = []
    asked: list[str] = []

    def take(found: list[tuple[Any, Any]]) -> list[Any]:
        taken.append(len(found))
        return tagged(found)

    def vet(group: str) -> bool:
        asked.append(group)
        return group != "refused"

    def join(number: int, group: str = "a") -> Any:
        return actor.join(key(number), 1.0, number, group, vet)

    actor.take = take
    assert join(0) is None, "it does not run yet"
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        futures = [join(number) for number in (0, 1, 1, 9)]
        assert join(2, "refused") is None
        futures.append(join(2, "b"))
        plain = await actor.get(key(1), 1.0)
        assert [await future for future in futures] == [
            (b"0", 0), (b"1", 1), (b"1", 1), Untaken(True), (b"2", 2)
        ]  # fmt: skip
        assert (plain, taken, asked) == (b"1", [5], ["a", "refused", "b"])
        assert actor.statistics().keys == 4
        group.cancel_scope.cancel()
    assert join(0) is None, "it has ended"


@on_asyncio
async def test_a_lone_read_is_not_joined_where_its_caller_asks_the_tier() -> None:
    tier = Prompt((await filled(1)).inner)  # type: ignore[arg-type]
    actor = ReadActor(tier)
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        assert actor.join(key(0), 1.0, None, "", bool) is None
        group.cancel_scope.cancel()


@on_asyncio
async def test_one_who_joined_and_was_cancelled_wants_nothing() -> None:
    tier = await filled(2)
    gate = anyio.Event()
    tier.plan = lambda operation, number: Fault(hold=gate)
    actor = ReadActor(tier, concurrency=1)
    taken: list[Any] = []

    def take(found: list[tuple[Any, Any]]) -> list[Any]:
        taken.extend(found)
        return tagged(found)

    def join(number: int) -> Any:
        return actor.join(key(number), 60.0, number, "", lambda _: True)

    actor.take = take
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        under_way = [join(0), join(0)]
        while not tier.calls["get_many"]:
            await checkpoint()
        waiting = [join(1), join(0), join(0)]
        for future in (under_way[0], waiting[0], waiting[1]):
            future.cancel()
        gate.set()
        assert [await under_way[1], await waiting[2]] == [(b"0", 0)] * 2
        group.cancel_scope.cancel()
    assert taken == [(b"0", 0)] * 2
    assert actor.statistics().keys == 2, "of the second batch the one that somebody wants"


@on_asyncio
@pytest.mark.parametrize("ends", ["failure", "defect", "budget", "take", "end"])
async def test_who_joined_is_told_why_there_is_no_answer(ends: str) -> None:
    tier = await filled(1)
    faults = {
        "failure": Fault(TierUnavailableError("planned", tier="t", operation="get_many", reason="planned")),
        "defect": Fault(ZeroDivisionError()),
        "take": None,
    }
    tier.plan = lambda operation, number: faults.get(ends, Fault(hold=anyio.Event()))
    actor = ReadActor(tier)
    if ends == "take":
        actor.take = lambda found: [1 / 0 for _ in found]
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        future: Any = actor.join(key(0), 0.02 if ends == "budget" else 60.0, None, "", lambda _: True)
        if ends == "end":
            while not tier.calls["get_many"]:
                await checkpoint()
        else:
            await future
        group.cancel_scope.cancel()
    answered, found, error = future.result()
    assert (answered, found) == (False, None)
    reasons = {"failure": "planned", "defect": "bug", "take": "bug", "end": "closed"}
    assert isinstance(error, TimeoutError) if ends == "budget" else error.reason == reasons[ends]


async def test_where_there_are_no_futures_nobody_joins(anyio_backend_name: str) -> None:
    actor = ReadActor(await filled(1))
    async with anyio.create_task_group() as group:
        await group.start(actor.run)
        joined = actor.join(key(0), 1.0, None, "", lambda _: True)
        assert (joined is None) == (anyio_backend_name == "trio")
        assert await actor.get(key(0), 1.0) == b"0"
        group.cancel_scope.cancel()


async def test_no_waiter_is_left_behind_when_the_actor_ends() -> None:
    tier = await filled(1)
    tier.plan = lambda operation, number: Fault(hold=anyio.Event())
    actor = ReadActor(tier, max_batch=1, concurrency=1)
    ended: list[str] = []

    async def read(number: int) -> None:
        with pytest.raises(TierError) as info:
            await actor.get(key(number))
        ended.append(info.value.reason)

    async with anyio.create_task_group() as readers, anyio.create_task_group() as group:
        await group.start(actor.run)
        readers.start_soon(read, 0)
        readers.start_soon(read, 1)
        while actor.statistics().reads < 2 or not tier.calls["get_many"]:
            await checkpoint()
        group.cancel_scope.cancel()
    assert ended == ["closed", "closed"]
    await read(2)
