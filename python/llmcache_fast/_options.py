"""Options: what they may be, and how text becomes them.

What belongs here: the options of a cache and of a call, their checks and their environment variables. What
does not: what they do.
"""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

from llmcache_fast._errors import ConfigurationError


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""An option that was not given: it is inherited from the cache. `None` is a value of its own."""

Seconds: TypeAlias = float | timedelta
"""A duration; numbers are seconds."""

DEFAULT_MEMORY: Final = 256 << 20
DEFAULT_DEADLINE: Final = 600.0
"""Longer than providers keep a request: only what hangs is cut."""


DEFAULT_SWEEP_RATE: Final = 2_000.0
"""A million records take eight minutes, and a tier does ten to a hundred times as much."""
DEFAULT_LEASE_WAIT: Final = 60.0
"""Longer than most answers take; who waits for nothing has lost a minute, not the answer."""


DEFAULT_COHERENCE_LEASE: Final = 2.0
"""Others are asked four times in it; a server that is restarted, or a pause of this process, takes longer."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options of a cache, checked. Durations in seconds, sizes in bytes; see `LLMCache`."""

    namespace: str = "default"
    profile: str = "generic"
    normalize: Literal["NFC"] | None = None
    memory: int = DEFAULT_MEMORY
    ttl: float | None = 3600.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    jitter: float = 0.1
    negative_ttl: float = 30.0
    deadline: float = DEFAULT_DEADLINE
    on_abandon: Literal["finish", "cancel"] = "finish"
    max_orphans: int = 64
    max_background: int = 64
    lease_wait: float = DEFAULT_LEASE_WAIT
    coherence_lease: float = DEFAULT_COHERENCE_LEASE
    sweep_rate: float = DEFAULT_SWEEP_RATE
    durability: Literal["memory", "journal", "sync"] = "memory"
    journal: str | None = None
    strict: bool = False


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one computing call, inherited where they were not given."""

    ttl: float | None
    stale_while_revalidate: float
    stale_if_error: float
    tags: tuple[str, ...] = ()
    label: str | None = None
    depends_on: tuple[str, ...] = ()
    timeout: float | None = None
    refresh: bool = False
    only_if_cached: bool = False
    store: bool = True
    semantic: bool | float = True
    """Whether the answer to another request that asks the same will do; a number: with at least this
    score."""
    question: Any = None
    """`(text, rest)` of a request whose question is not found by itself, or what makes it when it is
    needed: it is given what takes requests apart."""

    @property
    def keeps(self) -> bool:
        """Whether a call that computes leaves something behind. For one that does not, nobody is to wait."""
        return self.store and self.ttl != 0


CALL_OPTIONS: Final = frozenset(CallOptions.__struct_fields__)


def call_options(base: Options, given: Mapping[str, Any] | None) -> CallOptions:
    """The options of a call over those of its cache.

    Raises:
        ConfigurationError: a value that cannot work.
    """
    return _call_options(base, given) if given else _inherited(base)


@lru_cache(maxsize=64)
def _inherited(base: Options) -> CallOptions:
    """Those of a call that gives none: most, and to check them anew takes longer than a hit."""
    return _call_options(base, {})


def _call_options(base: Options, given: Mapping[str, Any]) -> CallOptions:
    options = dict(given)
    if options.keys() - CALL_OPTIONS:
        raise TypeError(f"no such option: {', '.join(sorted(options.keys() - CALL_OPTIONS))}")

    def inherited(name: str) -> Any:
        value = options.get(name, UNSET)
        return getattr(base, name) if value is UNSET else value

    label = options.get("label", UNSET)
    timeout = options.get("timeout", UNSET)
    ttl = inherited("ttl")
    return CallOptions(
        ttl=None if ttl is None else seconds("ttl", ttl),
        stale_while_revalidate=seconds("stale_while_revalidate", inherited("stale_while_revalidate")),
        stale_if_error=seconds("stale_if_error", inherited("stale_if_error")),
        tags=names("tags", options.get("tags", ())),
        depends_on=names("depends_on", options.get("depends_on", ())),
        label=None if label is UNSET or label is None else label_of(label),
        timeout=None if timeout is UNSET or timeout is None else seconds("timeout", timeout),
        refresh=bool(options.get("refresh", False)),
        only_if_cached=bool(options.get("only_if_cached", False)),
        store=bool(options.get("store", True)),
        semantic=_strictness(options.get("semantic", True)),
        question=options.get("question"),
    )


def _strictness(value: object) -> bool | float:
    """A call may only tighten: no semantic hits, or fewer."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"semantic: must be True, False or a score from 0 to 1, not {value!r}")
    return float(value)


