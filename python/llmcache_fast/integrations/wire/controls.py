"""The per-request controls: `x-llmcache-*` request headers, read and removed before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from llmcache_fast._errors import ConfigurationError
from llmcache_fast._options import label_of, names

PREFIX = "x-llmcache-"

_DIRECTIVES = frozenset({"no-cache", "no-store", "only-if-cached", "refresh"})
_NAMES = frozenset({"control", "ttl", "tags", "variant", "label"})


class ControlError(ValueError):
    """A control header that means nothing; the message names the header and what it may hold."""


class Controls(msgspec.Struct, frozen=True):
    """What one request asks of the cache."""

    refresh: bool = False
    """Do not read, do store: `no-cache` or `refresh`."""
    store: bool = True
    """False after `no-store`: a hit is served, a fresh answer is not kept."""
    only_if_cached: bool = False
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET
    """Seconds; 0 is not stored, None never expires, UNSET leaves the cache's own."""
    tags: tuple[str, ...] = ()
    variant: str | None = None
    label: str | None = None

    @property
    def bypass(self) -> bool:
        """Neither read nor store: `no-cache, no-store` together."""
        return self.refresh and not self.store


def parse_controls(headers: Mapping[str, str]) -> Controls:
    """The controls among the headers of a request (names in lower case); `ControlError` for a bad one."""
    found = {name[len(PREFIX) :]: value for name, value in headers.items() if name.startswith(PREFIX)}
    if not found:
        return _DEFAULT
    if unknown := found.keys() - _NAMES:
        known = ", ".join(PREFIX + name for name in sorted(_NAMES))
        raise ControlError(f"unknown header {PREFIX}{min(unknown)}; the controls are {known}")
    fields: dict[str, Any] = {}
    directives = _words(found.get("control", ""))
    for directive in directives:
        if directive.lower() not in _DIRECTIVES:
            known = ", ".join(sorted(_DIRECTIVES))
            raise ControlError(f"{PREFIX}control does not know {directive!r}; it takes {known}")
    asked = {directive.lower() for directive in directives}
    fields["refresh"] = not asked.isdisjoint({"no-cache", "refresh"})
    fields["store"] = "no-store" not in asked
    fields["only_if_cached"] = "only-if-cached" in asked
    if fields["refresh"] and fields["only_if_cached"]:
        raise ControlError(f"{PREFIX}control cannot hold only-if-cached beside no-cache or refresh")
    if "ttl" in found:
        fields["ttl"] = _ttl(found["ttl"])
    fields["variant"] = found.get("variant") or None
    try:
        # As the cache will: what it refuses is this header's fault and not the cache's.
        fields["tags"] = names("tags", _words(found.get("tags", "")))
        fields["label"] = label_of(found["label"]) if found.get("label") else None
    except ConfigurationError as problem:
        raise ControlError(f"{PREFIX}{problem}") from None
    return Controls(**fields)


_DEFAULT = Controls()


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _ttl(text: str) -> float | None:
    if text.strip().lower() == "none":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ControlError(
            f"{PREFIX}ttl must be a number of seconds, zero or more, or 'none', not {text[:40]!r}"
        )
    return seconds
