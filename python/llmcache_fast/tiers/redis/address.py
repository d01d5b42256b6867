"""What a Redis tier's URL says."""

from __future__ import annotations

import math
import re
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

from llmcache_fast._errors import ConfigurationError

DEFAULT_PREFIX = "lc:"
DEFAULT_CONNECTIONS = 8
"""Two for reads that overlap, one or two for writes behind, the rest for invalidations and leases."""
DEFAULT_BUDGET = 0.05
MAX_PREFIX = 64
_GIVE_UP_MILLISECONDS = 10_000
"""After which the kernel drops what a dead peer does not take: closing a connection waits for that."""

_SCHEMES = {
    # scheme: (cluster, TLS, unix socket)
    "redis": (False, False, False),
    "rediss": (False, True, False),
    "redis+cluster": (True, False, False),
    "rediss+cluster": (True, True, False),
    "redis+unix": (False, False, True),
}
_FORMS = "redis://host:6379/0, rediss://…, redis+cluster://…, rediss+cluster://… or redis+unix:///path"
_OPTIONS = ("prefix", "max_connections", "budget", "ca", "cert", "key", "db")


@dataclass(frozen=True)
class Address:
    """Where the server is, how to get in, and what the tier may use there."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    """Of a unix socket, in place of host and port."""
    cluster: bool = False
    tls: bool = False
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    """File of certificates to trust in place of the system's."""
    cert: str | None = None
    key: str | None = None
    """Files of the client's own certificate and key, for servers that ask for one."""
    prefix: str = DEFAULT_PREFIX
    """Of all keys. Programs with the same prefix share entries."""
    max_connections: int = DEFAULT_CONNECTIONS
    """For each server."""
    budget: float = DEFAULT_BUDGET
    """Seconds a read may take."""

    def __post_init__(self) -> None:
        if not (0 < self.budget < math.inf):
            raise ConfigurationError(f"budget is {self.budget}: give a positive number of seconds")
        if self.max_connections < 1:
            raise ConfigurationError(f"max_connections is {self.max_connections}: give 1 or more")
        # Braces would choose a cluster's slot by the prefix: all entries in one.
        if not re.fullmatch(r"[^{}\s]+", self.prefix) or len(self.prefix.encode()) > MAX_PREFIX:
            raise ConfigurationError(
                f"prefix is {self.prefix!r}: give 1 to {MAX_PREFIX} bytes without braces and white space"
            )
        for name in ("ca", "cert", "key"):
            file = getattr(self, name)
            if file is not None and not self.tls:
                raise ConfigurationError(
                    f"{name}: certificates need TLS; write rediss:// or rediss+cluster://"
                )
            if file is not None and not Path(file).is_file():
                raise ConfigurationError(f"{name}: there is no file {file}")

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address a URL names.

        Raises:
            ConfigurationError: it is none; the message holds no password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"tiers: a Redis address is malformed; write {_FORMS}") from None
        shown = _shown(parts)
        if parts.scheme not in _SCHEMES or parts.fragment:
            raise ConfigurationError(f"tiers: {shown} is not a Redis tier's address; write {_FORMS}")
        cluster, tls, unix = _SCHEMES[parts.scheme]
        fields: dict[str, Any] = {"cluster": cluster, "tls": tls}
        if unix:
            if parts.hostname or not parts.path.startswith("/"):
                raise ConfigurationError(f"tiers: {shown}: write redis+unix:///absolute/path (three slashes)")
            fields["path"] = unquote(parts.path)
        else:
            if not parts.hostname:
                raise ConfigurationError(f"tiers: {shown} names no host; write {_FORMS}")
            fields |= {"host": parts.hostname, "port": port or 6379}
            if parts.path.strip("/"):
                fields["db"] = _whole("the path", parts.path.strip("/"), shown)
        if parts.username:
            fields["username"] = unquote(parts.username)
        if parts.password is not None:
            fields["password"] = unquote(parts.password)
        for name, text in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise ConfigurationError(
                    f"tiers: {shown}: unknown option {name!r}; a Redis tier has {', '.join(_OPTIONS)}"
                )
            fields[name] = _option(name, text, shown)
        if cluster and fields.get("db"):
            raise ConfigurationError(f"tiers: {shown}: a cluster has only database 0")
        return cls(**fields)

    def at(self, host: str, port: int) -> Address:
        """The same way in, to another node."""
        return replace(self, host=host, port=port)

    def __str__(self) -> str:
        """For logs: no credentials."""
        if self.path is not None:
            return f"redis+unix://{self.path}"
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        return f"{scheme}://{self.host}:{self.port}" + (f"/{self.db}" if self.db else "")

    def connection(self, connect_seconds: float) -> AbstractConnection:
        """A redis-py connection, not connected yet, with nothing of its own that retries or waits.

        RESP2, because in it nothing arrives that was not asked for, and a new connection needs no greeting.
        """
        settings: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": None,
            "socket_connect_timeout": connect_seconds,
            "socket_read_size": 1 << 18,
        }
        if self.path is not None:
            return UnixDomainSocketConnection(path=self.path, **settings)
        settings |= {
            "host": self.host,
            "port": self.port,
            "socket_keepalive": True,
            "socket_keepalive_options": _keepalive(),
        }
        if not self.tls:
            return Connection(**settings)
        return SSLConnection(
            ssl_ca_certs=self.ca,
            ssl_certfile=self.cert,
            ssl_keyfile=self.key,
            ssl_check_hostname=True,
            **settings,
        )


def _keepalive() -> dict[int, int]:
    """Idle and dead peers are noticed: keep-alive probes, and an end to what is never acknowledged."""
    wanted = {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": _GIVE_UP_MILLISECONDS,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _shown(parts: SplitResult) -> str:
    """The address without credentials and options."""
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _option(name: str, text: str, shown: str) -> object:
    if name in ("max_connections", "db"):
        return _whole(name, text, shown)
    if name == "budget":
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(
                f"tiers: {shown}: budget is {text!r}: write a number of seconds, such as 0.05"
            ) from None
    return text


def _whole(name: str, text: str, shown: str) -> int:
    if not text.isdecimal():
        raise ConfigurationError(f"tiers: {shown}: {name} is {text!r}: write a whole number")
    return int(text)
