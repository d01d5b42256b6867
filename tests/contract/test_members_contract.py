"""What a tier that knows partitions promises (`PartitionedTier` in `tiers/base.py`), asked of all of them."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmcache_fast._entry import NEVER
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import PartitionedTier, StoredRecord
from llmcache_fast.tiers.guarded import GuardedTier, GuardOptions
from tests.contract.tiers import DURABLE, key, make
from tests.contract.tiers import record as plain


def partition(number: int) -> bytes:
    return hashlib.sha256(b"partition %d" % number).digest()


def record(number: int, of: int | None = 0, **fields: Any) -> StoredRecord:
    return plain(number, **fields)._replace(partition=None if of is None else partition(of))


async def follow(
    tier: PartitionedTier, after: bytes | None = None, *, of: int = 0, limit: int = 1000
) -> tuple[list[bytes], bytes | None]:
    """All members there are after a cursor."""
    found: list[bytes] = []
    for _ in range(1000):
        page, cursor = await tier.members(partition(of), after, limit)
        assert len(page) <= limit
        found += page
        if cursor == after:
            return found, cursor
        assert cursor is not None
        after = cursor
    pytest.fail("the pages do not end")


async def test_members_come_in_the_order_of_their_arrival(tier: Any) -> None:
    assert await tier.members(partition(0)) == ([], None)
    order = random.Random(1).sample(range(40), 40)
    for start in range(0, 40, 8):
        batch = [record(n) for n in order[start : start + 8]]
        await tier.put_many([*batch, record(100 + start, None), record(200 + start, 1)])
    found: list[bytes] = []
    for limit in (1000, 40, 39, 7, 1):
        found, cursor = await follow(tier, limit=limit)
        # Records of one batch arrive together.
        assert [set(found[at : at + 8]) for at in range(0, 40, 8)] == [
            {key(n) for n in order[at : at + 8]} for at in range(0, 40, 8)
        ]
        assert len(found) == 40
        assert await tier.members(partition(0), cursor) == ([], cursor)
    assert sorted((await follow(tier, of=1))[0]) == sorted(key(200 + start) for start in range(0, 40, 8))
    assert await tier.members(partition(2)) == ([], None)
    assert await tier.get_many(found) == [b"x"] * 40


async def test_who_follows_hears_of_what_arrived_since(tier: Any) -> None:
    await tier.put_many([record(n) for n in range(3)])
    _, cursor = await follow(tier)
    await tier.put_many([record(3), record(4, 1)])
    found, later = await follow(tier, cursor)
    assert found == [key(3)]
    assert await tier.members(partition(0), later) == ([], later)
    # Written again, it arrives again.
    await tier.put_many([record(0, envelope=b"again", snap=11)])
    assert (await follow(tier, later))[0] == [key(0)]
    assert sorted((await follow(tier))[0]) == sorted(key(n) for n in range(4))


async def test_an_empty_partition_can_be_followed_from_the_start(tier: Any) -> None:
    _, cursor = await tier.members(partition(0))
    await tier.put_many([record(1)])
    assert (await follow(tier, cursor))[0] == [key(1)]


async def test_what_is_gone_is_no_member(tier: Any) -> None:
    await tier.put_many([record(n) for n in range(8)])
    _, cursor = await follow(tier)
    await tier.delete_many([key(0), key(1)])
    await tier.delete_many([key(2)], (1, 11))
    if hasattr(tier, "discard_many"):
        await tier.discard_many([(key(3), 1, 10), (key(4), 1, 9)])
    else:
        await tier.delete_many([key(3)])
    assert sorted((await follow(tier))[0]) == sorted(key(n) for n in range(4, 8))
    # The same cursor goes on.
    await tier.put_many([record(9)])
    assert (await follow(tier, cursor))[0] == [key(9)]
    await tier.clear()
    assert (await follow(tier))[0] == []
    await tier.put_many([record(1)])
    assert (await follow(tier))[0] == [key(1)]


async def test_what_has_expired_is_no_member_once_it_was_removed(tier: Any) -> None:
    if tier.name == "redis":
        pytest.skip("the server removes what has expired: tests/unit/test_partitions.py")
    await tier.put_many([record(n, stale_until=100 + n) for n in range(4)] + [record(9)])
    assert await tier.purge(101) == 2
    assert sorted((await follow(tier))[0]) == sorted([key(2), key(3), key(9)])


async def test_a_record_is_of_the_partition_it_was_last_written_with(tier: Any) -> None:
    await tier.put_many([record(1), record(2), record(3)])
    await tier.put_many([record(1, 1), record(2, None)])
    assert (await follow(tier, of=1))[0] == [key(1)]
    # A set beside the records may still list what has left it; who reads judges.
    assert key(3) in (await follow(tier))[0]
    assert key(2) not in (await follow(tier, of=1))[0]


async def test_what_was_superseded_changes_nothing(tier: Any) -> None:
    await tier.put_many([record(1, envelope=b"newer", snap=20)])
    assert await tier.put_many([record(1, envelope=b"older", snap=19)]) == (0, 1, 0)
    found, _ = await follow(tier)
    assert set(found) == {key(1)}


async def test_of_two_records_of_one_key_in_a_batch(tier: Any) -> None:
    await tier.put_many(
        [record(1, envelope=b"a"), record(1, envelope=b"b"), record(2), record(1, envelope=b"c")]
    )
    found, _ = await follow(tier)
    assert set(found) == {key(1), key(2)}
    assert await tier.get_many([key(1)]) == [b"c"]


async def test_written_at_once_none_is_missed_by_who_follows(tier: Any) -> None:
    seen: list[bytes] = []
    ended = anyio.Event()

    async def write(worker: int) -> None:
        for turn in range(12):
            number = 1000 * worker + 10 * turn
            await tier.put_many([record(number + n, n % 2) for n in range(6)])

    async def read() -> None:
        cursor = None
        while True:
            last = ended.is_set()
            found, cursor = await follow(tier, cursor, limit=5)
            # Where it is listed, it is there.
            assert None not in await tier.get_many(found)
            seen.extend(found)
            if last:
                return
            await checkpoint()

    async with anyio.create_task_group() as reading:
        reading.start_soon(read)
        async with anyio.create_task_group() as writing:
            for worker in range(4):
                writing.start_soon(write, worker)
        ended.set()
    wanted = {key(1000 * w + 10 * t + n) for w in range(4) for t in range(12) for n in (0, 2, 4)}
    assert set(seen) == wanted
    assert len(seen) == len(wanted)


async def test_a_cursor_that_is_none_is_refused(tier: Any) -> None:
    for wrong in (b"", b"short", b"\xff" * 8, bytes(9)):
        with pytest.raises(ValueError, match="after: give the cursor"):
            await tier.members(partition(0), wrong)


async def test_behind_a_guard(tier: Any) -> None:
    guarded = GuardedTier(tier, GuardOptions(batch_budget=60.0))
    await guarded.put_many([record(n, stale_until=NEVER) for n in range(3)])
    found, cursor = await follow(guarded, limit=2)  # type: ignore[arg-type]
    assert found == (await follow(tier))[0]
    assert await guarded.members(partition(0), cursor) == ([], cursor)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", DURABLE)
async def test_opened_again_a_durable_tier_has_its_members(
    name: str, request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str
) -> None:
    tier = make(request, name, clock, anyio_backend)
    await tier.open()
    await tier.put_many([record(1), record(2)])
    before, cursor = await follow(tier)
    await tier.aclose()
    again = make(request, name, clock, anyio_backend)
    await again.open()
    assert (await follow(again))[0] == before
    await again.put_many([record(3)])
    assert (await follow(again, cursor))[0] == [key(3)]
    await again.aclose()
