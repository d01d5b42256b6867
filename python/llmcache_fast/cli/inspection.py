"""`explain`, `get` and `stats`: looking into a request, an entry, a tier."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from llmcache_fast import LLMCache, fingerprint
from llmcache_fast._entry import NEVER, Entry, from_envelope
from llmcache_fast._errors import ConfigurationError, LLMCacheError, TierError
from llmcache_fast.cli.doctor import address_of
from llmcache_fast.cli.output import Exit, stop
from llmcache_fast.tiers.base import Asked
from llmcache_fast.tiers.disk import DiskTier

T = TypeVar("T")


def read_request(source: str) -> Any:
    """The JSON value in a file, or on standard input for `-`."""
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as problem:
        stop(Exit.USAGE, f"{source}: {problem.strerror}")
    try:
        # Of the standard library: it keeps integers of any size and refuses nothing that the core would take.
        return json.loads(data)
    except ValueError as problem:
        stop(Exit.USAGE, f"{source}: not JSON ({problem})")


def explained(request: Any, *, profile: str, namespace: str) -> dict[str, Any]:
    """The fingerprint of a request and what the profile's rules say of each of its fields."""
    try:
        # Explaining looks at nothing stored: the cache need not be open.
        found = LLMCache(namespace=namespace, profile=profile).explain(request)
    except (LLMCacheError, ValueError) as problem:
        stop(Exit.USAGE, str(problem))
    shown = ("fingerprint", "namespace", "profile", "fields")
    return {name: getattr(found, name) for name in shown}


def key_of(target: str, *, profile: str, namespace: str) -> bytes:
    """The fingerprint that `get` was given: in hex, or of the request in a file."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", target):
        return bytes.fromhex(target)
    if target != "-" and not Path(target).exists():
        stop(Exit.USAGE, f"{target} is neither a fingerprint (64 hex digits) nor a file")
    try:
        return fingerprint(read_request(target), namespace=namespace, profile=profile)
    except (LLMCacheError, ValueError) as problem:
        stop(Exit.USAGE, str(problem))


def disk_tier(target: str) -> DiskTier:
    """The disk tier in a folder or at a `disk:///` address; ends the command when there is none.

    A command that looks must not make a tier, so the folder has to be there already.
    """
    # LLMCACHE_TIERS may name several tiers.
    words = [word.strip() for word in target.split(",")]
    target = next((word for word in words if word.startswith("disk:")), target)
    if "://" in target and not target.startswith("disk:"):
        # The address is not shown: it may hold a password.
        stop(Exit.USAGE, "this command looks into a disk tier: give its folder or disk:///absolute/path")
    try:
        tier = DiskTier.from_url(target) if target.startswith("disk:") else DiskTier(Path(target).absolute())
    except ConfigurationError as problem:
        stop(Exit.USAGE, str(problem))
    if not (tier.path / "cache.sqlite3").exists():
        stop(Exit.FOUND, f"{tier.path}: there is no disk tier here")
    return tier


def with_tier(tier: DiskTier, work: Callable[[DiskTier], Coroutine[Any, Any, T]]) -> T:
    """Run something on an open tier."""

    async def main() -> T:
        await tier.open()
        try:
            return await work(tier)
        finally:
            await tier.aclose()

    try:
        return anyio.run(main)
    except TierError as problem:
        stop(Exit.ENVIRONMENT, str(problem))


def entry_in(tier: DiskTier, namespace: str, key: bytes) -> tuple[Entry, bool] | None:
    """The entry of a fingerprint, and whether it is valid; None when there is none."""

    async def look(opened: DiskTier) -> tuple[Entry, bool] | None:
        (envelope,) = await opened.get_many([key])
        if envelope is None:
            return None
        entry, reason = from_envelope(envelope, namespace, key)
        if entry is None:
            stop(Exit.FOUND, f"the record of {key.hex()} was refused: {reason}")
        facts = entry.facts
        space, *targets = LLMCache._entry_targets(
            namespace, key, list(facts.tags), facts.label, list(facts.depends_on)
        )
        (changes,) = await opened.changes([Asked(space, entry.epoch, entry.snap)])
        raised = {target for target, _ in changes.markers}
        return entry, changes.epoch == entry.epoch and raised.isdisjoint((space, *targets))

    return with_tier(tier, look)


def facts_of(entry: Entry, *, valid: bool, now: int) -> dict[str, Any]:
    """What is known about an entry, without its text."""
    state = "fresh" if now < entry.fresh_until else "stale" if now < entry.stale_until else "expired"
    if not valid:
        state = "invalidated"
    return {
        "fingerprint": entry.key.hex(),
        "namespace": entry.namespace,
        "content": entry.content,
        "bytes": len(entry.payload),
        "state": state,
        "created": _time(entry.created),
        "fresh_until": _time(entry.fresh_until),
        "stale_until": _time(entry.stale_until),
        "cost_micro_usd": entry.cost,
        "model": entry.facts.model,
        "usage": entry.facts.usage and msgspec.structs.asdict(entry.facts.usage),
        "tags": list(entry.facts.tags),
        "label": entry.facts.label,
        "compute_seconds": entry.facts.compute_micros / 1e6,
    }


def value_of(entry: Entry) -> Any:
    """The stored answer as something JSON can hold."""
    payload = entry.payload
    if isinstance(payload, str):
        return payload
    try:
        match entry.content:
            case "json":
                return msgspec.json.decode(payload)
            case "msgpack":
                return msgspec.to_builtins(msgspec.msgpack.decode(payload))
            case "stream":
                _, chunks = msgspec.msgpack.decode(payload, type=tuple[bytes, list[bytes]])
                return [chunk.decode(errors="replace") for chunk in chunks]
            case _:
                return payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return payload.hex()


def statistics(target: str) -> dict[str, Any]:
    """The counters of a disk tier, or of a running demo upstream at an http address."""
    if not target.startswith(("http://", "https://")):
        address = target if target.startswith("disk:") else address_of(target)
        counters: dict[str, Any] = dict(with_tier(disk_tier(address or target), lambda tier: tier.stats()))
        return counters if address else counters | {"max_bytes": None}
    try:
        with urllib.request.urlopen(target.rstrip("/") + "/stats", timeout=5) as reply:  # noqa: S310
            found: dict[str, Any] = msgspec.json.decode(reply.read())
    except (urllib.error.URLError, OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        stop(Exit.ENVIRONMENT, f"{target}: no demo upstream answers ({reason})")
    return found


def _time(micros: int) -> str | None:
    """An absolute time in ISO form; None for never."""
    if micros >= NEVER:
        return None
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
