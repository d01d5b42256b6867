"""What a Postgres tier holds, counted: for tools, not for traffic."""

from __future__ import annotations

from llmcache_fast.tiers.base import clock_micros
from llmcache_fast.tiers.postgres.connections import Connection
from llmcache_fast.tiers.postgres.tier import _UPKEEP, PostgresTier

# The parts of a partitioned table have the rows; of one that is not, there are none.
_COUNT = """
SELECT (SELECT count(*) FROM {s}.records WHERE envelope IS NOT NULL) AS rows,
       (SELECT count(*) FROM {s}.records WHERE stale_until <= $1) AS expired,
       (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), pg_total_relation_size('{s}.records'))
        FROM pg_inherits WHERE inhparent = '{s}.records'::regclass) AS bytes,
       (SELECT count(*) FROM {s}.clocks) AS namespaces,
       (SELECT count(*) FROM {s}.markers) AS markers,
       (SELECT count(*) FROM {s}.leases WHERE until > $1) AS leases
"""


async def census(tier: PostgresTier) -> dict[str, int]:
    """Counts and sizes of an open tier: rows, expired (not purged yet, by this machine's clock), bytes (with
    indexes), namespaces, markers, leases. Walks over the whole table.

    Raises:
        TierError: the server did not answer.
    """
    statement = _COUNT.replace("{s}", f'"{tier.settings.schema}"')

    async def work(connection: Connection) -> dict[str, int]:
        row = await connection.fetchrow(statement, clock_micros())
        return {name: int(value) for name, value in row.items()}

    return await tier._call("census", work, patience=_UPKEEP)  # noqa: SLF001 - a part of the tier
