"""`explain`, `get` and `stats`: looking into a request, an entry, a tier."""

from __future__ import annotations

import importlib
import json
import re
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmcache_fast import LLMCache, fingerprint
from llmcache_fast._entry import NEVER, Entry
from llmcache_fast._errors import LLMCacheError
from llmcache_fast._wire import Wire
from llmcache_fast.cli.doctor import address_of
from llmcache_fast.cli.output import Exit, stop
from llmcache_fast.cli.tiers import is_address, tiers_at, with_tiers
from llmcache_fast.cli.tiers import wire as configured_wire
from llmcache_fast.tiers.base import Asked, Tier
from llmcache_fast.tiers.disk import DiskTier


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


def entry_in(tiers: list[Tier], namespace: str, key: bytes) -> tuple[Entry, str, bool] | None:
    """The entry of a fingerprint, the tier it is in, and whether it is valid; None when no tier has one.

    The tiers are those of a cache, in its order: the first that has the entry counts, and the last that can
    keeps the markers.
    """
    wire = configured_wire()

    async def look(opened: list[Tier]) -> tuple[Entry, str, bool] | None:
        for tier in opened:
            (envelope,) = await tier.get_many([wire.tier_key(key)])
            if envelope is None:
                continue
            entry, reason = wire.entry(envelope, namespace, key)
            if entry is None:
                stop(
                    Exit.FOUND,
                    f"{tier.name}: the record of {key.hex()} was refused: {_REFUSED.get(reason, reason)}",
                )
            return entry, tier.name, await _is_valid(opened, wire, entry)
        return None

    return with_tiers(tiers, look)


_REFUSED = {
    "wrong_namespace": "it is of another namespace; give --namespace",
    "no_key": "it is sealed; give the keys by LLMCACHE_KEYS_FILE",
    "unknown_key": "it is sealed with a key that is not in LLMCACHE_KEYS or LLMCACHE_KEYS_FILE",
    "unsealed": "it is not sealed; LLMCACHE_ACCEPT_PLAIN=1 takes it all the same",
}


async def _is_valid(tiers: list[Tier], wire: Wire, entry: Entry) -> bool:
    authority: Any = next((tier for tier in reversed(tiers) if hasattr(tier, "raise_markers")), None)
    if authority is None:
        return True
    facts = entry.facts
    targets = LLMCache._entry_targets(
        entry.namespace, entry.key, list(facts.tags), facts.label, list(facts.depends_on)
    )
    space, *_ = names = wire.tier_targets(targets)
    (changes,) = await authority.changes([Asked(space, entry.epoch, entry.snap)])
    raised = {target for target, _ in changes.markers}
    return bool(changes.epoch == entry.epoch and raised.isdisjoint(names))


def facts_of(entry: Entry, *, tier: str, valid: bool, now: int) -> dict[str, Any]:
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
        "tier": tier,
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
    """The counters of a tier, or of a running demo upstream at an http address."""
    if not target.startswith(("http://", "https://")):
        return _tier_statistics(target)
    try:
        with urllib.request.urlopen(target.rstrip("/") + "/stats", timeout=5) as reply:  # noqa: S310
            found: dict[str, Any] = msgspec.json.decode(reply.read())
    except (urllib.error.URLError, OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        stop(Exit.ENVIRONMENT, f"{target}: no demo upstream answers ({reason})")
    return found


def _tier_statistics(target: str) -> dict[str, Any]:
    # Only an address says how large a disk tier may grow, so that of the folder is looked for.
    address = target if is_address(target) else address_of(target)
    tiers = tiers_at(address or target)
    if len(tiers) != 1:
        stop(Exit.USAGE, "which tier? give the address of one")

    async def count(opened: list[Tier]) -> dict[str, Any]:
        tier: Any = opened[0]
        if isinstance(tier, DiskTier):
            return dict(await tier.stats())
        # Beside its driver: only a command that has opened such a tier needs it.
        census = importlib.import_module(f"llmcache_fast.tiers.{tier.name}.census").census
        return dict(await census(tier))

    counters = with_tiers(tiers, count)
    return counters if address else counters | {"max_bytes": None}


def _time(micros: int) -> str | None:
    """An absolute time in ISO form; None for never."""
    if micros >= NEVER:
        return None
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
