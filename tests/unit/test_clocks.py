"""Clocks of Redis and Postgres beyond the contract: round trips, bounds, and what a restored copy means."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.base import Asked, Message, Raised
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier, scripts
from tests.contract.clocks import clock_of
from tests.faults.frames import postgres_reply, resp_reply
from tests.faults.proxy import Proxy
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisServer

Make = Callable[[], Awaitable[Any]]
SPACE = 2**64 - 7


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_prefix: str) -> str:
    return f"{redis_server.url}?budget=5&prefix={redis_prefix}"


@pytest.fixture(params=["redis", "postgres"])
async def make(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Make]:
    """Makes tiers that share a server, as processes do."""
    made: list[Any] = []
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    else:
        url = request.getfixturevalue("postgres_url") + "?budget=5"

    async def one() -> Any:
        tier = RedisTier.from_url(url) if request.param == "redis" else PostgresTier.from_url(url)
        await tier.open()
        made.append(tier)
        return tier

    yield one
    for tier in made:
        await tier.aclose()


@pytest.fixture
def roll_back(request: pytest.FixtureRequest) -> Callable[[Any], Callable[[], Any]]:
    """Takes a copy of what the server holds of `SPACE`; what it returns restores that."""

    def copy(tier: Any) -> Callable[[], Any]:
        if isinstance(tier, RedisTier):
            client = redis.Redis(port=tier.address.port)
            name = tier.address.prefix.encode() + b"c" + SPACE.to_bytes(8)
            data: Any = client.dump(name)
            return lambda: client.restore(name, 0, data, replace=True)
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = request.getfixturevalue("postgres_url").rpartition("/")[2]
        seq = server.execute("SELECT max(seq) FROM llmcache.clocks", database)
        undo = "".join(f"DELETE FROM llmcache.{table} WHERE seq > {seq};" for table in ("markers", "rules"))
        return lambda: server.execute(f"{undo} UPDATE llmcache.clocks SET seq = {seq}", database)

    return copy


def rule(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


# -- round trips --------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 300])
async def test_an_invalidation_is_one_round_trip_to_redis(
    redis_server: RedisServer, redis_url: str, targets: int
) -> None:
    async with Proxy(redis_server.port, resp_reply) as proxy:
        tier = RedisTier.from_url(redis_url.replace(f":{redis_server.port}/", f":{proxy.port}/"))
        await tier.open()
        await tier.raise_markers(SPACE, [1], [rule(1)])
        await tier.changes([Asked(1)])
        proxy.counts.clear()
        await tier.raise_markers(SPACE, range(targets), [rule(2)], forget=[rule(1)])
        assert proxy.counts["replies"] == 2, "the script's and that of the PING that ends each round trip"
        await tier.changes([Asked(number) for number in range(20)])
        assert proxy.counts["replies"] == 2 + 21
        await tier.aclose()


@pytest.mark.parametrize("targets", [1, 300])
async def test_an_invalidation_is_one_round_trip_to_postgres(
    postgres_server: PostgresServer, postgres_url: str, targets: int
) -> None:
    async with Proxy(postgres_server.port, postgres_reply) as proxy:
        url = postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        tier = PostgresTier.from_url(url + "?budget=5&connections=1")
        await tier.open()
        await tier.raise_markers(SPACE, [1], [rule(1)])
        await tier.changes([Asked(1)])  # the statements are prepared now
        proxy.counts.clear()
        await tier.raise_markers(SPACE, range(targets), [rule(2)], forget=[rule(1)])
        assert proxy.counts["replies"] == 1
        await tier.changes([Asked(number) for number in range(20)])
        assert proxy.counts["replies"] == 2
        await tier.aclose()


async def test_namespaces_of_all_nodes_are_asked_at_once(
    redis_cluster: RedisCluster, redis_prefix: str
) -> None:
    tier = RedisTier.from_url(f"{redis_cluster.url}?budget=5&prefix={redis_prefix}")
    await tier.open()
    raised = {space: await tier.raise_markers(space, [space]) for space in range(30)}
    found = await tier.changes([Asked(space, raised[space].epoch, 0) for space in range(30)])
    assert [changes.markers for changes in found] == [[(space, raised[space].seq)] for space in range(30)]
    await tier.aclose()


# -- bounds -------------------------------------------------------------------------------------------


async def holes(tier: Any, *, turns: int = 150) -> list[str]:
    """What was raised and neither is there nor covered by the namespace's own marker, after any raises."""
    rng = random.Random(5)
    markers: dict[int, int] = {}
    rules: dict[bytes, int] = {}
    for _ in range(turns):
        targets = rng.sample(range(60), rng.randint(0, 3))
        added = [rule(number) for number in rng.sample(range(20), rng.randint(0, 2))]
        gone = [rule(number) for number in rng.sample(range(20), rng.randint(0, 2))]
        raised = await tier.raise_markers(SPACE, targets, added, forget=gone)
        for each in gone:
            rules.pop(each, None)
        markers |= dict.fromkeys(targets, raised.seq)
        rules |= dict.fromkeys(added, raised.seq)
    (changes,) = await tier.changes([Asked(SPACE)])
    kept, kept_rules = dict(changes.markers), dict(changes.rules)
    floor = kept.pop(SPACE, 0)
    assert kept.items() <= markers.items(), "a marker stands where none was raised"
    assert kept_rules.items() <= rules.items(), "a rule stands that was forgotten"
    assert len(kept_rules) <= 7
    assert [seq for _, seq in changes.markers] == sorted(seq for _, seq in changes.markers)
    assert [seq for _, seq in changes.rules] == sorted(seq for _, seq in changes.rules)
    lost = [f"marker {target}" for target, seq in markers.items() if target not in kept and seq > floor]
    return lost + [
        f"rule {each.hex()}" for each, seq in rules.items() if each not in kept_rules and seq > floor
    ]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for tier in ("redis", "postgres"):
        monkeypatch.setattr(f"llmcache_fast.tiers.{tier}.clocks.MAX_MARKERS", 20)
        monkeypatch.setattr(f"llmcache_fast.tiers.{tier}.clocks.MAX_RULES", 6)


