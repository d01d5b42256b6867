"""What went wrong, told in the package's terms.

The driver's own message is not passed on: with its detail it may quote a row, and it names users and hosts.
Its class and SQLSTATE say as much.
"""

from __future__ import annotations

import asyncpg

from llmcache_fast._errors import TierError, TierUnavailableError

NAME = "postgres"

_MIGRATE = "run `llmcache-fast migrate URL` with a role that owns the schema"

_UNAVAILABLE = {
    "25006": ("read_only", "the server takes no writes: it is a standby, or was made read-only"),
    "28": ("permission", "the server refused the user or the password"),
    "3D000": ("absent", "there is no such database"),
    "3F000": ("schema", f"there is no such schema: {_MIGRATE}"),
    "42501": ("permission", "the role may not do this; docs/how-to/postgres.md lists what it needs"),
    "42P01": ("schema", f"a table of the tier is missing: {_MIGRATE}"),
    "42703": ("schema", f"a table of the tier lacks a column: {_MIGRATE}"),
    "42883": ("schema", f"a function of the tier is missing: {_MIGRATE}"),
    "08P01": ("pooler", "a pooler refuses the session's settings: add pooler=transaction to the address"),
    "08": ("connection", "the connection was lost"),
    "57P": ("restarting", "the server is starting, stopping or recovering"),
}
_PASSING = {
    "40": ("busy", "another transaction was in the way"),
    "55P03": ("busy", "another transaction held a lock for the whole budget"),
    "53300": ("busy", "the server takes no more connections"),
    "53100": ("full", "the server's disk is full"),
    "53": ("busy", "the server lacks resources"),
    "57014": ("timeout", "the server cancelled the statement for taking too long"),
    "0A000": ("schema", "the schema changed under the connection"),
    "54": ("limit", "the record is beyond a limit of the server"),
    "22": ("record", "the server does not take a value of the record"),
}

LOST = ("connection", "restarting")
"""Reasons after which another connection may do better."""


def of(error: BaseException, operation: str) -> TierError:
    """The tier's error for what the driver, the server or the network raised."""
    if isinstance(error, TierError):
        return error
    facts = {"tier": NAME, "operation": operation}
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        shown = f"({type(error).__name__}, SQLSTATE {state or 'unknown'})"
        for table, kind in ((_UNAVAILABLE, TierUnavailableError), (_PASSING, TierError)):
            # The longest prefix first: 53300 is not told as 53.
            for length in (5, 3, 2):
                if (known := table.get(state[:length])) is not None:
                    reason, sentence = known
                    return kind(f"{sentence} {shown}", reason=reason, **facts)
        return TierError(f"the server refused the statement {shown}", reason="refused", **facts)
    if isinstance(error, TimeoutError):
        return TierUnavailableError("the server did not answer in time", reason="timeout", **facts)
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        # So asyncpg says, too, that a connection was gone before the statement started; an internal error it
        # is when the server's last words came while the connection was idle.
        return TierUnavailableError(
            f"the server cannot be reached ({type(error).__name__})", reason="connection", **facts
        )
    return TierError(f"unexpected {type(error).__name__}", reason="bug", **facts)
