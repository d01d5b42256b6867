"""What a Redis tier holds, counted: for tools, not for traffic."""

from __future__ import annotations

from llmcache_fast.tiers.redis.replies import accepted, unexpected
from llmcache_fast.tiers.redis.tier import RedisTier
from llmcache_fast.tiers.redis.walk import escaped

_STEP = 500
_KINDS = {b"r": "rows", b"l": "leases", b"c": "namespaces", b"p": "partitions"}
"""By the letter after the prefix."""


async def census(tier: RedisTier) -> dict[str, int]:
    """About how many keys an open tier has, by kind: rows (records and tombstones), leases, namespaces,
    partitions.

    Walks over all keys of the server (`SCAN`), whosever they are: on a large shared one that takes time, and
    what is written meanwhile may be counted twice or not.

    Raises:
        TierError: a server did not answer.
    """
    prefix = tier.address.prefix.encode()
    counts = dict.fromkeys(_KINDS.values(), 0)
    for server in tier._opened("census").primaries():  # noqa: SLF001 - a part of the tier
        cursor = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", escaped(prefix) + b"*", b"COUNT", _STEP)
            (reply,) = await server.exchange([scan], tier.write_budget, "census")
            match accepted(reply, "census"):
                case [bytes(cursor), list(keys)]:
                    for key in keys:
                        kind = _KINDS.get(key[len(prefix) : len(prefix) + 1])
                        if kind is not None:
                            counts[kind] += 1
                case _:
                    unexpected("census")
            if cursor == b"0":
                break
    return counts