def seconds(option: str, value: object) -> float:
    """A duration of at least zero."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{option}: must be a number of seconds, zero or more, not {value!r}")
    return float(value)


def micros(option: str, value: object) -> int | None:
    """A point in time as microseconds since 1970."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigurationError(f"{option}: must be a datetime with a time zone")
    return round(value.timestamp() * 1_000_000)


def names(option: str, value: object) -> tuple[str, ...]:
    """Tags and the like: short strings, each once."""
    if isinstance(value, Unset):
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{option}: must be a list of strings, such as ['doc:7']")
    found = tuple(dict.fromkeys(value))
    for name in found:
        if not isinstance(name, str) or not name or len(name) > 256:
            raise ConfigurationError(f"{option}: each must be a string of 1 to 256 characters")
        _encodable(option, name)
    if len(found) > 256:
        raise ConfigurationError(f"{option}: {len(found)} are too many; 256 at the most at once")
    return found


def label_of(value: object) -> str:
    """A label: a path without a pattern in it."""
    if not isinstance(value, str) or not value or len(value) > 512:
        raise ConfigurationError(
            "label: must be a path of 1 to 512 characters, such as 'content/blog/ai-trends'"
        )
    if "*" in value or value.startswith("/") or "//" in value:
        raise ConfigurationError(
            f"label: {value!r} must be a plain path without '*', empty parts or a leading slash"
        )
    _encodable("label", value)
    return value


def namespace_of(value: object) -> str:
    """The name of a namespace."""
    if not isinstance(value, str) or not value or len(value) > 128:
        raise ConfigurationError("namespace: must be a string of 1 to 128 characters")
    _encodable("namespace", value)
    return value


def _encodable(option: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{option}: holds a lone surrogate, which has no UTF-8 form") from None


_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power, _letter: 1024**_power}


