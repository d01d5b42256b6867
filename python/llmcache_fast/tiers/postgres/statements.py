"""The statements on records, clocks and leases, each one round trip. `{s}` is the schema.

Keys are locked in their own order everywhere, so that two batches cannot wait for one another. Where a time
is needed it is the server's, which all machines share, unless one is given (`$n` is null or microseconds).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

_NEVER = "9223372036854775807"
_SIGN = "(-9223372036854775808)::bigint"
_SERVER_MICROS = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def _now(parameter: int) -> str:
    return f"coalesce(${parameter}::bigint, {_SERVER_MICROS})"


def _newer(there: str, given: str) -> str:
    """Of one epoch and a newer snap. Snaps are unsigned: with the sign bit flipped they compare as such."""
    return f"{there}.epoch = {given}.epoch AND ({there}.snap # {_SIGN}) > ({given}.snap # {_SIGN})"


_GET = "SELECT key, envelope FROM {s}.records WHERE key = ANY ($1::bytea[]) AND envelope IS NOT NULL"

_COLUMNS = """
    key, envelope, epoch, snap, stale_until, cost, created, fresh_until,
    namespace, label, model, tags, metadata
"""


def _unnested(more: str = "") -> str:
    return f"""
    unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
           $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[]{more})
    """


_UPSERT = f"""
ON CONFLICT (key) DO UPDATE SET
    envelope = excluded.envelope, epoch = excluded.epoch, snap = excluded.snap,
    stale_until = excluded.stale_until, cost = excluded.cost, created = excluded.created,
    fresh_until = excluded.fresh_until, namespace = excluded.namespace, label = excluded.label,
    model = excluded.model, tags = excluded.tags, metadata = excluded.metadata,
    partition = excluded.partition, arrival = excluded.arrival
WHERE NOT ({_newer("there", "excluded")})
   OR (there.envelope IS NULL AND there.stale_until <= {_now(14)})
"""

_PUT = f"""
INSERT INTO {{s}}.records AS there ({_COLUMNS})
SELECT key, envelope, epoch, snap, stale_until, cost, created, fresh_until,
       namespace, label, model, tags::text[], metadata::jsonb
FROM {_unnested()} AS given ({_COLUMNS})
{_UPSERT}
"""

# Of records some of which have a partition. Its row is locked, in the order of the partitions, before any
# record is written (`sql/0005_partitions.sql`): the last sort has all of them first.
_JOIN = f"""
WITH present AS MATERIALIZED (
    SELECT {_now(14)} AS micros
), given AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY partition ORDER BY place) AS nth,
           count(*) OVER (PARTITION BY partition) AS joining
    FROM {_unnested(", $15::bytea[]")} WITH ORDINALITY AS rows ({_COLUMNS}, partition, place)
), arrived AS MATERIALIZED (
    INSERT INTO {{s}}.partitions AS p (partition, arrival)
    SELECT partition, micros + count(*) FROM given, present
    WHERE partition IS NOT NULL GROUP BY partition, micros ORDER BY partition
    ON CONFLICT (partition) DO UPDATE
    SET arrival = greatest(excluded.arrival, p.arrival + excluded.arrival - (SELECT micros FROM present))
    RETURNING partition, arrival
)
INSERT INTO {{s}}.records AS there ({_COLUMNS}, partition, arrival)
SELECT key, envelope, epoch, snap, stale_until, cost, created, fresh_until,
       namespace, label, model, tags::text[], metadata::jsonb, partition, arrival - joining + nth
