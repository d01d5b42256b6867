"""Addresses of tiers, and what is said of those that are none."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from llmcache_fast import ConfigurationError
from llmcache_fast._addresses import tiers_of
from llmcache_fast.testing import ManualClock, MemoryTier
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.disk import DiskTier
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.redis import RedisTier


def test_addresses_become_tiers() -> None:
    double = MemoryTier()
    addresses: list[str | Tier] = [
        "disk:///x/y?max_bytes=2MiB",
        double,
        "redis://127.0.0.1",
        "postgresql://127.0.0.1/llm",
    ]
    disk, same, redis, postgres = tiers_of(addresses, ManualClock())
    assert isinstance(disk, DiskTier)
    assert (str(disk.path), disk.max_bytes) == ("/x/y", 2 << 20)
    assert same is double
    assert isinstance(redis, RedisTier)
    assert isinstance(postgres, PostgresTier)


@pytest.mark.parametrize("wrong", ["disk:///x", 5, ["ftp://x"], ["redis"], ["postgresql+psycopg://x"]])
def test_what_is_no_address_is_said_to_be_none(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="tiers: "):
        tiers_of(wrong, ManualClock())


@pytest.mark.parametrize(
    ("address", "driver", "extra"),
    [("redis://127.0.0.1", "redis", "redis"), ("postgresql://127.0.0.1/llm", "asyncpg", "postgres")],
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    address: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(f"llmcache_fast.tiers.{extra}"):
            monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == driver:
                raise ModuleNotFoundError(f"No module named {name!r}", name=driver)

    for name in list(sys.modules):
        if name.partition(".")[0] == driver:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(ConfigurationError, match=rf"pip install 'llmcache-fast\[{extra}\]'"):
        tiers_of([address], ManualClock())
