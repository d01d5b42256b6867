"""Tiers that a command looks into: which ones an argument names, and opening them without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import anyio

from llmcache_fast._addresses import tiers_of
from llmcache_fast._core import Clock
from llmcache_fast._errors import ConfigurationError, TierError
from llmcache_fast._secrecy import Secrecy
from llmcache_fast._wire import Wire
from llmcache_fast.cli.output import Exit, stop
from llmcache_fast.tiers.base import Tier
from llmcache_fast.tiers.disk import DiskTier

T = TypeVar("T")

PATIENCE = 5
"""Seconds of a server's budget, if its address says none: here nobody waits for milliseconds."""


def is_address(target: str) -> bool:
    """Whether this is an address, and not the path of a folder."""
    return "://" in target or target.startswith("disk:")


def looking(address: str) -> str:
    """The address for one who only looks: nothing is made there, and an answer may take its time."""
    scheme, given = urlsplit(address).scheme, parse_qs(urlsplit(address).query)
    if scheme == "disk":
        return address
    options = [] if "budget" in given else [f"budget={PATIENCE}"]
    if scheme in ("postgresql", "postgres"):
        options.append("migrate=0")
    return address + ("&" if given else "?") + "&".join(options) if options else address


def tiers_at(target: str) -> list[Tier]:
    """The tiers of a folder, or of addresses parted by commas as in `LLMCACHE_TIERS`.

    Ends the command when there can be none, or no disk tier in a folder. No message shows a password.
    """
    words = [word for each in target.split(",") if (word := each.strip())]
    found = []
    for word in words:
        try:
            tier = _tier_at(word)
        except ConfigurationError as problem:
            stop(Exit.USAGE, str(problem))
        if isinstance(tier, DiskTier) and not (tier.path / "cache.sqlite3").exists():
            stop(Exit.FOUND, f"{tier.path}: there is no disk tier here")
        found.append(tier)
    return found


def _tier_at(word: str) -> Tier:
    return tiers_of([looking(word)], Clock())[0] if is_address(word) else DiskTier(Path(word).absolute())


def with_tiers(tiers: list[Tier], work: Callable[[list[Tier]], Coroutine[Any, Any, T]]) -> T:
    """Run something on tiers that are open meanwhile; ends the command when one of them fails."""

    async def main() -> T:
        opened: list[Tier] = []
        try:
            for tier in tiers:
                await tier.open()
                opened.append(tier)
            return await work(tiers)
        finally:
            for tier in opened:
                await tier.aclose()

    try:
        return anyio.run(main)
    except TierError as problem:
        stop(Exit.ENVIRONMENT, str(problem))


def wire() -> Wire:
    """How the cache that `LLMCACHE_KEYS` and the like configure writes its records."""
    try:
        return Wire(Secrecy.from_environment())
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
