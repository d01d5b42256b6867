"""The Redis tier: entries shared by many machines, an invalidation clock and leases, on redis-py's asyncio.

`tier` is the whole of it as others see it. Below: `address` (what a URL says), `links` (connections to one
server, and the round trip), `routing` (which server), `scripts` with `lua/` (what the server runs), `replies`
(what an answer means), `values` (what is stored), `patience` (time limits); `clocks` (markers and rules),
`walk` (all records, page by page), `subscription` (the connection on which others are heard), `feed` (who
follows what is raised) and `releases` (who waits for a lease). What does not belong here: anything that looks
into an envelope.

asyncio only, because redis-py is: the one tier besides Postgres in which `asyncio` is imported.
"""

from llmcache_fast.tiers.redis.tier import RedisTier

__all__ = ["RedisTier"]
