"""The Postgres tier: entries shared by all machines, kept for long, searchable.

What belongs here: everything that knows asyncpg or SQL; the schema is in `sql/`, in numbered files. What does
not: reading order, promotion, validity, retries over time (`_lookup`, the core, the actors).
"""

from llmcache_fast.tiers.postgres.tier import PostgresTier

__all__ = ["PostgresTier"]
