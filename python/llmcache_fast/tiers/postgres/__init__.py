"""The Postgres tier: entries shared by all machines, kept for long, searchable.

What belongs here: everything that knows asyncpg or SQL; the schema is in `sql/`, in numbered files. What does
not: reading order, promotion, validity, retries over time (`_lookup`, the core, the actors).

`tier` is the whole of it as others see it. Below: `address` (what a URL says), `connections` (few, bounded in
time), `schema` with `sql/`, `statements`, `rows` and `numbers` (records as the server keeps them), `search`,
`clocks` (markers and rules), `listening` (the connection on which others are heard), `feed` (who follows
what is raised), `leases` (who computes what), `errors`.
"""

from llmcache_fast.tiers.postgres.tier import PostgresTier

__all__ = ["PostgresTier"]
