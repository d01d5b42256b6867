"""Messages among processes of one machine: hostile ones too, and the lives of sockets."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast._core import DiskStore
from llmcache_fast._errors import TierError
from llmcache_fast.tiers import followers
from llmcache_fast.tiers.base import Asked, Message
from llmcache_fast.tiers.disk import DiskTier
from llmcache_fast.tiers.messages import decode, encode
from tests.contract.test_authority_contract import Heard, following


def sockets(folder: Path) -> list[Path]:
    return sorted((folder / "followers").glob("*.sock"))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[DiskTier]:
    tier = DiskTier(folder, budget=5.0)
    await tier.open()
    yield tier
    await tier.aclose()


def send(folder: Path, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        for path in sockets(folder):
            handle = os.open(path.parent, os.O_RDONLY)
            for datagram in datagrams:
                own.sendto(datagram, f"/proc/self/fd/{handle}/{path.name}")
            os.close(handle)


TOP = 2**64 - 1
GOOD = encode(Message(7, 5, 1, 2, (3, 4)))


async def test_hostile_datagrams_are_counted_and_harm_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier, following(tier) as (heard,):
        send(tmp_path, b"", b"\xff" * 60_000, GOOD[:-1], GOOD, os.urandom(500))
        raised = await tier.raise_markers(1, [2])
        messages = await heard.wait_for(2)
        assert messages == [decode(GOOD), (1, raised.epoch, raised.prev, raised.seq, (2,))]
        assert (await tier.stats())["malformed"] == 4


async def test_messages_that_were_overtaken_are_left_out(tmp_path: Path) -> None:
    def at(prev: int, seq: int, epoch: int = 5, namespace: int = 7) -> Message:
        return Message(namespace, epoch, prev, seq, ())

    given = [
        at(1, 2),
        at(3, 4),
        at(2, 3),
        at(3, 4),
        at(8, 9, namespace=8),
        at(1, 2, epoch=6),
        at(4, 5, epoch=6),
    ]
    async with opened(tmp_path) as tier, following(tier) as (heard,):
        send(tmp_path, *(encode(message) for message in given))
        assert await heard.wait_for(5) == [given[n] for n in (0, 1, 4, 5, 6)]


async def test_of_many_namespaces_the_order_of_the_latest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "_NAMESPACES", 3)
    async with opened(tmp_path) as tier, following(tier) as (heard,):
        for namespace in range(20):
            send(tmp_path, encode(Message(namespace, 5, 1, 2, ())))
            await heard.wait_for(namespace + 1)
        send(tmp_path, encode(Message(19, 5, 0, 1, ())), encode(Message(0, 5, 2, 3, ())))
        assert (await heard.wait_for(21))[-1].namespace == 0


async def test_sockets_are_their_owners_alone_and_go_with_the_follower(tmp_path: Path) -> None:
    async with opened(tmp_path / "tier") as tier:
        async with following(tier, 2):
            there = sockets(tier.path)
            assert len(there) == 2
            assert [stat.S_IMODE(path.stat().st_mode) for path in there] == [0o600] * 2
            assert stat.S_IMODE(there[0].parent.stat().st_mode) == 0o700
        assert sockets(tier.path) == []


async def test_a_folder_of_any_length_can_be_followed(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 50) / "tier"
    assert len(str(folder)) > 200
    async with opened(folder) as tier, following(tier) as (heard,):
        raised = await tier.raise_markers(1, [2])
        assert (await heard.wait_for(1))[0].seq == raised.seq


async def test_a_follower_whose_socket_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "LOOK_EVERY", 0.01)
    async with opened(tmp_path) as tier:
        heard = Heard()

        def delete(message: Message | None) -> None:
            heard(message)
            for path in sockets(tmp_path):
                path.unlink()

        with pytest.raises(TierError, match="follow again") as caught:
            await tier.follow(delete)
        assert caught.value.reason == "lost"
        async with following(tier) as (again,):
            await tier.raise_markers(1, [2])
            await again.wait_for(1)


async def test_a_folder_that_cannot_have_sockets_is_a_failure_of_the_tier(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier:
        (tmp_path / "followers").write_text("a file")
        with pytest.raises(TierError, match="cannot make a socket") as caught:
            await tier.follow(Heard())
        assert caught.value.reason == "io"
        await tier.raise_markers(1, [2])


async def test_who_hears_may_fail_and_the_socket_is_gone(tmp_path: Path) -> None:
    def heard(message: Message | None) -> None:
        raise RuntimeError("planned")

    async with opened(tmp_path) as tier:
        with pytest.raises(RuntimeError, match="planned"):
            await tier.follow(heard)
        assert sockets(tmp_path) == []


FOLLOWER = """
import sys
import anyio
from llmcache_fast.tiers.disk import DiskTier

