//! Exact counters of one shard, written and read under its lock.

/// Counters since the start, and gauges at the time of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Fresh hits (`view` and `get`, not `peek`).
    pub hits: u64,
    /// Micro-USD of the entries that the fresh hits gave. A hit does not count it, which would cost it a
    /// cache line: an entry's own count of hits is taken when it leaves, and those held are walked here.
    pub hit_cost: u64,
    /// Hits inside the stale window.
    pub stale_hits: u64,
    /// Look-ups that found nothing to serve; expired and invalidated ones are among them.
    pub misses: u64,
    /// Entries stored under a new key.
    pub inserts: u64,
    /// Entries stored over an older one.
    pub replaced: u64,
    /// Entries evicted to make room.
    pub evictions: u64,
    /// Bytes of payload and facts evicted.
    pub evicted_bytes: u64,
    /// Micro-USD of the evicted entries.
    pub evicted_cost: u64,
    /// Entries removed because their `stale_until` had passed.
    pub expirations: u64,
    /// Entries removed because a look-up found them invalid.
    pub invalidated: u64,
    /// Entries removed by `remove` and `clear`.
    pub removed: u64,
    /// Inserts refused because a newer stamp stands.
    pub older: u64,
    /// Inserts refused because of their size.
    pub too_large: u64,
    /// Inserts refused by the policy.
    pub not_admitted: u64,
    /// Entries held.
    pub len: u64,
    /// Bytes charged now: payloads, facts and all structures.
    pub bytes: u64,
    /// Bytes allowed, without its part of what is reserved.
    pub capacity: u64,
}
