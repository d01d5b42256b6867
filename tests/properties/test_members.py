"""Members of partitions on disk are those of the tier in memory, whatever is written and deleted."""

from __future__ import annotations

import hashlib
import tempfile

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_fast._entry import NEVER
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import StoredRecord
from llmcache_fast.tiers.disk import DiskTier

KEYS = [hashlib.sha256(bytes([n])).digest() for n in range(6)]
PARTITIONS = [hashlib.sha256(b"p%d" % n).digest() for n in range(2)]
RECORDS = st.builds(
    StoredRecord,
    key=st.sampled_from(KEYS),
    envelope=st.binary(max_size=3),
    epoch=st.integers(1, 2),
    snap=st.integers(1, 3),
    stale_until=st.sampled_from([5, 10, NEVER]),
    cost=st.just(1),
    created=st.just(0),
    fresh_until=st.just(NEVER),
    namespace=st.none(),
    facts=st.none(),
    partition=st.sampled_from([None, *PARTITIONS]),
)
STEPS = st.one_of(
    st.tuples(st.just("put_many"), st.lists(RECORDS, max_size=8)),
    st.tuples(st.just("delete_many"), st.lists(st.sampled_from(KEYS), max_size=3)),
    st.tuples(
        st.just("discard_many"),
        st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 2), st.integers(1, 3)), max_size=3),
    ),
    st.tuples(st.just("purge"), st.sampled_from([5, 10])),
    st.tuples(st.just("clear")),
    st.tuples(st.just("advance"), st.integers(-5, 5)),
    st.tuples(st.just("follow"), st.integers(1, 4)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_disk_and_memory_list_the_same(steps: list[tuple[str, object]]) -> None:
    async def run() -> None:
        clock = ManualClock()
        with tempfile.TemporaryDirectory() as folder:
            ours, model = (
                DiskTier(folder, max_bytes=1 << 20, budget=5.0, clock=clock),
                MemoryTier(clock=clock),
            )
            await ours.open()
            await model.open()
            cursors: dict[bytes, tuple[bytes | None, bytes | None]] = dict.fromkeys(PARTITIONS, (None, None))
            for verb, *words in [*steps, ("follow", 100)]:
                if verb == "advance":
                    clock.advance(words[0])  # type: ignore[arg-type]
                elif verb == "follow":
                    for partition, (here, there) in cursors.items():
                        found, after = await ours.members(partition, here, words[0])  # type: ignore[arg-type]
                        wanted, later = await model.members(partition, there, words[0])  # type: ignore[arg-type]
                        assert found == wanted
                        cursors[partition] = after, later
                else:
                    assert await getattr(ours, verb)(*words) == await getattr(model, verb)(*words)
            for partition in PARTITIONS:
                assert (await ours.members(partition))[0] == (await model.members(partition))[0]
            assert await ours.check() == []
            await ours.aclose()

    anyio.run(run)
