"""The verbs of the Postgres tier: each a statement or two, with its budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio

from llmcache_fast._errors import ConfigurationError, TierError, TierUnavailableError
from llmcache_fast.tiers.base import (
    Asked,
    Changes,
    Message,
    PutReport,
    Raised,
    SearchPage,
    StoredRecord,
)
from llmcache_fast.tiers.postgres import address, errors, partitions, rows, schema, search
from llmcache_fast.tiers.postgres.clocks import Clocks
from llmcache_fast.tiers.postgres.connections import (
    Connection,
    Connections,
    PoolStatistics,
    closed,
    connect,
    desynchronised,
)
from llmcache_fast.tiers.postgres.feed import Feed
from llmcache_fast.tiers.postgres.leases import Leases
from llmcache_fast.tiers.postgres.listening import Ear
from llmcache_fast.tiers.postgres.numbers import capped, to_signed
from llmcache_fast.tiers.postgres.statements import Statements

T = TypeVar("T")

MAX_RECORD = 64 << 20
"""Bytes of an envelope; larger ones are refused."""
TOMBSTONE = 60.0
"""Seconds that a deletion keeps older writes out: longer than a write may be on its way."""
_PATIENT = 8
"""A write, or a page of a partition, may take this many budgets: no caller waits for it."""
_UPKEEP = 40
"""The same for one batch of purging, clearing or searching."""
_OPENING = 120
"""The same for the making of tables, which may wait for another process that makes them."""
_CLEAR_BATCH = 5_000
_SCAN_BYTES = 4 << 20
"""Of envelopes in one page of a walk, about."""


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
        self._clocks: Clocks | None = None
        self._ear: Ear | None = None
        self._feed: Feed | None = None

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
        channel = f"{self.settings.schema}_raised"
        self._clocks = Clocks(pool, self._sql, channel, self._clock)
        if not self.settings.pooler:
            self._ear = Ear(self._connect)
            self._feed = Feed(self._ear, channel, self._clocks.heard)
        self._leases = Leases(
            pool,
            self._sql,
            self.settings.schema,
            ear=self._ear,
            clock=self._clock,
            budget=self.settings.budget,
        )
        self._pool = pool

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        leases, self._leases = self._leases, None
        feed, self._feed, ear, self._ear = self._feed, None, self._ear, None
        self._clocks = None
        if feed is not None:
            feed.close()
        with anyio.CancelScope(shield=True):
            if leases is not None:
                await leases.aclose()
            if ear is not None:
                ear.close()
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
        return await connect(self._dsn, self.settings, self.settings.budget * _OPENING)

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
            words = partitions.writing(self._sql, lot, self._now())

            async def work(connection: Connection, words: tuple[Any, ...] = words) -> int:
                status = await connection.execute(*words)
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

        Rows that others write are passed over, and nobody who reads waits. Beside it, leases that ended and
        partitions without records are deleted.
        """

        async def work(connection: Connection) -> int:
            gone = int(await connection.fetchval(self._sql.purge, capped(now), limit))
            await connection.execute(self._sql.purge_idle, limit, self._now())
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

    async def scan(
        self, cursor: bytes | None = None, limit: int = 500
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As `ScannableTier`, in the order of the keys: up to `limit` records, fewer when they are large."""

        async def work(connection: Connection) -> list[Any]:
            found: list[Any] = await connection.fetch(self._sql.scan, cursor or b"", limit, _SCAN_BYTES)
            return found

        found = await self._call("scan", work, patience=_UPKEEP)
        return [(key, envelope) for key, envelope in found], found[-1][0] if found else None

    async def members(
        self, partition: bytes, after: bytes | None = None, limit: int = 1000
    ) -> tuple[list[bytes], bytes | None]:
        """As `PartitionedTier`: none is gone, and none is forgotten."""
        work = partial(partitions.page, self._sql, partition, partitions.since(after), limit)
        return await self._call("members", work, patience=_PATIENT)

    async def discard_many(self, stamped: Sequence[tuple[bytes, int, int]]) -> int:
        """As `ScannableTier`."""
        if not stamped:
            return 0
        keys = _checked([key for key, _, _ in stamped])
        stamps = [to_signed(epoch) for _, epoch, _ in stamped], [to_signed(snap) for _, _, snap in stamped]

        async def work(connection: Connection) -> int:
            return int(await connection.fetchval(self._sql.discard, keys, *stamps))

        return await self._call("discard_many", work, patience=_PATIENT)

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
        """As `Authority`: one statement and one transaction; who follows is told when it commits."""
        clocks, budget = self._rooted("raise_markers"), self.settings.budget * _PATIENT
        return await clocks.raise_markers(budget, namespace, targets, rules, forget)

    async def changes(self, asked: Sequence[Asked]) -> list[Changes]:
        """As `Authority`: one statement for all."""
        return await self._rooted("changes").changes(self.settings.budget, asked)

    async def follow(self, heard: Callable[[Message | None], None]) -> None:
        """As `Feed`, by LISTEN. A connection that died without a word is noticed within some four seconds.

        Raises:
            TierError: also with the reason `unsupported`, at once: a pooler in transaction mode lets nobody
                listen. Ask for the changes now and then instead.
        """
        self._rooted("follow")
        if self._feed is None:
            message = "behind a pooler in transaction mode nobody can listen"
            raise TierError(message, tier=self.name, operation="follow", reason="unsupported")
        await self._feed.follow(heard)

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

    def _rooted(self, operation: str) -> Clocks:
        if self._clocks is None:
            raise closed(operation)
        return self._clocks

    def _book(self, operation: str) -> Leases:
        if self._leases is None:
            raise closed(operation)
        return self._leases

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()


def _checked(keys: Sequence[bytes]) -> list[bytes]:
    for key in keys:
        if len(key) != 32:
            raise ConfigurationError(f"a key is a fingerprint of 32 bytes, this one has {len(key)}")
    return list(keys)