def size_in_bytes(option: str, value: object) -> int:
    """`10GiB`, `512MB`, `1048576` or a number, as bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", value)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is not None and unit is not None:
            return int(float(match[1]) * unit)
    raise ConfigurationError(f"{option} is {value!r}: write a number and a unit, such as 512MiB or 10GiB")


def _lease(value: object) -> float:
    lease = seconds("coherence_lease", value)
    if lease < 0.1:
        raise ConfigurationError(f"coherence_lease is {lease:g} s: give at least 0.1, to ask others in")
    return lease


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"sweep_rate is {value!r}: must be a number of records a second, or 0")
    return float(value)


def _flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option} is {value!r}: must be True or False")
    return value


def options_of(**given: Any) -> Options:
    """The options of a cache from its constructor's arguments.

    Raises:
        ConfigurationError: a value that cannot work.
    """
    for name in ("stale_while_revalidate", "stale_if_error", "negative_ttl", "deadline", "lease_wait"):
        given[name] = seconds(name, given[name])
    given["coherence_lease"] = _lease(given["coherence_lease"])
    given["sweep_rate"] = _rate(given["sweep_rate"])
    given["strict"] = _flag("strict", given["strict"])
    given["ttl"] = None if given["ttl"] is None else seconds("ttl", given["ttl"])
    given["namespace"] = namespace_of(given["namespace"])
    given["memory"] = size_in_bytes("memory", given["memory"])
    if given["memory"] < 64 << 10:
        raise ConfigurationError(f"memory is {given['memory']} bytes: give at least 64KiB")
    if not isinstance(given["jitter"], int | float) or not 0 <= given["jitter"] <= 0.5:
        raise ConfigurationError(f"jitter is {given['jitter']!r}: must be between 0 and 0.5")
    if given["on_abandon"] not in ("finish", "cancel"):
        raise ConfigurationError(f"on_abandon is {given['on_abandon']!r}: must be 'finish' or 'cancel'")
    if given["normalize"] not in (None, "NFC"):
        raise ConfigurationError(f"normalize is {given['normalize']!r}: must be None or 'NFC'")
    for name in ("max_orphans", "max_background"):
        if not isinstance(given[name], int) or given[name] < 0:
            raise ConfigurationError(f"{name} is {given[name]!r}: must be a number, zero or more")
    folder = given["journal"]
    if folder is not None:
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ConfigurationError("journal: must be the path of a folder on a local disk")
        given["journal"] = os.fspath(folder)
    if given["durability"] is None:
        given["durability"] = "memory" if folder is None else "journal"
    if given["durability"] not in ("memory", "journal", "sync"):
        raise ConfigurationError(
            f"durability is {given['durability']!r}: must be 'memory', 'journal' or 'sync'"
        )
    if given["durability"] == "journal" and folder is None:
        raise ConfigurationError("durability 'journal' needs a folder: give journal='/var/lib/app/journal'")
    if given["deadline"] == 0:
        raise ConfigurationError("deadline is 0: a computation needs time")
    return Options(**given)


_ENVIRONMENT: Final = {
    "LLMCACHE_TIERS": "tiers",
    "LLMCACHE_NAMESPACE": "namespace",
    "LLMCACHE_PROFILE": "profile",
    "LLMCACHE_MEMORY": "memory",
    "LLMCACHE_TTL": "ttl",
    "LLMCACHE_STALE_WHILE_REVALIDATE": "stale_while_revalidate",
    "LLMCACHE_STALE_IF_ERROR": "stale_if_error",
    "LLMCACHE_NEGATIVE_TTL": "negative_ttl",
    "LLMCACHE_DEADLINE": "deadline",
    "LLMCACHE_LEASE_WAIT": "lease_wait",
    "LLMCACHE_COHERENCE_LEASE": "coherence_lease",
    "LLMCACHE_SWEEP_RATE": "sweep_rate",
    "LLMCACHE_DURABILITY": "durability",
    "LLMCACHE_JOURNAL": "journal",
    "LLMCACHE_STRICT": "strict",
    "LLMCACHE_COMPRESS": "compress",
    "LLMCACHE_NORMALIZE": "normalize",
    "LLMCACHE_JITTER": "jitter",
    "LLMCACHE_ON_ABANDON": "on_abandon",
    "LLMCACHE_MAX_ORPHANS": "max_orphans",
    "LLMCACHE_MAX_BACKGROUND": "max_background",
}
_TEXTS: Final = frozenset(
    {"namespace", "profile", "normalize", "memory", "on_abandon", "durability", "journal"}
)
_NONE: Final = frozenset({"ttl", "normalize"})
"""Options that `none` is a value of."""
_SWITCHES: Final = frozenset({"strict", "compress"})
_COUNTS: Final = frozenset({"max_orphans", "max_background"})
_READ_ELSEWHERE: Final = frozenset({"LLMCACHE_PRICES", "LLMCACHE_POSTGRES_URL"})
"""Variables that are no options of a cache: the file of prices, the address for `llmcache-fast migrate`."""


def from_environment(
    environment: Mapping[str, str] | None = None, *, elsewhere: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The constructor's arguments that `LLMCACHE_*` variables give; those in `elsewhere` are not looked at.

    Raises:
        ConfigurationError: an unknown variable of that prefix, or text that is no value of its option.
    """
    variables = {
        name: text
        for name, text in (os.environ if environment is None else environment).items()
        if name.startswith("LLMCACHE_") and name not in _READ_ELSEWHERE | elsewhere
    }
    unknown = sorted(variables.keys() - _ENVIRONMENT.keys())
    if unknown:
        raise ConfigurationError(
            f"unknown environment variables: {', '.join(unknown)}; known are {', '.join(_ENVIRONMENT)}"
        )
    arguments: dict[str, Any] = {}
    for name, text in variables.items():
        option = _ENVIRONMENT[name]
        if option == "tiers":
            arguments[option] = [url.strip() for url in text.split(",") if url.strip()]
        elif option in _NONE and text.lower() == "none":
            arguments[option] = None
        elif option in _TEXTS:
            arguments[option] = text
        elif option in _SWITCHES:
            if text not in ("0", "1"):
                raise ConfigurationError(f"{name} is {text!r}: write 1 or 0")
            arguments[option] = text == "1"
        else:
            number, what = (int, "a whole number") if option in _COUNTS else (float, "a number")
            try:
                arguments[option] = number(text)
            except ValueError:
                raise ConfigurationError(f"{name} is {text!r}: write {what}") from None
    return arguments
