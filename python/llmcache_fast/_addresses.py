"""Addresses of tiers: which tier a URL names.

What belongs here: schemes and their tiers. What does not: the options of an address (each tier's `from_url`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmcache_fast._core import Clock
from llmcache_fast._errors import ConfigurationError
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.disk import DiskTier


def tiers_of(tiers: Sequence[str | Tier], clock: Clock) -> list[Tier]:
    """The tiers that addresses name; objects are taken as they are.

    Raises:
        ConfigurationError: no list, or an address of no tier of this version.
    """
    if isinstance(tiers, str) or not isinstance(tiers, Iterable):
        raise ConfigurationError("tiers: must be a list, such as ['disk:///var/lib/app/cache']")
    return [_tier_of(tier, clock) if isinstance(tier, str) else tier for tier in tiers]


def _tier_of(address: str, clock: Clock) -> Tier:
    scheme = address.split(":", 1)[0]
    if scheme == "disk":
        return DiskTier.from_url(address, clock=clock)
    if scheme in ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+unix"):
        return _redis_tier(address, clock)
    if scheme in ("postgresql", "postgres"):
        return _postgres_tier(address)
    raise ConfigurationError(
        f"tiers: {scheme!r} is no tier; known are disk:///absolute/path, redis://host:port/db and "
        "postgresql://user@host/database"
    )


def _redis_tier(address: str, clock: Clock) -> Tier:
    # The drivers are extras: imported when an address names their tier.
    try:
        from llmcache_fast.tiers.redis import RedisTier
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"tiers: a redis:// tier needs {missing.name}: pip install 'llmcache-fast[redis]'"
        ) from None
    return RedisTier.from_url(address, clock=clock)


def _postgres_tier(address: str) -> Tier:
    try:
        from llmcache_fast.tiers.postgres import PostgresTier
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"tiers: a postgresql:// tier needs {missing.name}: pip install 'llmcache-fast[postgres]'"
        ) from None
    return PostgresTier.from_url(address)
