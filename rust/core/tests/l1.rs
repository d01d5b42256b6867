//! L1 against its contract: scenarios by hand, and random operations against a plain model.

#[path = "l1/lifetime.rs"]
mod lifetime;
#[path = "l1/model.rs"]
mod model;
#[path = "l1/room.rs"]
mod room;

use llmcache_core::l1::{Config, L1, NEVER, NewEntry, Policy, ShardStats};

fn key(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn entry<V, F>(n: u64, value: V, bytes: u64) -> NewEntry<V, F> {
    NewEntry {
        key: key(n),
        value,
        payload_bytes: bytes,
        facts: None,
        facts_bytes: 0,
        created: 0,
        fresh_until: NEVER,
        stale_until: NEVER,
        cost: 100,
        epoch: 1,
        snap: 1,
        checked: 1,
    }
}

fn tier() -> L1<u64, Vec<u64>> {
    L1::new(Config::new(1 << 20))
}

fn total(l1: &L1<impl Sized, impl Sized, impl Policy>) -> ShardStats {
    l1.stats()
        .into_iter()
        .fold(ShardStats::default(), |sum, one| ShardStats {
            hits: sum.hits + one.hits,
            hit_cost: sum.hit_cost + one.hit_cost,
            stale_hits: sum.stale_hits + one.stale_hits,
            misses: sum.misses + one.misses,
            inserts: sum.inserts + one.inserts,
            replaced: sum.replaced + one.replaced,
            evictions: sum.evictions + one.evictions,
            evicted_bytes: sum.evicted_bytes + one.evicted_bytes,
            evicted_cost: sum.evicted_cost + one.evicted_cost,
            expirations: sum.expirations + one.expirations,
            invalidated: sum.invalidated + one.invalidated,
            removed: sum.removed + one.removed,
            older: sum.older + one.older,
            too_large: sum.too_large + one.too_large,
            not_admitted: sum.not_admitted + one.not_admitted,
            len: sum.len + one.len,
            bytes: sum.bytes + one.bytes,
            capacity: sum.capacity + one.capacity,
        })
}