async def main():
    tier = DiskTier(sys.argv[1], budget=5.0)
    await tier.open()
    await tier.follow(lambda message: print(message and message.targets, flush=True))

anyio.run(main)
"""


def follower(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FOLLOWER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "None\n"
    return process


async def test_another_process_is_told_and_its_death_is_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier:
        process = await anyio.to_thread.run_sync(follower, tmp_path)
        output: Any = process.stdout
        await tier.raise_markers(1, [2, TOP])
        assert await anyio.to_thread.run_sync(output.readline) == f"(2, {TOP})\n"
        process.kill()
        process.wait()
        output.close()
        assert len(sockets(tmp_path)) == 1
        await tier.raise_markers(1, [3])
        assert sockets(tmp_path) == []


async def test_what_a_full_queue_lost_shows_as_a_gap_and_can_be_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier, following(tier) as (heard,):
        epoch, _, start = await tier.raise_markers(1, [0])
        await heard.wait_for(1)
        store = DiskStore(str(tmp_path), 1 << 30, 5.0)
        # The event loop stands still meanwhile, so nobody reads.
        for target in range(1, 600):
            store.raise_markers(1, [target], [], [], 0)
        lost = store.stats()["untold"]
        assert lost > 0
        told = list(await heard.wait_for(600 - lost))
        last = await tier.raise_markers(1, [600])
        message = (await heard.wait_for(601 - lost))[-1]
        assert (message.seq, message.prev) == (last.seq, last.prev)
        # In order and without a gap up to where the queue was full.
        assert [each.prev for each in told] == [start, *(each.seq for each in told[:-1])]
        assert message.prev != told[-1].seq
        (changes,) = await tier.changes([Asked(1, epoch, told[-1].seq)])
        missed = {target for target, _ in changes.markers}
        assert missed == set(range(len(told), 601))


STORM = """
import sys
from llmcache_fast._core import DiskStore

store = DiskStore(sys.argv[1], 1 << 30, 30.0)
for number in range(100):
    store.raise_markers(1, [int(sys.argv[2]) * 1000 + number], [], [], 0)
"""


async def test_of_raises_in_several_processes_at_once_the_order_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier, following(tier) as (heard,):
        async with anyio.create_task_group() as group:
            for number in range(3):
                command = [sys.executable, "-c", STORM, str(tmp_path), str(number)]
                group.start_soon(anyio.run_process, command)
        # The queue is empty then, and takes the last message.
        await anyio.wait_all_tasks_blocked()
        last = await tier.raise_markers(1, [9_999])
        with anyio.fail_after(30):
            while not heard.messages or heard.messages[-1].seq != last.seq:
                await heard.wait_for(len(heard.messages) + 1)
        seqs = [message.seq for message in heard.messages]
        assert seqs == sorted(set(seqs))
        (changes,) = await tier.changes([Asked(1)])
        there = dict(changes.markers)
        assert len(there) == 301
        assert all(there[target] == m.seq for m in heard.messages for target in m.targets or ())
