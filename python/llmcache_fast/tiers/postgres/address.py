"""What a `postgresql://` address says: where the server is, and how this tier is to use it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, urlencode, urlsplit

from llmcache_fast._errors import ConfigurationError

DEFAULT_SCHEMA = "llmcache"
DEFAULT_BUDGET = 0.25
DEFAULT_CONNECT_TIMEOUT = 2.0
DEFAULT_CONNECTIONS = 4
"""Two batches of reads, one of writes, one for the rest. `benches/test_postgres.py` finds nothing in more."""

_SCHEMES = ("postgresql", "postgres")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
"""A schema's name: needs no quoting, and leaves room for what is derived from it (63 bytes)."""
_LIBPQ = frozenset(
    (
        *("host", "port", "user", "password", "passfile", "database", "dbname", "service", "servicefile"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
        *("krbsrvname", "gsslib"),
    )
)
"""Options of libpq that asyncpg takes. It sends any other to the server as a setting, typing errors too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the tier uses its server."""

    schema: str = DEFAULT_SCHEMA
    """The Postgres schema that everything is in."""
    connections: int = DEFAULT_CONNECTIONS
    """At the most, in this process; one more listens for leases and for what others invalidate."""
    budget: float = DEFAULT_BUDGET
    """Seconds a call may take, waiting for a connection included."""
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    """Seconds an attempt to connect may take. A call does not wait longer than its budget for it."""
    pooler: str = ""
    """`transaction` behind a pooler that gives a server connection for one transaction only."""
    migrate: bool = True
    """Whether opening may create the schema or bring it to this version."""
    partitions: int = 0
    """Hash partitions of the records' table when it is created; 0 for one plain table."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.schema):
            raise ConfigurationError(
                f"schema is {self.schema!r}: use lower-case letters, digits and _, at most 48, no digit first"
            )
        if not 1 <= self.connections <= 1000:
            raise ConfigurationError(f"connections is {self.connections}: give 1 to 1000")
        for name in ("budget", "connect_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}: give a positive number of seconds"
                )
        if self.pooler not in ("", "transaction"):
            raise ConfigurationError(f"pooler is {self.pooler!r}: write pooler=transaction, or leave it out")
        if self.partitions and not 2 <= self.partitions <= 1024:
            raise ConfigurationError(f"partitions is {self.partitions}: give 0, or 2 to 1024")


_OWN = {field.name: field.default for field in fields(Settings)}


def parse(url: str) -> tuple[str, Settings]:
    """What asyncpg is to be given, and the tier's own settings.

    Raises:
        ConfigurationError: no such address, or an option that cannot work. Neither it nor any other error
            holds the address, which may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(
            "tiers: a postgresql:// address cannot be read; is there a [ or ] unescaped?"
        ) from None
    if parts.scheme not in _SCHEMES or parts.fragment:
        raise ConfigurationError(
            f"tiers: {parts.scheme or 'no scheme'!r}: write postgresql://user:password@host:5432/database; "
            "a # in a password is %23"
        )
    own: dict[str, str | int | float | bool] = {}
    libpq: list[tuple[str, str]] = []
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in _OWN:
            own[name] = _value(name, text)
        elif name in _LIBPQ:
            libpq.append((name, text))
        else:
            raise ConfigurationError(
                f"tiers: unknown option {name!r} of a postgresql:// address; the tier has "
                f"{', '.join(_OWN)}, beside those of libpq such as sslmode"
            )
    # Not urlunsplit: it makes postgresql:/db of an address without a host.
    dsn = f"{parts.scheme}://{parts.netloc}{parts.path}" + ("?" + urlencode(libpq) if libpq else "")
    return dsn, Settings(**own)  # type: ignore[arg-type]


def without_secrets(url: str) -> str:
    """Scheme, hosts and database of an address, for people to read."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _value(name: str, text: str) -> str | int | float | bool:
    default = _OWN[name]
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError):
        wanted = {bool: "0 or 1", int: "a whole number", float: "a number of seconds, such as 0.25"}
        raise ConfigurationError(f"{name} is {text!r}: write {wanted[type(default)]}") from None
    return text
