"""The Redis tier beyond the contract: its address, its ways in, what it leaves on the server, its clock."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from llmcache_fast import LLMCache
from llmcache_fast._entry import NEVER
from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import Message, StoredRecord
from llmcache_fast.tiers.redis import RedisTier
from llmcache_fast.tiers.redis.address import Address
from tests.contract.clocks import clock_of, markers_of, raise_markers
from tests.contract.tiers import key, record
from tests.servers.redis import Certificate, RedisServer, StartRedis

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisTier]:
    tier = RedisTier.from_url(url, **options)
    await tier.open()
    try:
        yield tier
    finally:
        await tier.aclose()


# -- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://10.0.0.1", Address(host="10.0.0.1")),
        ("redis://h:7000/3", Address(host="h", port=7000, db=3)),
        ("redis://user:p%40ss@h", Address(host="h", username="user", password="p@ss")),
        ("rediss://:secret@h:1", Address(host="h", port=1, tls=True, password="secret")),
        ("redis+cluster://h", Address(host="h", cluster=True)),
        ("rediss+cluster://h", Address(host="h", cluster=True, tls=True)),
        ("redis+unix:///run/redis%20a.sock?db=2", Address(path="/run/redis a.sock", db=2)),
        (
            "redis://h?prefix=app:&max_connections=3&budget=0.2",
            Address(host="h", prefix="app:", max_connections=3, budget=0.2),
        ),
        (f"rediss://h?ca={__file__}", Address(host="h", tls=True, ca=__file__)),
    ],
)
def test_addresses(url: str, expected: Address) -> None:
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis:///0", "names no host"),
        ("http://h", "not a Redis tier's address"),
        ("redis://h:port", "malformed"),
        ("redis://h/one", "whole number"),
        ("redis://h?bugdet=1", "unknown option 'bugdet'"),
        ("redis://h?budget=soon", "number of seconds"),
        ("redis://h?budget=0", "positive"),
        ("redis://h?max_connections=0", "1 or more"),
        ("redis://h?prefix=", "1 to 64 bytes"),
        ("redis://h?prefix={a}", "braces"),
        ("redis://h?ca=/x", "rediss://"),
        ("rediss://h?ca=/nowhere", "no file /nowhere"),
        ("redis+unix://h/path", "three slashes"),
        ("redis+cluster://h/1", "only database 0"),
    ],
)
def test_addresses_that_cannot_work_say_what_to_write(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RedisTier.from_url(url)


async def test_credentials_are_shown_nowhere(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server = start_redis("--requirepass", "right")
    url = server.url.replace("://", "://someone:hunter2@")
    said: list[str] = []
    for wrong in (f"{url}?nonsense=1", url.replace("/0", "/x"), url.replace("redis:", "radish:")):
        with pytest.raises(ConfigurationError) as refused:
            RedisTier.from_url(wrong)
        said.append(str(refused.value))
    tier = RedisTier.from_url(url)
    said += [repr(tier), str(tier.address), repr(tier.address)]
    with pytest.raises(TierUnavailableError, match="refused the credentials") as denied:
        await tier.open()
    assert denied.value.reason == "auth"
    said += [repr(denied.value), str(denied.value), caplog.text, *capsys.readouterr()]
    server.stop()
    assert [text for text in said if "hunter2" in text or "someone" in text] == []


async def test_without_the_extra_the_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llmcache_fast.tiers.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'llmcache-fast\[redis\]'"):
        LLMCache(tiers=["redis://127.0.0.1:1"])


# -- ways in ------------------------------------------------------------------------------------------


async def works(url: str) -> None:
    """All that the tier does."""
    async with opened(url) as tier:
        assert await tier.put_many([record(n, b"%d" % n) for n in range(3)]) == (3, 0, 0)
        assert await tier.get_many([key(2), key(0)]) == [b"2", b"0"]
        assert await tier.delete_many([key(0)], (1, 20)) == 1
        stamp = await raise_markers(tier, 1, [2, 3])
        assert await clock_of(tier, 1) == stamp
        assert len(await markers_of(tier, 1, 0)) == 2
        assert await tier.get_or_lease_many([key(1), key(5)], b"me", 9) == [(b"1", False), (None, True)]
        assert await tier.renew_leases([key(5)], b"me", 9) == [True]
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(tier.lease_released, key(5))
                await anyio.wait_all_tasks_blocked()
                await tier.release_leases([key(5)], b"me")
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                heard: list[Message | None] = []
                group.start_soon(tier.follow, heard.append)
                while not heard:
                    await checkpoint()
                raised = await tier.raise_markers(1, [1], [b"r" * 17], forget=[b"s" * 17])
                await tier.tell(Message(9, 1, 2, 3, (4,)))
                while len(heard) < 3:
                    await checkpoint()
                group.cancel_scope.cancel()
        assert heard == [
            None,
            Message(1, raised.epoch, raised.prev, raised.seq, None),
            Message(9, 1, 2, 3, (4,)),
        ]
        found, cursor = await tier.scan()
        while cursor is not None:
            more, cursor = await tier.scan(cursor)
            found += more
        assert sorted(found) == sorted([(key(1), b"1"), (key(2), b"2")])
        assert await tier.discard_many([(key(1), 1, 10), (key(2), 1, 9)]) == 1
        member = record(5)._replace(partition=bytes(32))
        assert await tier.put_many([member, member]) == (2, 0, 0)
        assert (await tier.members(bytes(32)))[0] == [key(5)]
        await tier.delete_many([key(5)])
        assert (await tier.members(bytes(32)))[0] == []
        assert await tier.clear() == 1


def test_the_page_prints_the_permissions() -> None:
    assert acl("lc:") in (ROOT / "docs" / "how-to" / "redis.md").read_text()


def acl(prefix: str) -> str:
    """The permissions a tier of this prefix needs; docs/how-to/redis.md prints them."""
    return (
        f"resetkeys ~{prefix}* resetchannels &{prefix}released &{prefix}raised -@all "
        "+ping +select +mget +get +getrange +set +del +pexpire +pttl +persist +time +publish +subscribe "
        "+scan +evalsha +eval +zrange +zrangebyscore +zadd +zrem +zcard +zscore +zremrangebyrank"
    )


async def test_the_least_permissions_are_enough(start_redis: StartRedis) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "cache", "on", ">secret", *acl("lc:").split())
    server.command("ACL", "SETUSER", "default", "resetpass", ">x", "-@all")
    await works(server.url.replace("://", "://cache:secret@").replace("/0", "/1"))


async def test_what_is_denied_is_said(start_redis: StartRedis) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "cache", "on", ">secret", *acl("lc:").replace("+mget", "").split())
    async with opened(server.url.replace("://", "://cache:secret@")) as tier:
        await tier.put_many([record(1)])
        with pytest.raises(TierUnavailableError, match="prints the permissions") as caught:
            await tier.get_many([key(1)])
        assert caught.value.reason == "denied"
        assert await tier.put_many([record(2)]) == (1, 0, 0)
        # An older version's permissions: the channel is new.
        server.command("ACL", "SETUSER", "cache", "resetchannels", "&lc:released")
        with pytest.raises(TierUnavailableError) as caught:
            await raise_markers(tier, 1, [1])
        assert caught.value.reason == "denied"


async def test_tls(start_redis: StartRedis, certificate: Certificate) -> None:
    server = start_redis(tls=certificate)
    await works(f"{server.url}?ca={certificate.cert}")
    with pytest.raises(TierUnavailableError) as stranger:
        await RedisTier.from_url(server.url).open()
    assert stranger.value.reason == "tls"


async def test_a_unix_socket(start_redis: StartRedis) -> None:
    server = start_redis()
    await works(f"redis+unix://{server.socket_path}?db=1")


async def test_a_cache_finds_its_tier_by_the_address(redis_server: RedisServer, redis_prefix: str) -> None:
    url = f"{redis_server.url}?prefix={redis_prefix}&budget=5"
    async with LLMCache(tiers=[url]) as writer:
        await writer.set({"q": 1}, "answer")
        await writer.flush()
    async with LLMCache(tiers=[url]) as reader:
        assert await reader.get({"q": 1}) == "answer"
        assert (await reader.invalidate(key=reader.fingerprint({"q": 1}))).deferred is False
    async with LLMCache(tiers=[url]) as late:
        assert await late.get({"q": 1}) is None


# -- what is on the server ----------------------------------------------------------------------------


async def test_records_expire_by_a_span_of_this_clock(start_redis: StartRedis) -> None:
    server = start_redis()
    clock = ManualClock()  # years behind the server's
    async with opened(server.url, clock=clock) as tier:
        lives = {1: clock() + 90_000_500, 2: NEVER, 3: clock() - 1, 4: clock() + 1}
        await tier.put_many([record(number, stale_until=until) for number, until in lives.items()])
        # Bytes in hexadecimal: an argument of a command line cannot hold each of them.
        script = (
            "local raw = string.gsub(ARGV[1], '..', function(x) return string.char(tonumber(x, 16)) end) "
            "return redis.call('PTTL', 'lc:r' .. raw)"
        )
        spans = {n: int(server.command("EVAL", script, "0", key(n).hex())) for n in lives}
        assert 80_000 < spans[1] <= 90_001
        assert spans[2] == -1
        assert 0 < spans[3] <= 1000
        assert 0 < spans[4] <= 1000


async def test_clear_takes_its_own_and_no_more(redis_server: RedisServer, redis_prefix: str) -> None:
    url = redis_server.url + "?budget=5&prefix="
    async with opened(f"{url}{redis_prefix}*") as star, opened(f"{url}{redis_prefix}x") as other:
        many = [record(n) for n in range(1200)]
        await star.put_many(many)
        await other.put_many(many[:5])
        assert await star.clear() == 1200
        assert await star.clear() == 0
        assert await other.clear() == 5


async def test_a_full_server_says_so(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    async with opened(server.url + "?budget=5") as tier:
        with pytest.raises(TierError) as full:
            for n in range(100):
                await tier.put_many([StoredRecord(key(n), bytes(100_000), 1, 1, NEVER, 0)])
        assert full.value.reason == "full"
        assert (await tier.get_many([key(0)]))[0] is not None


async def test_a_script_that_was_forgotten_is_taught_again(start_redis: StartRedis) -> None:
    server = start_redis()
    async with opened(server.url + "?budget=5") as tier:
        for _ in range(2):
            server.command("SCRIPT", "FLUSH")
            assert await tier.put_many([record(n) for n in range(200)]) == (200, 0, 0)
            assert await tier.put_many([record(n, snap=1) for n in range(200)]) == (0, 200, 0)


async def test_large_values_and_many_keys_at_once(redis_server: RedisServer, redis_prefix: str) -> None:
    async with opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}") as tier:
        large = [record(n, os.urandom(1 << 20)) for n in range(12)]
        small = [record(100 + n, b"%d" % n) for n in range(3000)]
        assert await tier.put_many([*large, *small]) == (3012, 0, 0)
        assert await tier.get_many([r.key for r in large]) == [r.envelope for r in large]
        assert await tier.get_many([r.key for r in small]) == [r.envelope for r in small]
        await tier.clear()


async def test_a_key_that_is_no_fingerprint_is_a_mistake_not_a_failure(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as tier:
        with pytest.raises(ValueError, match="32 bytes, this one has 5"):
            await tier.get_many([b"short"])


# -- the clock ----------------------------------------------------------------------------------------


async def test_the_clock_is_the_servers_and_goes_up_one_at_least(
    redis_server: RedisServer, redis_prefix: str
) -> None:
    async with opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}", clock=ManualClock()) as tier:
        before = time.time_ns() // 1000
        epoch, start = await clock_of(tier, 7)
        assert abs(start - before) < 60_000_000
        seqs = [(await raise_markers(tier, 7, [n])) for n in range(50)]
        assert {e for e, _ in seqs} == {epoch}
        assert all(a < b for (_, a), (_, b) in pairwise(seqs))
        assert await markers_of(tier, 7, seqs[47][1]) == [(48, seqs[48][1]), (49, seqs[49][1])]


async def test_a_server_that_comes_back_empty_or_older_begins_a_new_epoch(start_redis: StartRedis) -> None:
    server = start_redis()
    async with opened(server.url + "?budget=5") as tier:

        async def clock() -> tuple[int, int]:
            with anyio.fail_after(30):
                while True:
                    try:
                        return await clock_of(tier, 1)
                    except TierError:
                        await checkpoint()

        first = await raise_markers(tier, 1, [1])
        server.restart()
        assert await clock() == first
        assert await markers_of(tier, 1, 0) == [(1, first[1])]
        copy = (server.folder / "dump.rdb").read_bytes()
        await raise_markers(tier, 1, [2])
        server.stop()
        (server.folder / "dump.rdb").write_bytes(copy)
        server.restart()
        older = await clock()
        assert older[0] != first[0]
        assert older[1] > first[1]
        assert await markers_of(tier, 1, 0) == []
        server.restart(empty=True)
        assert (await clock())[0] not in (first[0], older[0])


async def test_too_many_markers_become_one_of_the_namespace(
    redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcache_fast.tiers.redis.clocks.MAX_MARKERS", 10)
    async with opened(f"{redis_server.url}?budget=5&prefix={redis_prefix}") as tier:
        seqs = {target: (await raise_markers(tier, 99, [target]))[1] for target in range(40)}
        markers = await markers_of(tier, 99, 0)
        assert len(markers) <= 10
        kept = dict(markers)
        floor = kept.pop(99)
        assert kept == {target: seq for target, seq in seqs.items() if target in kept}
        # Whatever is gone is covered: the floor invalidates all that those markers did.
        assert all(seq <= floor for target, seq in seqs.items() if target not in kept)
        assert min(kept.values()) > floor
        before = await clock_of(tier, 99)
        epoch, _, prev = await tier.raise_markers(99, [])
        assert (epoch, prev) == before


def test_another_event_loop_is_named() -> None:
    tier = RedisTier.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(TierUnavailableError, match="runs on asyncio"):
        trio.run(tier.open)
