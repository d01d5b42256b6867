"""What every tier promises (`tiers/base.py`), asked of all of them, on asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from llmcache_fast._entry import NEVER
from llmcache_fast._errors import TierError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import Authority, ScannableTier, Tier
from tests.contract.clocks import clock_of, markers_of, raise_markers
from tests.contract.tiers import DURABLE, OWN_TIME, SCANNABLE, key, make, over, record

scannable = over(SCANNABLE)


async def test_gets_what_was_put_in_the_order_asked(tier: Tier) -> None:
    report = await tier.put_many([record(n, b"%d" % n) for n in range(5)])
    assert report == (5, 0, 0)
    assert await tier.get_many([key(3), key(9), key(0), key(3)]) == [b"3", None, b"0", b"3"]


async def test_empty_calls_do_nothing(tier: Tier) -> None:
    assert await tier.get_many([]) == []
    assert await tier.put_many([]) == (0, 0, 0)
    assert await tier.delete_many([]) == 0


async def test_envelopes_are_opaque_bytes(tier: Tier) -> None:
    envelopes = [b"", b"\0", bytes(range(256)) * 40, b"x" * 300_000]
    await tier.put_many([record(n, envelope) for n, envelope in enumerate(envelopes)])
    assert await tier.get_many([key(n) for n in range(len(envelopes))]) == envelopes


async def test_a_newer_snap_of_the_same_epoch_stays(tier: Tier) -> None:
    await tier.put_many([record(1, b"newer", snap=20)])
    assert await tier.put_many([record(1, b"older", snap=19)]) == (0, 1, 0)
    assert await tier.get_many([key(1)]) == [b"newer"]
    assert await tier.put_many([record(1, b"same", snap=20)]) == (1, 0, 0)
    assert await tier.put_many([record(1, b"epoch", snap=3, epoch=2**64 - 1)]) == (1, 0, 0)
    assert await tier.get_many([key(1)]) == [b"epoch"]


async def test_of_two_records_of_one_key_the_later_is_the_later_write(tier: Tier) -> None:
    assert await tier.put_many([record(1, b"a", snap=5), record(1, b"b", snap=5)]) == (2, 0, 0)
    assert await tier.put_many([record(2, b"a", snap=5), record(2, b"b", snap=4)]) == (1, 1, 0)
    assert await tier.get_many([key(1), key(2)]) == [b"b", b"a"]


async def test_a_put_may_be_repeated(tier: Tier) -> None:
    batch = [record(n, b"%d" % n) for n in range(10)]
    assert await tier.put_many(batch) == (10, 0, 0)
    assert await tier.put_many(batch) == (10, 0, 0)
    assert await tier.clear() == 10


async def test_deletes_count_what_was_there(tier: Tier) -> None:
    await tier.put_many([record(1), record(2)])
    assert await tier.delete_many([key(1), key(1), key(7)]) == 1
    assert await tier.get_many([key(1), key(2)]) == [None, b"x"]
    assert await tier.clear() == 1
    assert await tier.clear() == 0


async def test_purge_takes_what_may_no_longer_be_used_and_no_more(tier: Tier) -> None:
    if tier.name in OWN_TIME:
        pytest.skip("the server removes what has expired")
    await tier.put_many([record(n, stale_until=100 + n) for n in range(5)] + [record(9)])
    assert await tier.purge(99) == 0
    assert await tier.purge(103, limit=2) == 2
    assert await tier.purge(103) == 2
    assert await tier.purge(NEVER) == 1
    assert await tier.get_many([key(9)]) == [b"x"]


async def test_a_tier_does_not_judge_records(tier: Tier) -> None:
    await tier.put_many([record(1, b"expired", stale_until=-5)])
    assert await tier.get_many([key(1)]) == [b"expired"]


async def test_concurrent_calls(tier: Tier) -> None:
    async def work(worker: int) -> None:
        for turn in range(10):
            number = worker * 100 + turn
            await tier.put_many([record(number, b"%d" % number)])
            assert await tier.get_many([key(number)]) == [b"%d" % number]

    async with anyio.create_task_group() as group:
        for worker in range(8):
            group.start_soon(work, worker)
    assert await tier.clear() == 80


async def test_a_closed_tier_raises_tier_errors_only(tier: Tier) -> None:
    await tier.aclose()
    for call in (tier.get_many([key(1)]), tier.put_many([record(1)]), tier.clear(), tier.purge(1)):
        with pytest.raises(TierError) as caught:
            await call
        assert caught.value.tier
        assert caught.value.operation
        assert caught.value.reason == "closed"


@pytest.mark.parametrize("name", DURABLE)
async def test_opened_again_a_durable_tier_has_it_all(
    name: str, request: pytest.FixtureRequest, clock: ManualClock, anyio_backend: str
) -> None:
    tier = make(request, name, clock, anyio_backend)
    await tier.open()
    await tier.put_many([record(1, b"kept")])
    stamp = await raise_markers(tier, 5, [1])
    await tier.aclose()
    again = make(request, name, clock, anyio_backend)
    await again.open()
    assert await again.get_many([key(1)]) == [b"kept"]
    assert await clock_of(again, 5) == stamp
    assert await markers_of(again, 5, 0) == [(1, stamp[1])]
    await again.aclose()


async def test_the_clock_never_goes_back(authority: Any, clock: ManualClock) -> None:
    if authority.name in OWN_TIME:
        pytest.skip("its time is the server's: tests/unit/test_redis.py")
    epoch, start = await clock_of(authority, 7)
    assert await clock_of(authority, 7) == (epoch, start)
    clock.advance(1)
    assert await raise_markers(authority, 7, [1, 2**64 - 1]) == (epoch, clock())
    assert await raise_markers(authority, 7, [2]) == (epoch, clock() + 1)
    clock.advance(-1000)
    last = (await raise_markers(authority, 7, [1]))[1]
    clock.advance(1000)
    assert last == clock() + 2
    assert await clock_of(authority, 7) == (epoch, last)
    assert await markers_of(authority, 7, 0) == [(2**64 - 1, last - 2), (2, last - 1), (1, last)]
    assert await markers_of(authority, 7, last - 1) == [(1, last)]
    assert await markers_of(authority, 7, last) == []


async def test_namespaces_have_clocks_of_their_own(authority: Authority) -> None:
    await raise_markers(authority, 2**64 - 1, [1])
    assert await markers_of(authority, 8, 0) == []
    assert (await clock_of(authority, 8))[0] != (await clock_of(authority, 2**64 - 1))[0]


async def test_raised_at_once_markers_get_seqs_of_their_own(authority: Authority) -> None:
    seqs: list[int] = []

    async def work(target: int) -> None:
        seqs.append((await raise_markers(authority, 1, [target]))[1])

    async with anyio.create_task_group() as group:
        for target in range(20):
            group.start_soon(work, target)
    assert len(set(seqs)) == 20
    markers = await markers_of(authority, 1, 0)
    assert sorted(target for target, _ in markers) == list(range(20))
    assert [seq for _, seq in markers] == sorted(seqs)


async def test_clearing_leaves_the_clock_and_the_markers(authority: Any) -> None:
    stamp = await raise_markers(authority, 1, [4])
    await authority.clear()
    assert await clock_of(authority, 1) == stamp
    assert await markers_of(authority, 1, 0) == [(4, stamp[1])]


async def walk(
    tier: ScannableTier, cursor: bytes | None = None, limit: int = 500
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """The pages from `cursor` on."""
    for _ in range(10_000):
        page, cursor = await tier.scan(cursor, limit)
        yield page
        if cursor is None:
            return
    pytest.fail("the walk does not end")


async def test_a_walk_gives_every_record(scannable: ScannableTier) -> None:
    assert [found async for page in walk(scannable) for found in page] == []
    envelopes = {key(n): bytes([n]) * (n * 997 % 20_000) for n in range(120)}
    await scannable.put_many([record(n, envelopes[key(n)]) for n in range(120)])
    pages = [page async for page in walk(scannable, limit=25)]
    assert len(pages) > 2
    assert dict(found for page in pages for found in page) == envelopes
    for limit in (1, 119, 120, 121):
        assert {k async for page in walk(scannable, limit=limit) for k, _ in page} == set(envelopes)


async def test_a_walk_gives_what_is_there_all_the_while_whatever_comes_and_goes(
    scannable: ScannableTier,
) -> None:
    await scannable.put_many([record(n) for n in range(100)])
    first, cursor = await scannable.scan(None, 20)
    assert cursor is not None
    await scannable.delete_many([key(n) for n in range(0, 100, 3)])
    await scannable.put_many([record(n) for n in range(100, 200)])
    rest = [found async for page in walk(scannable, cursor, 20) for found in page]
    given = {k for k, _ in [*first, *rest]}
    assert {key(n) for n in range(100) if n % 3} <= given
    assert given <= {key(n) for n in range(200)}
    await scannable.clear()
    assert [found async for page in walk(scannable, cursor, 20) for found in page] == []


async def test_discards_only_what_still_has_the_stamp(scannable: ScannableTier) -> None:
    top = 2**64 - 1
    await scannable.put_many([record(n, epoch=top, snap=10) for n in range(4)])
    await scannable.put_many([record(1, b"newer", epoch=top, snap=11), record(2, b"other", epoch=5, snap=10)])
    stamped = [(key(n), top, 10) for n in range(3)]
    assert await scannable.discard_many([*stamped, (key(77), top, 10)]) == 1
    assert await scannable.get_many([key(n) for n in range(4)]) == [None, b"newer", b"other", b"x"]
    assert await scannable.discard_many([]) == 0
    assert await scannable.discard_many(stamped) == 0


async def test_discarding_leaves_no_tombstone(scannable: ScannableTier) -> None:
    await scannable.put_many([record(1, snap=10)])
    assert await scannable.discard_many([(key(1), 1, 10)]) == 1
    assert await scannable.put_many([record(1, b"older", snap=3)]) == (1, 0, 0)
    assert await scannable.get_many([key(1)]) == [b"older"]
