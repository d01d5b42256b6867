"""What goes wrong, in the words of the package: no text of the server's reaches a log.

An error of the server may quote the arguments of a command, and with them parts of a record.
"""

from __future__ import annotations

import ssl
from typing import Any, NoReturn

from redis import exceptions

from llmcache_fast._errors import TierError, TierUnavailableError

NAME = "redis"

_REFUSALS: tuple[tuple[type[Exception], str, str, type[TierError]], ...] = (
    (exceptions.AuthenticationError, "auth", "the server refused the credentials", TierUnavailableError),
    (
        exceptions.NoPermissionError,
        "denied",
        "the user may not do this; docs/how-to/redis.md prints the permissions it needs",
        TierUnavailableError,
    ),
    (exceptions.BusyLoadingError, "loading", "the server is loading its data", TierError),
    (exceptions.OutOfMemoryError, "full", "the server's memory is full and it evicts nothing", TierError),
    (exceptions.ReadOnlyError, "readonly", "the server is a replica and takes no writes", TierError),
    (exceptions.ClusterError, "cluster", "the cluster does not serve this slot", TierError),
    (exceptions.TryAgainError, "cluster", "the slot is moving to another node", TierError),
    (exceptions.AskError, "cluster", "the slot keeps moving between nodes", TierError),
    (exceptions.InvalidResponse, "desynchronised", "the reply was no Redis reply", TierError),
    (exceptions.ResponseError, "refused", "the server refused the command", TierError),
)


def tier_error(error: BaseException, operation: str) -> TierError:
    """What a failure of the driver or the network means. Raise it `from None`: see the module."""
    if isinstance(error, TierError):
        return error
    if isinstance(error, exceptions.ResponseError) and "user executing the script" in str(error):
        error = exceptions.NoPermissionError()
    for kind, reason, message, wanted in _REFUSALS:
        if isinstance(error, kind):
            return wanted(message, tier=NAME, operation=operation, reason=reason)
    under = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(under, ssl.SSLError):
        problem = under.verify_message if isinstance(under, ssl.SSLCertVerificationError) else "no TLS"
        return TierUnavailableError(
            f"no secure connection ({problem})", tier=NAME, operation=operation, reason="tls"
        )
    if isinstance(under, ConnectionRefusedError | FileNotFoundError):
        return TierError("the server refused the connection", tier=NAME, operation=operation, reason="down")
    if "max number of clients" in str(error):
        return TierError("the server has no connection left", tier=NAME, operation=operation, reason="busy")
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return TierError("no connection in time", tier=NAME, operation=operation, reason="timeout")
    return TierError("the connection broke", tier=NAME, operation=operation, reason="lost")


def accepted(reply: Any, operation: str) -> Any:
    """The reply, unless it is an error.

    Raises:
        TierError: it is.
    """
    if isinstance(reply, Exception):
        raise tier_error(reply, operation)
    return reply


def unexpected(operation: str) -> NoReturn:
    """A reply of another form than that of what was asked.

    Raises:
        TierError: always.
    """
    raise TierError(
        "the reply is not one to this command", tier=NAME, operation=operation, reason="desynchronised"
    )


def number_of(reply: Any, operation: str) -> int:
    """The number that a reply is.

    Raises:
        TierError: it is none.
    """
    number = accepted(reply, operation)
    if not isinstance(number, int):
        unexpected(operation)
    return number


def as_many(reply: Any, count: int, operation: str) -> list[Any]:
    """The `count` values that a reply is.

    Raises:
        TierError: it is not.
    """
    values = accepted(reply, operation)
    if not isinstance(values, list) or len(values) != count:
        unexpected(operation)
    return values
