"""A walk through a tier: all records judged, those that go deleted, failures waited out."""

from __future__ import annotations

import pytest

from llmcache_fast._errors import TierError
from llmcache_fast.actors.walking import KEEP, UNREADABLE, Verdict, Walk
from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.base import NEVER, StoredRecord

pytestmark = pytest.mark.anyio


def record(number: int, snap: int = 5) -> StoredRecord:
    return StoredRecord(number.to_bytes(32, "big"), b"%d" % number, 1, snap, NEVER, 0)


async def tier_of(count: int) -> MemoryTier:
    tier = MemoryTier()
    await tier.open()
    await tier.put_many([record(number) for number in range(count)])
    return tier


def judge(_key: bytes, envelope: bytes) -> Verdict:
    number = int(envelope)
    if number % 10 == 0:
        return UNREADABLE
    return Verdict("take", 1, 5) if number % 2 else KEEP


@pytest.mark.parametrize("page", [1, 7, 100, 500])
async def test_every_record_is_judged_once_and_those_that_go_are_gone(page: int) -> None:
    tier = await tier_of(100)
    walk = Walk(tier, judge, delete=True, page=page)
    while await walk.step():
        pass
    assert (walk.seen, walk.taken, walk.deleted, walk.unreadable) == (100, 50, 50, 10)
    assert len(tier.records) == 50
    assert walk.cursor is None


async def test_a_walk_may_only_look() -> None:
    tier = await tier_of(100)
    walk = Walk(tier, judge, delete=False)
    assert not await walk.step()
    assert (walk.taken, walk.deleted, len(tier.records)) == (50, 0, 100)


async def test_a_walk_goes_on_from_a_cursor() -> None:
    tier = await tier_of(100)
    walk = Walk(tier, judge, delete=True, page=10)
    assert await walk.step()
    rest = Walk(tier, judge, delete=True, cursor=walk.cursor, page=10)
    while await rest.step():
        pass
    assert walk.seen + rest.seen == 100
    assert len(tier.records) == 50


async def test_what_was_overwritten_since_it_was_read_stays() -> None:
    tier = await tier_of(4)

    def late(key: bytes, envelope: bytes) -> Verdict:
        tier.records[key] = record(int(envelope), snap=6)
        return judge(key, envelope)

    walk = Walk(tier, late, delete=True)
    await walk.step()
    assert (walk.taken, walk.deleted, len(tier.records)) == (2, 0, 4)


class Failing(MemoryTier):
    """Fails to give pages as often as it is told."""

    failures = 0

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        if self.failures:
            self.failures -= 1
            raise TierError("busy", tier=self.name, operation="scan", reason="busy")
        return await super().scan(cursor, limit)


async def test_a_page_that_fails_now_and_then_is_asked_for_again() -> None:
    tier = Failing()
    await tier.open()
    await tier.put_many([record(number) for number in range(10)])
    tier.failures = 2
    walk = Walk(tier, judge, delete=True)
    assert not await walk.step()
    assert walk.deleted == 5
    tier.failures = 1_000
    with pytest.raises(TierError, match="busy"):
        await Walk(tier, judge, delete=True).step()