async def test_what_goes_for_want_of_room_is_covered(make: Make, few: None) -> None:
    tier = await make()
    assert await holes(tier) == []
    (changes,) = await tier.changes([Asked(SPACE)])
    assert SPACE in dict(changes.markers), "nothing had to go"


async def test_a_floor_that_is_not_raised_is_noticed(
    redis_url: str, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = scripts.TEXTS[scripts.RAISE].replace(b"if floor > ", b"if false and floor > ")
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
    monkeypatch.setattr(scripts, "RAISE", digest)
    monkeypatch.setitem(scripts.TEXTS, digest, text)
    tier = RedisTier.from_url(redis_url)
    await tier.open()
    assert await holes(tier) != []
    await tier.aclose()


async def test_a_rule_may_be_any_bytes_of_its_length(make: Make) -> None:
    tier = await make()
    given = [b"\xff" * 17, b"\0" * 1024, b"\xff" * 24, bytes(range(256))]
    epoch, seq, _ = await tier.raise_markers(SPACE, [], given)
    (changes,) = await tier.changes([Asked(SPACE)])
    assert (changes.epoch, changes.seq) == (epoch, seq)
    assert sorted(changes.rules) == sorted((each, seq) for each in given)
    assert await clock_of(tier, SPACE) == (epoch, seq)
    for length in (7, 15, 16, 1025):
        with pytest.raises((ValueError, TierError)):
            await tier.raise_markers(SPACE, [], [b"x" * length])
    await tier.raise_markers(SPACE, [1], forget=given)
    (changes,) = await tier.changes([Asked(SPACE, epoch, 0)])
    assert changes.rules == []


# -- a copy restored ------------------------------------------------------------------------------------


async def lost_write(tier: Any, other: Any, roll_back: Any) -> tuple[Raised, Raised]:
    """Raised and known to both; raised at `other` and lost."""
    kept = await tier.raise_markers(SPACE, [1])
    await other.changes([Asked(SPACE)])
    restore = roll_back(tier)
    lost = await other.raise_markers(SPACE, [2])
    restore()
    return kept, lost


@pytest.mark.parametrize("first", ["changes", "raise_markers"])
async def test_who_saw_a_later_value_begins_the_epoch_that_all_come_to(
    make: Make, roll_back: Any, first: str
) -> None:
    blind, seer, second = await make(), await make(), await make()
    kept, lost = await lost_write(blind, seer, roll_back)
    (before,) = await blind.changes([Asked(SPACE, kept.epoch, kept.seq)])
    assert before.epoch == kept.epoch, "who did not see it has nothing to go by"
    # The second one only heard of it, so the caller knows and the tier does not.
    if first == "changes":
        (noticed,) = await second.changes([Asked(SPACE, lost.epoch, lost.seq)])
    else:
        noticed = await seer.raise_markers(SPACE, [3])
    assert noticed.epoch != kept.epoch
    epochs = {(await clock_of(tier, SPACE))[0] for tier in (blind, seer, second)}
    assert epochs == {noticed.epoch}
    (after,) = await blind.changes([Asked(SPACE, kept.epoch, kept.seq)])
    assert after.epoch == noticed.epoch


async def test_who_heard_a_later_value_begins_a_new_epoch_by_raising(make: Make, roll_back: Any) -> None:
    hearer, other = await make(), await make()
    kept, lost = await lost_write(hearer, other, roll_back)
    hearer._clocks.heard(Message(SPACE, lost.epoch, lost.prev, lost.seq, (2,)))
    raised = await hearer.raise_markers(SPACE, [3])
    assert raised.epoch != kept.epoch
    assert raised.prev < raised.seq


async def test_an_absurd_value_costs_an_epoch_and_not_the_clock(make: Make) -> None:
    """As a forged message may claim."""
    tier = await make()
    epoch, seq, _ = await tier.raise_markers(SPACE, [1])
    (changes,) = await tier.changes([Asked(SPACE, epoch, 2**64 - 1)])
    assert changes.epoch != epoch
    assert changes.seq < 2 * seq
    again = await tier.raise_markers(SPACE, [2])
    assert (again.epoch, again.prev) == (changes.epoch, changes.seq)


async def test_a_value_of_another_epoch_says_nothing(make: Make) -> None:
    tier, other = await make(), await make()
    epoch, seq, _ = await tier.raise_markers(SPACE, [1])
    (changes,) = await other.changes([Asked(SPACE, epoch ^ 1, seq + 10**12)])
    assert (changes.epoch, changes.seq, changes.markers) == (epoch, seq, [(1, seq)])
    tier._clocks.heard(Message(SPACE, epoch ^ 1, 1, seq + 10**12, ()))
    assert (await tier.raise_markers(SPACE, [1])).epoch == epoch
