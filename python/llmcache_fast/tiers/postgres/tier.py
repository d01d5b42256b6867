"""The verbs of the Postgres tier: each a statement or two, with its budget."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio
import asyncpg

from llmcache_fast._errors import ConfigurationError, TierUnavailableError
from llmcache_fast.tiers.base import MAX_MARKERS, Asked, Changes, PutReport, Raised, SearchPage, StoredRecord
from llmcache_fast.tiers.postgres import address, errors, rows, schema, search
from llmcache_fast.tiers.postgres.connections import (
    Connection,
    Connections,
    PoolStatistics,
    closed,
    desynchronised,
)
from llmcache_fast.tiers.postgres.leases import Leases
from llmcache_fast.tiers.postgres.numbers import capped, to_signed, to_unsigned
from llmcache_fast.tiers.postgres.statements import Statements

T = TypeVar("T")

MAX_RECORD = 64 << 20
"""Bytes of an envelope; larger ones are refused."""
TOMBSTONE = 60.0
"""Seconds that a deletion keeps older writes out: longer than a write may be on its way."""
_PATIENT = 8
"""A write may take this many budgets: no caller waits for it, and half a batch is no gain."""
_UPKEEP = 40
"""The same for one batch of purging, clearing or searching."""
_OPENING = 120
"""The same for the making of tables, which may wait for another process that makes them."""
_CLEAR_BATCH = 5_000


class PostgresTier:
    """Entries in a PostgreSQL database, shared by all that can reach it, searchable by their facts.

    Guarantee: what `put_many` returned for is as durable as the server's commits are; a marker that
    `raise_markers` returned for is synced to the server's disk even where its other commits are not. A record
    never replaces one of its epoch with a newer snap, whatever the order in which writes arrive.

    Each call ends within its budget, `busy` when all connections were in use, or as `TierUnavailableError`;
    writes have eight budgets. It runs on asyncio only, in the event loop and process that opened it.

    >>> PostgresTier.from_url("postgresql://app:secret@db/llm?connections=8")
    PostgresTier('postgresql://db/llm', schema='llmcache')
    """

    name = errors.NAME

    def __init__(
        self, dsn: str, settings: address.Settings, *, clock: Callable[[], int] | None = None
    ) -> None:
        """`dsn` as asyncpg takes it. `clock`, in microseconds, stands in for the server's: for tests."""
        self.settings = settings
        self.read_budget, self.write_budget = settings.budget, settings.budget * _PATIENT
        self._dsn = dsn
        self._clock = clock
        self._sql = Statements.of(settings.schema)
        self._pool: Connections | None = None
        self._leases: Leases | None = None
        self._seen: dict[int, tuple[int, int]] = {}
        """Epoch and highest seq of each clock as this process has seen it."""

    @classmethod
    def from_url(cls, url: str, *, clock: Callable[[], int] | None = None) -> PostgresTier:
        """The tier of a `postgresql://` address.

        Options: `schema`, `connections`, `budget` and `connect_timeout` (seconds), `pooler=transaction`,
        `migrate` (0: never change the schema), `partitions`; and those of libpq that asyncpg knows.

        Raises:
            ConfigurationError: an address or option that cannot work.
        """
        return cls(*address.parse(url), clock=clock)

    def __repr__(self) -> str:
        return f"PostgresTier({address.without_secrets(self._dsn)!r}, schema={self.settings.schema!r})"

    # -- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and make or check the tables.

        Raises:
            TierUnavailableError: the server cannot be used, or its tables are not there and may not be made.
        """
        if self._pool is not None:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise TierUnavailableError(
                "asyncpg runs on asyncio, this event loop is another",
                tier=self.name,
                operation="open",
                reason="event_loop",
            ) from None
        pool = Connections(self._connect, self.settings.connections)
        try:
            await self._prepare(pool)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await pool.aclose(self.settings.budget)
            raise
        self._leases = Leases(
            pool,
            self._sql,
            self.settings.schema,
            listen=None if self.settings.pooler else self._connect,
            clock=self._clock,
            budget=self.settings.budget,
        )
        self._pool = pool

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        leases, self._leases = self._leases, None
        with anyio.CancelScope(shield=True):
            if leases is not None:
                await leases.aclose()
            if pool is not None:
                await pool.aclose(self.settings.budget)

    async def migrate(self) -> tuple[int, int]:
        """Bring the tables to this version of the package; the version before (0: none) and after.

        The tier need not be open. One process at a time does it, the others wait.

        Raises:
            TierUnavailableError: the server cannot be reached, or the role may not do it.
        """
        pool = Connections(self._connect, 1)
        try:
            return await self._migrate(pool)
        finally:
            with anyio.CancelScope(shield=True):
                await pool.aclose(self.settings.budget)

    def suspect(self) -> None:
        """A record was not what was asked for: use no connection of now again (I9)."""
        if self._pool is not None:
            self._pool.forget()

    def statistics(self) -> PoolStatistics | None:
        """The connections; None while the tier is closed."""
        return None if self._pool is None else self._pool.statistics()

    async def _prepare(self, pool: Connections) -> None:
        async def work(connection: Connection) -> int:
            return await schema.version(connection, self.settings.schema)

        found = await pool.call("open", work, self.settings.connect_timeout)
        if found < schema.VERSION and self.settings.migrate:
            found = (await self._migrate(pool))[1]
        schema.check(found, self.settings.schema)

    async def _migrate(self, pool: Connections) -> tuple[int, int]:
        async def work(connection: Connection) -> tuple[int, int]:
            return await schema.migrate(connection, self.settings.schema, self.settings.partitions)

        try:
            return await pool.call("migrate", work, self.settings.budget * _OPENING)
        except TierUnavailableError as error:
            if error.reason != "permission":
                raise
            raise TierUnavailableError(
                f"{error.message}. Let the database's owner run CREATE SCHEMA {self.settings.schema} "
                "AUTHORIZATION <the role>, or `llmcache-fast migrate URL`, and open with migrate=0",
                tier=self.name,
                operation="migrate",
                reason="permission",
            ) from None

    async def _connect(self) -> Connection:
        server: dict[str, str] = {"application_name": "llmcache_fast"}
        if not self.settings.pooler:
            # A pooler would have to be told to let these pass. What the client gave up must not go on.
            milliseconds = self.settings.budget * 1000
            server |= {
                "lock_timeout": str(max(1, round(milliseconds))),
                "statement_timeout": str(max(1, round(milliseconds * _OPENING))),
                "idle_in_transaction_session_timeout": str(max(1, round(milliseconds * _OPENING))),
                "default_transaction_isolation": "read committed",
                "jit": "off",
            }
        return await asyncpg.connect(
            self._dsn,
            timeout=self.settings.connect_timeout,
            # Behind a pooler a named statement may be on another server connection than its next use.
            statement_cache_size=0 if self.settings.pooler else 100,
            max_cached_statement_lifetime=0,
            server_settings=server,
        )

    # -- records --------------------------------------------------------------------------------------

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        given = _checked(keys)
        if not given:
            return []

        async def work(connection: Connection) -> list[bytes | None]:
            found: dict[bytes, bytes | None] = dict.fromkeys(given)
            for key, envelope in await connection.fetch(self._sql.get, list(found)):
                if key not in found:
                    raise desynchronised(connection, "get_many")
                found[key] = envelope
            return [found[key] for key in given]

        return await self._call("get_many", work)

    async def put_many(self, records: Sequence[StoredRecord]) -> PutReport:
        fitting = [record for record in records if len(record.envelope) <= MAX_RECORD]
        _checked([record.key for record in fitting])
        stored = 0
        for lot in rows.rounds(fitting):
            columns = rows.columns(lot)

            async def work(connection: Connection, columns: list[list[Any]] = columns) -> int:
                status = await connection.execute(self._sql.put, *columns, self._now())
                return int(status.rpartition(" ")[2])

            stored += await self._call("put_many", work, patience=_PATIENT)
        return PutReport(stored, len(fitting) - stored, len(records) - len(fitting))

    async def delete_many(self, keys: Sequence[bytes], stamp: tuple[int, int] | None = None) -> int:
        given = sorted(set(_checked(keys)))
        if not given:
            return 0

        async def work(connection: Connection) -> int:
            if stamp is None:
                return int(await connection.fetchval(self._sql.delete, given))
            epoch, seq = to_signed(stamp[0]), to_signed(stamp[1])
            life = round(TOMBSTONE * 1_000_000)
            return int(await connection.fetchval(self._sql.bury, given, epoch, seq, life, self._now()))

        return await self._call("delete_many", work, patience=_PATIENT)

    async def purge(self, now: int, limit: int = 1000) -> int:
        """Delete up to `limit` records and tombstones whose time has passed; how many were.

        Rows that others write are passed over, and nobody who reads waits. Beside it, leases that ended are
        deleted, and the markers of a namespace that has more than `MAX_MARKERS` are halved: the namespace's
        own marker is raised to the youngest that goes, so that an entry older than that is invalid for
        whoever did not hear of them. Too strict, never too lax, as in the core.
        """

        async def work(connection: Connection) -> int:
            gone = int(await connection.fetchval(self._sql.purge, capped(now), limit))
            await connection.execute(self._sql.purge_leases, limit, self._now())
            for row in await connection.fetch(self._sql.crowded, MAX_MARKERS):
                await connection.execute(self._sql.trim, row[0], MAX_MARKERS)
            return gone

        return await self._call("purge", work, patience=_UPKEEP)

    async def clear(self) -> int:
        """Delete every record, tombstones too, in batches of 5,000; how many records were."""
        total, last = 0, b""
        while True:

            async def work(connection: Connection, last: bytes = last) -> tuple[int, str | None]:
                row = await connection.fetchrow(self._sql.clear, last, _CLEAR_BATCH)
                return int(row[0]), row[1]

            count, end = await self._call("clear", work, patience=_UPKEEP)
            total += count
            if end is None:
                return total
            last = bytes.fromhex(end)

    async def search(
        self,
        namespace: str,
        *,
        label: str | None = None,
        tags: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
        created_before: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SearchPage:
        """Facts of stored records, newest first: at most `limit` (10,000), and a cursor when there are more.

        Args:
            namespace: whose.
            label: a path, or all below one: `content/blog/*`.
            tags: all of these.
            model: as the entry says.
            created_after: microseconds since 1970, itself not included.
            created_before: the same.
            limit: of this page.
            cursor: of the page before.

        Records that hide their facts are not found; those past their `stale_until` neither.

        Raises:
            ConfigurationError: a condition that cannot be.
            TierError: the tier failed.
        """
        statement, values = search.query(
            self.settings.schema,
            namespace,
            label=label,
            tags=tags,
            model=model,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
            now=self._now(),
        )

        async def work(connection: Connection) -> list[Any]:
            found: list[Any] = await connection.fetch(statement, *values)
            return found

        return search.page(await self._call("search", work, patience=_UPKEEP), limit)

    # -- clocks and markers ---------------------------------------------------------------------------

    async def raise_markers(
        self,
        namespace: int,
        targets: Sequence[int],
        rules: Sequence[bytes] = (),
        *,
        forget: Sequence[bytes] = (),
    ) -> Raised:
        space = to_signed(namespace)
        given = sorted({to_signed(target) for target in targets})

        async def work(connection: Connection) -> tuple[int, int]:
            seen_epoch, seen = self._seen.get(space, (None, None))
            row = await connection.fetchrow(
                self._sql.raise_markers, space, _random_epoch(), self._now(), given, seen_epoch, seen
            )
            return row[0], row[1]

        return Raised(*self._see(space, await self._call("raise_markers", work, patience=_PATIENT)), 0)

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        found = []
        for namespace, known, seen in asked:
            epoch, seq = await self._epoch(namespace)
            markers = await self._markers_since(namespace, seen if epoch == known else 0)
            found.append(Changes(epoch, seq, markers))
        return found

    async def _markers_since(self, namespace: int, seq: int) -> list[tuple[int, int]]:
        space, since = to_signed(namespace), capped(seq)

        async def work(connection: Connection) -> list[tuple[int, int]]:
            found = await connection.fetch(self._sql.markers, space, since)
            return [(to_unsigned(target), marked) for target, marked in found]

        return await self._call("markers_since", work)

    async def _epoch(self, namespace: int) -> tuple[int, int]:
        space = to_signed(namespace)

        async def work(connection: Connection) -> tuple[int, int]:
            row = await connection.fetchrow(self._sql.epoch, space)
            if row is None:
                await connection.execute(self._sql.new_clock, space, _random_epoch(), self._now())
                row = await connection.fetchrow(self._sql.epoch, space)
            seen_epoch, seen = self._seen.get(space, (None, 0))
            if row[0] == seen_epoch and row[1] < seen:
                # Or a reply that others overtook; the statement looks again.
                await connection.execute(self._sql.new_epoch, space, seen_epoch, seen, _random_epoch())
                row = await connection.fetchrow(self._sql.epoch, space)
            return row[0], row[1]

        return self._see(space, await self._call("epoch", work))

    def _see(self, space: int, reading: tuple[int, int]) -> tuple[int, int]:
        epoch, seq = reading
        seen_epoch, seen = self._seen.get(space, (None, 0))
        self._seen[space] = epoch, max(seq, seen) if epoch == seen_epoch else seq
        return to_unsigned(epoch), seq

    # -- leases ---------------------------------------------------------------------------------------

    async def get_or_lease_many(
        self, keys: Sequence[bytes], token: bytes, seconds: float
    ) -> list[tuple[bytes | None, bool]]:
        given = _checked(keys)
        return await self._book("get_or_lease_many").get_or_take(given, token, seconds) if given else []

    async def lease_many(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        given = _checked(keys)
        return await self._book("lease_many").take(given, token, seconds) if given else []

    async def renew_leases(self, keys: Sequence[bytes], token: bytes, seconds: float) -> list[bool]:
        given = _checked(keys)
        return await self._book("renew_leases").renew(given, token, seconds) if given else []

    async def release_leases(self, keys: Sequence[bytes], token: bytes) -> None:
        given = _checked(keys)
        if given:
            await self._book("release_leases").release(given, token)

    async def lease_released(self, key: bytes) -> None:
        """Return when nobody holds the lease of `key` any more: released, or ended.

        Heard of at once over a connection that listens; by looking every 0.1 s behind a pooler.
        """
        await self._book("lease_released").released(*_checked([key]))

    # -- all of them ----------------------------------------------------------------------------------

    async def _call(
        self, operation: str, work: Callable[[Connection], Awaitable[T]], *, patience: int = 1
    ) -> T:
        if self._pool is None:
            raise closed(operation)
        return await self._pool.call(operation, work, self.settings.budget * patience)

    def _book(self, operation: str) -> Leases:
        if self._leases is None:
            raise closed(operation)
        return self._leases

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()


def _random_epoch() -> int:
    return to_signed(random.SystemRandom().getrandbits(64))


def _checked(keys: Sequence[bytes]) -> list[bytes]:
    for key in keys:
        if len(key) != 32:
            raise ConfigurationError(f"a key is a fingerprint of 32 bytes, this one has {len(key)}")
    return list(keys)
