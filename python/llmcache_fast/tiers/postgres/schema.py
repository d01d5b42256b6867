"""The tier's tables: numbered SQL files, run once each, in order, by one process at a time.

The number of the last file is the version of the schema. A file that has been released is never changed.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import asyncpg

from llmcache_fast._errors import TierUnavailableError
from llmcache_fast.tiers.postgres.connections import Connection
from llmcache_fast.tiers.postgres.errors import NAME

_OPTIONS = "WITH (toast_tuple_target = 8160)"


def _files() -> list[tuple[int, str]]:
    folder = resources.files("llmcache_fast.tiers.postgres") / "sql"
    found = [(file.name, file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted((int(name.partition("_")[0]), text) for name, text in found)


VERSION = len(_files())
"""The schema this version of the package works with."""


def scripts(schema: str, partitions: int = 0) -> list[tuple[int, str]]:
    """Version and SQL of each file, names put in."""
    records = f'"{schema}".records'
    if partitions:
        storage = "\n".join(
            f'CREATE TABLE "{schema}".records_{number} PARTITION OF {records} '
            f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number}) {_OPTIONS};"
            for number in range(partitions)
        )
    else:
        storage = f"ALTER TABLE {records} SET {_OPTIONS.removeprefix('WITH ')};"
    words = {
        "{schema}": f'"{schema}"',
        "{partition_by}": "PARTITION BY HASH (key)" if partitions else "",
        "{partitions}": storage,
    }
    made = []
    for number, text in _files():
        script = text + "INSERT INTO {schema}.migrations (version) VALUES " + f"({number});\n"
        for word, meaning in words.items():
            script = script.replace(word, meaning)
        made.append((number, script))
    return made


async def version(connection: Connection, schema: str) -> int:
    """The version that is there; 0 when there are no tables.

    Raises:
        asyncpg.InsufficientPrivilegeError: the role may not look.
    """
    try:
        found = await connection.fetchval(f'SELECT max(version) FROM "{schema}".migrations')
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return 0
    return int(found or 0)


async def migrate(connection: Connection, schema: str, partitions: int) -> tuple[int, int]:
    """Bring the tables to `VERSION`, in one transaction; the version before and after.

    Processes that start together take turns, by an advisory lock that lasts as long as the transaction, so it
    works behind a pooler too. A newer schema is left as it is.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _lock(schema))
        # Not CREATE SCHEMA IF NOT EXISTS: that asks for the right to create one even if it exists.
        if not await connection.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        there = await connection.fetchval("SELECT to_regclass($1)::text", f'"{schema}".migrations')
        before = await version(connection, schema) if there else 0
        for number, script in scripts(schema, partitions):
            if number > before:
                await connection.execute(script)
    return before, max(before, VERSION)


def check(found: int, schema: str) -> None:
    """Refuse a schema that this version cannot work with.

    Raises:
        TierUnavailableError: with what to do.
    """
    if found > VERSION:
        raise TierUnavailableError(
            f"the schema {schema!r} has version {found}, this package knows {VERSION}: upgrade llmcache_fast",
            tier=NAME,
            operation="open",
            reason="newer",
        )
    if found < VERSION:
        state = f"has version {found}, this package needs {VERSION}" if found else "has no tables of the tier"
        raise TierUnavailableError(
            f"the schema {schema!r} {state}: run `llmcache-fast migrate URL` with a role that owns it",
            tier=NAME,
            operation="open",
            reason="schema",
        )


def _lock(schema: str) -> int:
    digest = hashlib.sha256(f"llmcache_fast migrate {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
