"""What the server runs: conditional writes beside a model of them, at the ends of 64 bits as well."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_fast.testing import MemoryTier
from llmcache_fast.tiers.redis import RedisTier, scripts
from tests.contract.tiers import key, record
from tests.servers.redis import RedisServer

SNAPS = [0, 1, 2, 2**32 - 1, 2**32, 2**32 + 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
EPOCHS = [0, 1, 2**63, 2**64 - 1]

writes = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(EPOCHS[:2]), st.sampled_from(SNAPS)), min_size=1, max_size=8
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), writes),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 2), max_size=3)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@given(steps)
@settings(max_examples=60)
def test_it_does_what_the_plainest_tier_does(
    runner: asyncio.Runner, redis_server: RedisServer, program: list[tuple[str, object]]
) -> None:
    async def run() -> None:
        prefix = f"{random.getrandbits(48):x}:"
        ours, model = RedisTier.from_url(f"{redis_server.url}?budget=5&prefix={prefix}"), MemoryTier()
        await ours.open()
        await model.open()
        numbers = itertools.count()
        for verb, what in program:
            if verb == "put":
                assert isinstance(what, list)
                batch = [record(k, b"%d" % next(numbers), epoch=e, snap=s) for k, e, s in what]
                assert await ours.put_many(batch) == await model.put_many(batch)
            elif verb == "delete":
                assert isinstance(what, list)
                keys = [key(k) for k in what]
                assert await ours.delete_many(keys) == await model.delete_many(keys)
            else:
                assert await ours.clear() == await model.clear()
            all_keys = [key(k) for k in range(3)]
            assert await ours.get_many(all_keys) == await model.get_many(all_keys)
        await ours.clear()
        await ours.aclose()

    runner.run(run())


@pytest.mark.parametrize("epoch", EPOCHS)
def test_every_pair_of_snaps_is_ordered_as_numbers(
    runner: asyncio.Runner, redis_server: RedisServer, redis_prefix: str, epoch: int
) -> None:
    async def run() -> None:
        tier = RedisTier.from_url(f"{redis_server.url}?budget=5&prefix={redis_prefix}")
        await tier.open()
        for first, second in itertools.product(SNAPS, SNAPS):
            await tier.delete_many([key(1)])
            await tier.put_many([record(1, epoch=epoch, snap=first)])
            report = await tier.put_many([record(1, epoch=epoch, snap=second)])
            assert report.superseded == (first > second), (first, second)
        await tier.clear()
        await tier.aclose()

    runner.run(run())


def test_each_text_is_called_by_its_digest() -> None:
    assert len(scripts.TEXTS) == 10
    assert all(len(digest) == 40 for digest in scripts.TEXTS)
    assert all(text.startswith(b"-- ") for text in scripts.TEXTS.values())
