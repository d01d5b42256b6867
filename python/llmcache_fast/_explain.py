"""`explain`: what of a request counts, and which stored requests came near it.

Keeps, for the requests stored lately, a short digest of each field: enough to say which fields differ, and
no text at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from llmcache_fast._core import fingerprint
from llmcache_fast._errors import UnkeyableRequestError
from llmcache_fast._request import plain

RECENT = 512
"""Requests remembered."""
NEAREST = 3
DEPTH = 4
"""Levels of a request that are told apart: `messages[3].content`."""
MAX_FIELDS = 256


class Field(msgspec.Struct, frozen=True):
    """One top-level field."""

    name: str
    verdict: Literal["in", "dropped", "defaulted"]
    rule: str
    """The rule that dropped or defaulted it; empty for what counts."""


class Near(msgspec.Struct, frozen=True):
    """A stored request that is like the one explained."""

    fingerprint: str
    differs: list[str]
    """Paths of the fields that differ or are on one side only."""


class Explanation(msgspec.Struct, frozen=True):
    """What of a request counts. Holds names of fields and rules, no values: it can go into a log."""

    fingerprint: str
    """64 hex digits."""
    namespace: str
    profile: str
    fields: list[Field]
    stored: bool
    """Whether memory holds an entry for it."""
    nearest: list[Near]
    """For a request that is not stored: the nearest that are, fewest differences first."""


class _Engine(Protocol):
    options: Any

    @property
    def fingerprint(self) -> Callable[..., bytes]: ...
    def _explain(self, request: Any, profile: str | None = ...) -> list[tuple[str, Any, str]]: ...
    def _peek(self, key: bytes) -> Any: ...


class Recent:
    """The requests stored lately, as digests of their fields."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._fields: OrderedDict[bytes, dict[str, bytes]] = OrderedDict()

    def add(self, key: bytes, request: Any) -> None:
        """Remember a stored request."""
        if isinstance(request, bytes):
            return
        self._fields.pop(key, None)
        try:
            self._fields[key] = _digests(request)
        except UnkeyableRequestError:
            return
        if len(self._fields) > RECENT:
            self._fields.popitem(last=False)

    def explain(self, request: Any, namespace: str | None, profile: str | None) -> Explanation:
        """See `LLMCache.explain`."""
        key = self._engine.fingerprint(request, namespace=namespace, profile=profile)
        mapping = request if isinstance(request, dict) else plain(request)
        stored = self._engine._peek(key) is not None
        options = self._engine.options
        rows = self._engine._explain(mapping, profile)
        dropped = {name for name, verdict, _ in rows if verdict != "in"}
        return Explanation(
            fingerprint=key.hex(),
            namespace=namespace or options.namespace,
            profile=profile or options.profile,
            fields=[Field(*row) for row in rows],
            stored=stored,
            nearest=[] if stored else self._nearest(_digests(mapping), dropped),
        )

    def _nearest(self, fields: dict[str, bytes], dropped: set[str]) -> list[Near]:
        near = []
        for key, other in self._fields.items():
            differs = sorted(
                path
                for path in fields.keys() | other.keys()
                if fields.get(path) != other.get(path) and path.split(".")[0].split("[")[0] not in dropped
            )
            near.append(Near(key.hex(), differs))
        near.sort(key=lambda one: len(one.differs))
        return near[:NEAREST]


def _digests(request: Any) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    _collect(request, "", 0, digests)
    return digests


def _collect(value: Any, path: str, depth: int, digests: dict[str, bytes]) -> None:
    if depth < DEPTH and len(digests) < MAX_FIELDS:
        if isinstance(value, Mapping):
            for name, item in value.items():
                _collect(item, f"{path}.{name}" if path else str(name), depth + 1, digests)
            return
        if isinstance(value, list | tuple):
            for at, item in enumerate(value):
                _collect(item, f"{path}[{at}]", depth + 1, digests)
            return
    digests[path] = fingerprint({"value": value}, namespace="explain")[:8]
