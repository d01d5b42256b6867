"""The way to the right node of a cluster: slots, redirections, nodes that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest
from redis.crc import key_slot

from llmcache_fast._errors import TierError
from llmcache_fast.tiers.redis import RedisTier
from llmcache_fast.tiers.redis.address import Address
from llmcache_fast.tiers.redis.links import Server
from llmcache_fast.tiers.redis.routing import Cluster, Single
from tests.contract.clocks import clock_of
from tests.contract.tiers import key, record
from tests.servers.redis import RedisCluster, RedisServer, free_port


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster.start(tmp_path_factory.mktemp("own"))
    yield cluster
    cluster.stop()


@pytest.fixture
async def tier(own_cluster: RedisCluster, redis_prefix: str, anyio_backend: str) -> AsyncIterator[RedisTier]:
    tier = RedisTier.from_url(f"{own_cluster.url}?budget=5&prefix={redis_prefix}")
    await tier.open()
    yield tier
    await tier.aclose()


def slot_of(tier: RedisTier, number: int) -> int:
    return key_slot(tier._key(key(number)))


def test_a_record_and_its_lease_are_of_one_slot_whatever_the_fingerprint() -> None:
    tier = RedisTier.from_url("redis+cluster://h")
    for first in range(256):
        for fingerprint in (bytes([first]) * 32, bytes([first]) + key(first)[1:]):
            assert key_slot(tier._key(fingerprint)) == key_slot(tier._lease_key(fingerprint))
    alone = RedisTier.from_url("redis://h")
    assert len(alone._key(key(1))) == 36


async def test_entries_are_spread_over_all_primaries(tier: RedisTier, own_cluster: RedisCluster) -> None:
    await tier.put_many([record(n) for n in range(200)])
    sizes = [int(node.command("DBSIZE")) for node in own_cluster.primaries()]
    assert len(sizes) == 3
    assert all(size > 20 for size in sizes)
    assert await tier.clear() == 200


async def test_a_slot_on_its_way_is_followed(tier: RedisTier, own_cluster: RedisCluster) -> None:
    await tier.put_many([record(1, b"before")])
    slot = str(slot_of(tier, 1))
    ids = {node: node.command("CLUSTER", "MYID") for node in own_cluster.primaries()}
    source = next(node for node in ids if node.command("CLUSTER", "COUNTKEYSINSLOT", slot) == "1")
    target = next(node for node in ids if node is not source)
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    # What is there is answered; what is not, is asked of the other (ASK).
    assert await tier.get_many([key(1)]) == [b"before"]
    assert await tier.delete_many([key(1)]) == 1
    assert await tier.put_many([record(1, b"moved")]) == (1, 0, 0)
    assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot) == "1"
    assert await tier.get_many([key(1), key(2)]) == [b"moved", None]
    for node in (target, source, *(node for node in ids if node not in (source, target))):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    # MOVED from now on, and then no more.
    assert await tier.get_many([key(1)]) == [b"moved"]
    assert isinstance(tier._route, Cluster)
    server = tier._route._slots[int(slot)]
    assert server is not None
    assert server.address.port == target.port


async def missing(tier: RedisTier, keys: list[bytes]) -> bool:
    try:
        return None in await tier.get_many(keys)
    except TierError:  # all nodes say that the cluster is down
        return True


async def test_of_a_node_that_fails_only_its_entries_are_missing_until_its_replica_takes_over(
    tier: RedisTier, own_cluster: RedisCluster
) -> None:
    await tier.put_many([record(n, b"%d" % n) for n in range(60)])
    route = tier._route
    assert isinstance(route, Cluster)
    owners = {n: route._slots[slot_of(tier, n)] for n in range(60)}
    seed = own_cluster.nodes[0].port
    victim = next(node for node in own_cluster.primaries() if node.port != seed)
    lost = {n for n, server in owners.items() if server is not None and server.address.port == victim.port}
    assert 0 < len(lost) < 60
    # Replication is not awaited by a write.
    for node in own_cluster.primaries():
        assert int(node.command("WAIT", "1", "10000")) >= 1
    victim.stop()
    keys = [key(n) for n in range(60)]
    assert await tier.get_many(keys) == [None if n in lost else b"%d" % n for n in range(60)]
    with pytest.raises(TierError):
        await tier.put_many([record(n) for n in lost])
    with anyio.fail_after(60):
        while await missing(tier, keys):  # noqa: ASYNC110 - other processes agree on it
            await anyio.sleep(0.05)
        assert await tier.put_many([record(n, b"again") for n in lost]) == (len(lost), 0, 0)
    victim.restart()


async def test_a_node_that_is_of_no_cluster_says_so(redis_server: RedisServer) -> None:
    cluster = Cluster(Address(port=redis_server.port, cluster=True))
    with pytest.raises(TierError) as caught:
        await cluster.open(5)
    assert caught.value.reason == "refused"
    await cluster.aclose()


@pytest.mark.parametrize("kind", [Single, Cluster])
async def test_where_nobody_listens_all_fail(kind: Callable[[Address], Single | Cluster]) -> None:
    tier = RedisTier(Address(port=free_port(), cluster=kind is Cluster))
    await tier.open()  # logs, and tries again with each call
    for call in (tier.get_many([key(1)]), tier.put_many([record(1)]), clock_of(tier, 1)):
        with pytest.raises(TierError) as caught:
            await call
        assert caught.value.reason in ("down", "cluster")
    await tier.aclose()


async def test_one_server_is_all_there_is(redis_server: RedisServer) -> None:
    single = Single(Address.parse(redis_server.url))
    await single.open(5)
    assert single.slot(key(1)) == single.slot(key(2))
    assert single.primaries() == single.servers()
    assert [type(server) for server in single.servers()] == [Server]
    await single.aclose()