FROM given LEFT JOIN arrived USING (partition) ORDER BY key
{_UPSERT}
"""

_MEMBERS = """
SELECT key, arrival FROM {s}.records WHERE partition = $1 AND arrival > $2 ORDER BY arrival LIMIT $3
"""

_DELETE = """
WITH gone AS (
    DELETE FROM {s}.records WHERE key = ANY (ARRAY(
        SELECT key FROM {s}.records WHERE key = ANY ($1::bytea[]) AND envelope IS NOT NULL
        ORDER BY key FOR UPDATE
    )) RETURNING 1
)
SELECT count(*) FROM gone
"""

# What is there is locked and counted first, in the order of the keys; the rows that are not there are made.
_BURY = f"""
WITH there AS MATERIALIZED (
    SELECT key, envelope IS NOT NULL AS live FROM {{s}}.records
    WHERE key = ANY ($1::bytea[]) ORDER BY key FOR UPDATE
), counted AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE live) AS live FROM there
), buried AS (
    INSERT INTO {{s}}.records AS old (key, epoch, snap, stale_until, cost, created, fresh_until)
    SELECT given.key, $2::bigint, $3::bigint, {_now(5)} + $4::bigint, 0, 0, 0
    FROM unnest($1::bytea[]) AS given (key), counted
    ON CONFLICT (key) DO UPDATE SET
        envelope = NULL, namespace = NULL, label = NULL, model = NULL, tags = NULL, metadata = NULL,
        partition = NULL, arrival = NULL, epoch = excluded.epoch, cost = 0, created = 0, fresh_until = 0,
        snap = CASE WHEN old.envelope IS NULL AND {_newer("old", "excluded")} THEN old.snap
                    ELSE excluded.snap END,
        stale_until = CASE WHEN old.envelope IS NULL AND {_newer("old", "excluded")}
                           THEN greatest(old.stale_until, excluded.stale_until)
                           ELSE excluded.stale_until END
)
SELECT live FROM counted
"""

_PURGE = f"""
WITH gone AS (
    DELETE FROM {{s}}.records WHERE key = ANY (ARRAY(
        SELECT key FROM {{s}}.records WHERE stale_until <= $1 AND stale_until < {_NEVER}
        ORDER BY stale_until LIMIT $2 FOR UPDATE SKIP LOCKED
    )) RETURNING 1
)
SELECT count(*) FROM gone
"""

# By ranges of keys: looking for the next rows from the start would step over all that was deleted before.
_CLEAR = """
WITH batch AS MATERIALIZED (
    SELECT key FROM {s}.records WHERE key > $1 ORDER BY key LIMIT $2 FOR UPDATE
), gone AS (
    DELETE FROM {s}.records AS r USING batch WHERE r.key = batch.key RETURNING r.envelope IS NOT NULL AS live
)
SELECT (SELECT count(*) FROM gone WHERE live) AS live, (SELECT max(encode(key, 'hex')) FROM batch) AS last
"""

# Rows are weighed before they are read: `sum` of sizes that the server knows without fetching what is large.
_SCAN = """
SELECT key, envelope FROM (
    SELECT key, envelope, sum(size) OVER (ORDER BY key) - size AS before FROM (
        SELECT key, envelope, octet_length(envelope) AS size FROM {s}.records
        WHERE key > $1 AND envelope IS NOT NULL ORDER BY key LIMIT $2
    ) AS page
) AS weighed
WHERE before < $3 ORDER BY key
"""

# A row that somebody writes is waited for, and judged as it is then.
_DISCARD = """
WITH gone AS (
    DELETE FROM {s}.records WHERE key = ANY (ARRAY(
        SELECT r.key FROM {s}.records AS r
        JOIN unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS given (key, epoch, snap)
          ON r.key = given.key AND r.epoch = given.epoch AND r.snap = given.snap
        WHERE r.envelope IS NOT NULL ORDER BY r.key FOR UPDATE OF r
    )) RETURNING 1
)
SELECT count(*) FROM gone
"""

_RAISE = """
SELECT new_epoch, new_seq, prev
FROM {s}.raise_markers($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""

_CHANGES = """
SELECT place, epoch, seq, targets, target_seqs, rules, rule_seqs
FROM {s}.changes($1, $2, $3, $4, $5, $6, $7) ORDER BY place
"""

_GET_OR_LEASE = "SELECT key, envelope, held FROM {s}.get_or_lease($1, $2, $3, $4)"

_LEASE = f"""
INSERT INTO {{s}}.leases AS l (key, token, until)
SELECT given.key, $2, {_now(4)} + $3::bigint FROM unnest($1::bytea[]) AS given (key) ORDER BY given.key
ON CONFLICT (key) DO UPDATE SET token = excluded.token, until = excluded.until
WHERE l.until <= {_now(4)} OR l.token = excluded.token
RETURNING key
"""

_RENEW = f"""
UPDATE {{s}}.leases SET until = {_now(4)} + $3::bigint
WHERE key = ANY (ARRAY(SELECT key FROM {{s}}.leases
                       WHERE key = ANY ($1::bytea[]) AND token = $2 AND until > {_now(4)}
                       ORDER BY key FOR UPDATE))
RETURNING key
"""

_RELEASE = """
WITH gone AS (
    DELETE FROM {s}.leases WHERE key = ANY (ARRAY(
        SELECT key FROM {s}.leases WHERE key = ANY ($1::bytea[]) AND token = $2 ORDER BY key FOR UPDATE
    )) RETURNING key
)
SELECT pg_notify($3, encode(key, 'hex')) FROM gone
"""

_LEASED = f"SELECT key FROM {{s}}.leases WHERE key = ANY ($1::bytea[]) AND until > {_now(2)}"

# Partitions only if nothing arrived in them for a while: none is deleted that is being written into.
_PURGE_IDLE = f"""
WITH idle AS (
    DELETE FROM {{s}}.partitions WHERE partition = ANY (ARRAY(
        SELECT p.partition FROM {{s}}.partitions AS p
        WHERE p.arrival <= {_now(2)} - 3600000000
          AND NOT EXISTS (SELECT FROM {{s}}.records AS r WHERE r.partition = p.partition)
        LIMIT $1 FOR UPDATE SKIP LOCKED
    ))
)
DELETE FROM {{s}}.leases WHERE key = ANY (ARRAY(
    SELECT key FROM {{s}}.leases WHERE until <= {_now(2)} LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""


@dataclass(frozen=True, slots=True)
class Statements:
    """All of them, for one schema."""

    get: str = _GET
    put: str = _PUT
    join: str = _JOIN
    members: str = _MEMBERS
    delete: str = _DELETE
    bury: str = _BURY
    purge: str = _PURGE
    clear: str = _CLEAR
    scan: str = _SCAN
    discard: str = _DISCARD
    raise_markers: str = _RAISE
    changes: str = _CHANGES
    get_or_lease: str = _GET_OR_LEASE
    lease: str = _LEASE
    renew: str = _RENEW
    release: str = _RELEASE
    leased: str = _LEASED
    purge_idle: str = _PURGE_IDLE

    @classmethod
    def of(cls, schema: str) -> Statements:
        return cls(*(str(field.default).replace("{s}", f'"{schema}"') for field in fields(cls)))
