"""Deferred invalidations on disk: what is owed survives, what is delivered goes."""

from __future__ import annotations

import base64
import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmcache_fast import _core
from llmcache_fast._errors import TierError
from llmcache_fast.actors import deferred
from llmcache_fast.actors.deferred import Deferral, DeferredLog

pytestmark = pytest.mark.anyio

RULE = b"content/*/2024-*--"
SPACE = _core.Engine._namespace_id("shop")
RING = _core.Keyring([bytes(range(32))])


def log_in(folder: Path, authority: str = "postgres", **options: Any) -> DeferredLog:
    return DeferredLog(folder, authority=authority, **options)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def gone(log: DeferredLog) -> None:
    """The process ends as SIGKILL ends it: nothing is written, the lock is free."""
    log.leave()


async def owed_in(folder: Path, **options: Any) -> set[Deferral]:
    log = log_in(folder, **options)
    found = await log.open()
    await log.aclose()
    return set(found)


async def test_what_is_owed_is_found_by_the_next_process(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert await log.open() == []
    assert await log.add("shop", [1, 2**64 - 1])
    assert await log.add("other", [3], [RULE])
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", (1, 2**64 - 1)), Deferral("other", (3,), (RULE,))}
    # It was taken over by a process that ended without delivering.
    assert len(await owed_in(tmp_path)) == 2


async def test_nothing_is_left_of_what_was_delivered(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1, 2], [RULE])
    through = log.begin()
    await log.delivered("shop", [1], through=through)
    assert log.statistics().pending == 2
    await gone(log)
    log = log_in(tmp_path)
    assert await log.open() == [Deferral("shop", (2,), (RULE,))]
    await log.delivered("shop", [2], [RULE], through=log.begin())
    assert files_in(tmp_path) == []
    await log.delivered("shop", [2], through=log.begin())
    await log.aclose()
    assert await owed_in(tmp_path) == set()


async def test_what_is_invalidated_again_while_it_is_delivered_is_owed_again(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1, 2])
    through = log.begin()
    await log.add("shop", [2])
    await log.delivered("shop", [1, 2], through=through)
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", (2,))}


async def test_the_delivery_of_a_namespace_settles_all_of_it(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1, 2])
    await log.add("other", [1])
    await log.add("shop", [SPACE])
    await log.delivered("shop", [SPACE], through=log.begin())
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("other", (1,))}


async def test_too_many_targets_become_their_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred, "MAX_KEPT", 3)
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1, 2, 3])
    await log.add("shop", [4])
    await log.add("shop", [5])
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", (SPACE,))}


async def test_the_same_again_costs_no_write_and_much_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred, "_SLACK", 10)
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1])
    (file,) = files_in(tmp_path)
    size = file.stat().st_size
    for _ in range(50):
        assert await log.add("shop", [1])
    assert file.stat().st_size == size
    for _ in range(50):
        log.begin()
        assert await log.add("shop", [1])
    (newer,) = files_in(tmp_path)
    assert newer != file
    assert newer.stat().st_size < 20 * size
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", (1,))}


async def test_those_who_add_at_once_share_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    log = log_in(tmp_path)
    await log.open()
    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(log.add, "shop", [number])
    assert syncs < 10
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", tuple(range(100)))}


async def test_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    one, other = log_in(tmp_path), log_in(tmp_path)
    await one.open()
    await one.add("shop", [1])
    assert await other.open() == []
    await one.aclose()
    assert await other.adopt() == [Deferral("shop", (1,))]
    assert other.statistics().adopted == 1
    await other.aclose()


async def test_what_another_authority_is_owed_is_left_alone(tmp_path: Path) -> None:
    log = log_in(tmp_path, "redis")
    await log.open()
    await log.add("shop", [1])
    await gone(log)
    assert await owed_in(tmp_path) == set()
    assert await owed_in(tmp_path, authority="redis") == {Deferral("shop", (1,))}


async def test_with_keys_nothing_can_be_read_or_made_up_without_them(tmp_path: Path) -> None:
    log = log_in(tmp_path, keyring=RING)
    await log.open()
    await log.add("shop-secret", [1], [RULE])
    await gone(log)
    (file,) = files_in(tmp_path)
    lines = file.read_bytes().splitlines()[1:]
    assert b"shop" not in b"".join(map(base64.b64decode, lines))
    for other in (None, _core.Keyring([bytes(32)])):
        assert await owed_in(tmp_path, keyring=other) == set()
    assert file.exists()
    forged = log_in(tmp_path / "forged")
    await forged.open()
    await forged.add("shop", [9])
    await gone(forged)
    (made,) = files_in(tmp_path / "forged")
    made.rename(tmp_path / made.name)
    assert await owed_in(tmp_path, keyring=RING) == {Deferral("shop-secret", (1,), (RULE,))}


async def test_a_disk_that_fails_is_counted_and_all_is_written_when_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    log = log_in(tmp_path)
    await log.open()
    assert await log.add("shop", [1])
    real, full = os.write, True

    def write(descriptor: int, data: Any) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    assert not await log.add("shop", [2])
    assert not await log.add("shop", [2])
    assert log.statistics().failures == 2
    assert "not durable" in caplog.text
    full = False
    assert await log.add("shop", [3])
    await gone(log)
    assert await owed_in(tmp_path) == {Deferral("shop", (1, 2, 3))}


async def test_a_folder_that_cannot_be_used_is_a_tier_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    log = log_in(tmp_path / "file" / "below")
    assert await log.open() == []
    assert not await log.add("shop", [1])

    def refused(_folder: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(TierError, match="Permission denied"):
        await log_in(tmp_path).open()


@contextlib.contextmanager
def forked_child() -> Iterator[None]:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    yield
    os.write(done[1], b".")
    os.waitpid(child, 0)


async def test_a_forked_child_does_not_hold_what_the_parent_owed(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    await log.open()
    await log.add("shop", [1])
    with forked_child():
        await gone(log)
        assert await owed_in(tmp_path) == {Deferral("shop", (1,))}
