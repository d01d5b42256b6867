"""What a tier with leases promises (`LeasingTier` in `tiers/base.py`), and one that is shared: tombstones."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from tests.contract.tiers import key, over, record

LEASING = ["memory", "redis", "redis-cluster"]
WITH_TOMBSTONES = ["redis", "redis-cluster"]


tier = over(LEASING)
shared = over(WITH_TOMBSTONES)


async def test_what_is_there_is_returned_and_what_is_absent_leased_to_one(tier: Any) -> None:
    await tier.put_many([record(1, b"there")])
    keys = [key(1), key(2), key(3)]
    assert await tier.get_or_lease_many(keys, b"a", 30) == [(b"there", False), (None, True), (None, True)]
    assert await tier.get_or_lease_many(keys, b"b", 30) == [(b"there", False), (None, False), (None, False)]
    assert await tier.get_or_lease_many(keys[1:], b"a", 30) == [(None, True), (None, True)]
    assert await tier.get_or_lease_many([], b"a", 30) == []


async def test_a_lease_without_a_look(tier: Any) -> None:
    await tier.put_many([record(1, b"there")])
    assert await tier.lease_many([key(1), key(2)], b"a", 30) == [True, True]
    assert await tier.lease_many([key(2), key(3)], b"b", 30) == [False, True]
    assert await tier.lease_many([key(1)], b"a", 30) == [True]


async def test_only_the_owner_renews_and_releases(tier: Any) -> None:
    assert await tier.lease_many([key(1)], b"a", 30) == [True]
    assert await tier.renew_leases([key(1), key(2)], b"b", 30) == [False, False]
    await tier.release_leases([key(1), key(2)], b"b")
    assert await tier.renew_leases([key(1), key(2)], b"a", 30) == [True, False]
    await tier.release_leases([key(1)], b"a")
    assert await tier.lease_many([key(1)], b"b", 30) == [True]


async def test_a_lease_ends_by_time(tier: Any) -> None:
    assert await tier.lease_many([key(1)], b"a", 0.02) == [True]
    with anyio.fail_after(10):
        while await tier.lease_many([key(1)], b"b", 30) == [False]:
            await checkpoint()
    assert await tier.renew_leases([key(1)], b"a", 30) == [False]


async def test_a_release_is_heard_by_all_who_wait_for_that_key(tier: Any) -> None:
    keys = [key(1), key(2)]
    await tier.lease_many(keys, b"a", 30)
    heard: list[int] = []

    async def wait(number: int) -> None:
        await tier.lease_released(key(number))
        heard.append(number)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as others:
            others.start_soon(wait, 2)
            async with anyio.create_task_group() as group:
                group.start_soon(wait, 1)
                group.start_soon(wait, 1)
                while heard.count(1) < 2:
                    # A release may come before the subscription does: then there is another.
                    await tier.lease_many([key(1)], b"a", 30)
                    await tier.release_leases([key(1)], b"a")
                    await checkpoint()
            others.cancel_scope.cancel()


async def test_leases_are_no_records(tier: Any) -> None:
    await tier.put_many([record(1)])
    await tier.lease_many([key(2)], b"a", 30)
    assert await tier.clear() == 1
    assert await tier.get_many([key(2)]) == [None]
    assert await tier.lease_many([key(2)], b"b", 30) == [False]


async def test_a_tombstone_refuses_what_is_older_and_of_its_epoch(shared: Any) -> None:
    await shared.put_many([record(1, b"old", epoch=1, snap=5)])
    assert await shared.delete_many([key(1), key(2)], (1, 10)) == 1
    assert await shared.get_many([key(1), key(2)]) == [None, None]
    late = [record(number, b"late", epoch=1, snap=9) for number in (1, 2)]
    assert await shared.put_many(late) == (0, 2, 0)
    assert await shared.delete_many([key(1)]) == 0  # a tombstone is no record, and stays
    assert await shared.put_many(late) == (0, 2, 0)
    assert await shared.put_many([record(1, b"new", epoch=1, snap=10)]) == (1, 0, 0)
    assert await shared.put_many([record(2, b"other", epoch=2, snap=1)]) == (1, 0, 0)
    assert await shared.get_many([key(1), key(2)]) == [b"new", b"other"]


async def test_without_a_stamp_nothing_stays_behind(shared: Any) -> None:
    await shared.put_many([record(1, snap=10)])
    assert await shared.delete_many([key(1)]) == 1
    assert await shared.put_many([record(1, b"older", snap=1)]) == (1, 0, 0)


async def test_what_a_tombstone_hides_can_be_leased(shared: Any) -> None:
    await shared.delete_many([key(1)], (1, 10))
    assert await shared.get_or_lease_many([key(1)], b"a", 30) == [(None, True)]
    assert await shared.clear() == 0
