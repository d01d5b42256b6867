"""What the tier promises beyond the contract: stamps, tombstones, clocks, markers, plans gone stale."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_fast import LLMCache
from llmcache_fast._entry import NEVER, Facts
from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres import tier as module
from tests.contract.clocks import clock_of, markers_of, raise_markers
from tests.servers.postgres import PostgresServer
from tests.unit.postgres.conftest import PATIENT


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(
    number: int, envelope: bytes = b"x", *, epoch: int = 1, snap: int = 10, **fields: Any
) -> StoredRecord:
    return StoredRecord(key(number), envelope, epoch, snap, NEVER, 100)._replace(**fields)


def database(url: str) -> str:
    return url.rpartition("/")[2]


async def test_opening_and_closing_twice_is_once(postgres_url: str) -> None:
    tier = PostgresTier.from_url(postgres_url + PATIENT)
    await tier.open()
    await tier.open()
    await tier.aclose()
    await tier.aclose()
    with pytest.raises(TierError, match=r"postgres\.get_many: the tier is not open"):
        await tier.get_many([bytes(32)])
    await tier.open()
    assert await tier.get_many([bytes(32)]) == [None]
    await tier.aclose()


async def test_a_key_that_is_no_fingerprint_is_a_mistake_not_a_failure(tier: PostgresTier) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes, this one has 5"):
        await tier.get_many([b"short"])


async def test_a_record_too_large_is_refused_and_the_others_are_stored(
    tier: PostgresTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORD", 1000)
    assert await tier.put_many([record(1, bytes(1001)), record(2), record(3, bytes(1000))]) == (2, 0, 1)
    assert await tier.get_many([key(1), key(2)]) == [None, b"x"]


@pytest.mark.parametrize("snap", [2**63 - 1, 2**63, 2**64 - 1])
async def test_snaps_compare_as_unsigned(tier: PostgresTier, snap: int) -> None:
    await tier.put_many([record(1, b"low", snap=1)])
    assert await tier.put_many([record(1, b"high", snap=snap)]) == (1, 0, 0)
    assert await tier.put_many([record(1, b"lower", snap=snap - 1)]) == (0, 1, 0)
    assert await tier.get_many([key(1)]) == [b"high"]


Batch = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1, 2**64 - 1]), st.sampled_from([0, 1, 2**63, 2**64 - 1])),
    max_size=6,
)


async def test_puts_do_what_the_plainest_tier_does(tier: PostgresTier) -> None:
    """Against the double in a dict, batch by batch: reports and contents."""

    async def play(batches: list[list[tuple[int, int, int]]]) -> None:
        await tier.clear()
        model = MemoryTier()
        await model.open()
        for number, batch in enumerate(batches):
            records = [
                record(name, b"%d.%d" % (number, place), epoch=epoch, snap=snap)
                for place, (name, epoch, snap) in enumerate(batch)
            ]
            assert await tier.put_many(records) == await model.put_many(records)
            keys = [key(name) for name in range(3)]
            assert await tier.get_many(keys) == await model.get_many(keys)

    @settings(max_examples=30)
    @given(st.lists(Batch, max_size=4))
    def search(batches: list[list[tuple[int, int, int]]]) -> None:
        anyio.from_thread.run(play, batches)

    await anyio.to_thread.run_sync(search)


async def test_a_tombstone_keeps_older_writes_out_until_it_ends(postgres_url: str) -> None:
    clock = ManualClock()
    tier = PostgresTier.from_url(postgres_url + PATIENT, clock=clock)
    await tier.open()
    await tier.put_many([record(1, snap=10)])
    assert await tier.delete_many([key(1), key(2)], (1, 20)) == 1
    assert await tier.delete_many([key(1)], (1, 15)) == 0
    assert await tier.get_many([key(1), key(2)]) == [None, None]
    late = [record(1, snap=19), record(2, snap=19)]
    assert await tier.put_many(late) == (0, 2, 0)
    assert await tier.put_many([record(2, b"epoch", epoch=2, snap=1)]) == (1, 0, 0)
    clock.advance(module.TOMBSTONE)
    assert await tier.put_many(late) == (2, 0, 0)
    assert await tier.delete_many([key(1), key(2)], (1, 20)) == 2
    assert await tier.put_many([record(1, b"newer", snap=20)]) == (1, 0, 0)
    assert await tier.get_many([key(1), key(2)]) == [b"newer", None]
    clock.advance(module.TOMBSTONE)
    assert await tier.purge(clock()) == 1
    assert await tier.clear() == 1
    await tier.aclose()


async def test_a_tombstone_holds_no_facts(
    tier: PostgresTier, postgres_url: str, postgres_server: Any
) -> None:
    facts = Facts(tags=("t",), label="l", model="m", compute_micros=1)
    await tier.put_many([record(1, namespace="n", facts=facts)])
    await tier.delete_many([key(1)], (1, 20))
    shown = postgres_server.execute(
        "SELECT envelope, namespace, label, model, tags, metadata FROM llmcache.records",
        database(postgres_url),
    )
    assert shown == "|||||"


async def test_writers_of_the_same_keys_in_any_order_do_not_stop_one_another(tier: PostgresTier) -> None:
    async def write(turn: int) -> None:
        order = list(range(50)) if turn % 2 else list(reversed(range(50)))
        if turn % 5 == 4:
            await tier.delete_many([key(n) for n in order], (1, turn) if turn % 2 else None)
        else:
            await tier.put_many([record(n, snap=turn) for n in order])

    async with anyio.create_task_group() as group:
        for turn in range(40):
            group.start_soon(write, turn)
    assert await tier.put_many([record(n, snap=100) for n in range(50)]) == (50, 0, 0)


async def test_purging_passes_over_what_others_lock(
    tier: PostgresTier, postgres_url: str, anyio_backend: str
) -> None:
    import asyncpg

    await tier.put_many([record(n, stale_until=5) for n in range(10)])
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT FROM llmcache.records WHERE key = $1 FOR UPDATE", key(3))
        assert await tier.purge(10) == 9
        assert await tier.get_many([key(3)]) == [b"x"]
    assert await tier.purge(10) == 1
    await other.close()


async def test_clearing_takes_more_than_a_batch(tier: PostgresTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLEAR_BATCH", 7)
    await tier.put_many([record(n) for n in range(30)])
    await tier.delete_many([key(3)], (1, 11))
    assert await tier.clear() == 29
    assert await tier.clear() == 0


async def test_the_server_is_the_clock(tier: PostgresTier, postgres_server: PostgresServer) -> None:
    before = int(postgres_server.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint"))
    _, start = await clock_of(tier, 2**64 - 1)
    _, seq = await raise_markers(tier, 2**64 - 1, [2**63])
    after = int(postgres_server.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint"))
    assert before <= start < seq <= after
    assert await markers_of(tier, 2**64 - 1, seq) == []


async def test_two_processes_share_a_clock(tier: PostgresTier, postgres_url: str) -> None:
    other = PostgresTier.from_url(postgres_url + PATIENT)
    await other.open()
    epoch, first = await raise_markers(tier, 1, [1, 1])
    assert (await clock_of(other, 1)) == (epoch, first)
    assert (await raise_markers(other, 1, [2]))[0] == epoch
    assert [target for target, _ in await markers_of(tier, 1, 0)] == [1, 2]
    await other.aclose()


@pytest.mark.parametrize("seen_by", ["changes", "raise_markers"])
async def test_a_clock_that_went_back_gets_a_new_epoch(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer, seen_by: str
) -> None:
    """As after a backup was restored: markers that were acknowledged are gone."""
    epoch, seq = await raise_markers(tier, 1, [5])
    postgres_server.execute(
        f"UPDATE llmcache.clocks SET seq = {seq - 1000}; DELETE FROM llmcache.markers", database(postgres_url)
    )
    reading = await (clock_of(tier, 1) if seen_by == "changes" else raise_markers(tier, 1, [6]))
    assert reading[0] != epoch
    assert reading[1] >= seq
    assert (await clock_of(tier, 1)) == reading


async def test_markers_are_synced_where_commits_are_not(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer
) -> None:
    name = database(postgres_url)
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    other = PostgresTier.from_url(postgres_url + PATIENT)
    await other.open()
    await raise_markers(other, 1, [5])
    flushed = postgres_server.execute("SELECT pg_current_wal_flush_lsn() - pg_current_wal_insert_lsn()", name)
    assert int(flushed) >= 0
    await other.aclose()


async def test_the_number_of_markers_is_bounded(tier: PostgresTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcache_fast.tiers.postgres.clocks.MAX_MARKERS", 9)
    namespace = 2**64 - 5
    # Raised again, a marker is counted again until it is seen that there are not so many.
    for _ in range(20):
        await raise_markers(tier, namespace, [0])
    assert len(await markers_of(tier, namespace, 0)) == 1
    seqs = [(await raise_markers(tier, namespace, [target]))[1] for target in range(11)]
    await raise_markers(tier, 3, [1])
    assert await markers_of(tier, namespace, 0) == [
        (namespace, seqs[5]),
        *((target, seqs[target]) for target in range(6, 11)),
    ]
    # What was raised once more above the floor stays above it.
    _, above = await raise_markers(tier, namespace, [namespace])
    for target in range(20, 40):
        await raise_markers(tier, namespace, [target])
        assert len(await markers_of(tier, namespace, 0)) <= 11
    assert dict(await markers_of(tier, namespace, 0))[namespace] >= above
    assert len(await markers_of(tier, 3, 0)) == 1


async def test_a_changed_schema_is_found_out_and_used(
    tier: PostgresTier, postgres_url: str, postgres_server: PostgresServer
) -> None:
    await tier.put_many([record(1)])
    for _ in range(3):
        assert await tier.get_many([key(1)]) == [b"x"]
    postgres_server.execute(
        "ALTER TABLE llmcache.records ADD COLUMN noted text; "
        "ALTER TABLE llmcache.records ALTER COLUMN label TYPE varchar(600); "
        "ALTER TABLE llmcache.clocks ALTER COLUMN epoch TYPE numeric; "
        "ALTER TABLE llmcache.clocks ALTER COLUMN epoch TYPE bigint",
        database(postgres_url),
    )
    assert await tier.get_many([key(1)]) == [b"x"]
    assert await tier.put_many([record(1, b"y")]) == (1, 0, 0)
    postgres_server.execute("DROP TABLE llmcache.records", database(postgres_url))
    with pytest.raises(TierUnavailableError, match="run `llmcache-fast migrate URL`") as caught:
        await tier.get_many([key(1)])
    assert caught.value.reason == "schema"


async def test_an_error_quotes_no_row(tier: PostgresTier, postgres_url: str, postgres_server: Any) -> None:
    postgres_server.execute(
        "ALTER TABLE llmcache.records ADD CHECK (label <> 'secret path')", database(postgres_url)
    )
    facts = Facts(label="secret path")
    with pytest.raises(TierError, match="SQLSTATE 23514") as caught:
        await tier.put_many([record(1, b"secret answer", namespace="n", facts=facts)])
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"


def test_another_event_loop_is_refused(postgres_url: str) -> None:
    tier = PostgresTier.from_url(postgres_url)
    with pytest.raises(TierUnavailableError, match="asyncio") as caught:
        trio.run(tier.open)
    assert caught.value.reason == "event_loop"


async def test_a_forked_child_is_refused(tier: PostgresTier, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(TierUnavailableError, match="forked"):
        await tier.get_many([key(1)])


async def test_two_caches_share_what_one_paid_for(postgres_url: str, anyio_backend: str) -> None:
    calls = 0

    async def compute() -> str:
        nonlocal calls
        calls += 1
        return "an answer"

    request = {"model": "m", "messages": [{"role": "user", "content": "a question"}]}
    address = postgres_url + PATIENT
    async with LLMCache(tiers=[address]) as one, LLMCache(tiers=[address]) as two:
        await one.get_or_compute(request, compute, tags=["doc:7"], label="a/b")
        await one.flush()
        result = await two.resolve(request, compute)
        assert (result.value, result.status, result.tier) == ("an answer", "hit", "postgres")
        await two.invalidate(tags=["doc:7"])
    async with LLMCache(tiers=[address]) as three:
        assert (await three.resolve(request, compute)).status == "miss"
    assert calls == 2


def test_without_its_driver_the_address_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("llmcache_fast.tiers.postgres"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"needs asyncpg: pip install 'llmcache-fast\[postgres\]'"):
        LLMCache(tiers=["postgresql://db/llm"])
