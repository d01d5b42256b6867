"""The disk tier's own: addresses, refusals, damage, and caches that go on without it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from llmcache_fast import ConfigurationError, LLMCache, TierError, TierUnavailableError
from llmcache_fast.testing import ManualClock
from llmcache_fast.tiers.base import NEVER, StoredRecord
from llmcache_fast.tiers.disk import DEFAULT_MAX_BYTES, DiskTier

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("disk:///var/cache", ("/var/cache", DEFAULT_MAX_BYTES, 0.25)),
        ("disk:///a%20b?max_bytes=2MiB&budget=1.5", ("/a b", 2 << 20, 1.5)),
    ],
)
def test_addresses(url: str, expected: tuple[Any, ...]) -> None:
    tier = DiskTier.from_url(url)
    assert (str(tier.path), tier.max_bytes, tier.budget) == expected


@pytest.mark.parametrize(
    "url",
    ["disk://relative", "disk:relative", "file:///x", "disk:///x#y", "disk:///x?size=1", "disk:///x?max_bytes=1KiB",
     "disk:///x?budget=0", "disk:///x?budget=soon", "disk:///x?budget=inf", "disk:///x?max_bytes=lots"],
)  # fmt: skip
def test_addresses_that_cannot_work_say_what_to_write(url: str) -> None:
    with pytest.raises(ConfigurationError):
        DiskTier.from_url(url)


async def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a letter")
    with pytest.raises(TierUnavailableError) as caught:
        await DiskTier(path).open()
    assert caught.value.tier == "disk"
    assert path.read_text() == "a letter"


async def test_a_cache_goes_on_without_a_tier_that_does_not_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("a letter")

    async def compute() -> str:
        return "computed"

    with caplog.at_level(logging.WARNING, "llmcache_fast"):
        async with LLMCache(tiers=[f"disk://{path}"]) as cache:
            assert await cache.get_or_compute({"q": 1}, compute) == "computed"
            assert await cache.get({"q": 1}) == "computed"
            assert not cache.stats().tiers[0].available
    assert "cannot be used, going on without it" in caplog.text


def damage(folder: Path) -> None:
    database = max(
        (path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size
    )
    bytes_ = bytearray(database.read_bytes())
    bytes_[100:4000] = b"\xa5" * 3900
    database.write_bytes(bytes_)


async def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tier = DiskTier(tmp_path, budget=5.0)
    await tier.open()
    await tier.put_many([StoredRecord(KEY, b"x" * 5000, 1, 1, NEVER, 0)])
    await tier.aclose()
    damage(tmp_path)
    with caplog.at_level(logging.WARNING, "llmcache_fast.disk"):
        again = DiskTier(tmp_path, budget=5.0)
        await again.open()
        assert await again.get_many([KEY]) == [None]
        assert (await again.put_many([StoredRecord(KEY, b"new", 1, 1, NEVER, 0)])).stored == 1
        assert await again.check() == []
        await again.aclose()
    assert "was damaged" in caplog.text


async def test_opening_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, budget=5.0)
    await tier.open()
    await tier.open()
    await tier.aclose()
    await tier.aclose()
    with pytest.raises(TierError) as caught:
        await tier.stats()
    assert caught.value.reason == "closed"


async def test_it_stays_within_its_bytes(tmp_path: Path) -> None:
    clock = ManualClock()
    tier = DiskTier(tmp_path, max_bytes=1 << 20, budget=5.0, clock=clock)
    await tier.open()
    keys = [hashlib.sha256(bytes([number])).digest() for number in range(40)]
    for number, key in enumerate(keys):
        await tier.put_many([StoredRecord(key, bytes([number]) * 50_000, 1, 1, NEVER, 1)])
    stats = await tier.stats()
    assert stats["bytes"] <= 1 << 20
    assert stats["evicted"] > 0
    assert (await tier.get_many(keys[-1:]))[0] is not None, "the newest is there"
    await tier.aclose()
