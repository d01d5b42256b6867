//! L1, the tier in this process: entries bounded in bytes, each hit one lock, two cache lines, no clock.
//!
//! What belongs here: storage, freshness, byte accounting, eviction and exact counters. What does
//! not: what an invalidation means (callers pass a validity check), where time comes from (it is
//! passed in), what a value is (`V` is cloned out, never looked into).
//!
//! # Memory
//! [`L1::bytes`] counts what is allocated, not what is used, and never exceeds the capacity:
//! `shards x size of an empty shard + sum(payload_bytes + facts_bytes) + slots x 128 + cells x 8 + deadlines x 8`
//! plus whatever the policy keeps. In steady state that is about [`ENTRY_BYTES`] per entry beyond
//! payload and facts.
//!
//! # Forking
//! A forked child must not touch a lock that another thread of the parent may hold. It makes a
//! new tier with [`L1::renewed`], which takes no lock, and leaks the old one (`mem::forget`).

mod ahead;
mod entry;
pub mod eviction;
mod expiry;
mod heap;
mod shard;
mod stats;
mod table;

use crate::lock::Lock;
use shard::Shard;

pub use entry::{Dropped, EntryView, Inserted, Lookup, NewEntry, Outcome, Parted, Touch};
pub use eviction::{Ours, Policy};
pub use stats::ShardStats;

/// A time that never comes.
pub const NEVER: i64 = i64::MAX;

/// Bytes of bookkeeping an entry is taken to cost when policies weigh it: a slot (128), its index
/// cell (12), history and deadline (10).
pub const ENTRY_BYTES: u64 = 150;

/// One shard per this many bytes: small caches are not cut into shards too small for their entries.
const BYTES_PER_SHARD: u64 = 16 << 20;

/// At most this many shards per core: with more, contention no longer falls but each shard's policy sees less.
const SHARDS_PER_CORE: u64 = 4;

/// Slots visited per lock hold by [`L1::for_each`].
const SCAN: u32 = 128;

/// How to build an [`L1`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes allowed for everything: payloads, facts, bookkeeping.
    pub capacity: u64,
    /// Shards; `None` = one per 16 MiB, at most four per core. The capacity is divided evenly.
    pub shards: Option<u32>,
}

impl Config {
    /// `capacity` bytes and the default number of shards.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            shards: None,
        }
    }
}

/// What a shard found; slots never leave the module.
#[derive(Debug, Clone, Copy)]
enum Found {
    Fresh(u32),
    Stale(u32),
    Nothing,
}

/// Own cache lines for each shard's lock and header.
#[repr(align(128))]
struct Padded<T>(Lock<T>);

/// The in-process tier. `V` is what a hit clones out, `F` the facts a validity check reads, `P` the
/// eviction policy.
pub struct L1<V, F, P: Policy = Ours> {
    shards: Box<[Padded<Shard<V, F, P>>]>,
    config: Config,
    /// Held while the shards are told.
    reserved: Lock<u64>,
}

impl<V, F, P: Policy> std::fmt::Debug for L1<V, F, P> {
    /// Configuration only: values may be secret, and formatting takes no lock.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("L1")
            .field("config", &self.config)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl<V, F, P: Policy> L1<V, F, P> {
    /// Allocates nothing but the shards' headers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let automatic = (config.capacity / BYTES_PER_SHARD).clamp(1, cores * SHARDS_PER_CORE);
        let count = config.shards.map_or(automatic, u64::from).max(1);
        let shards = (0..count)
            .map(|_| Padded(Lock::new(Shard::new(config.capacity / count))))
            .collect();
        Self {
            shards,
            config,
            reserved: Lock::new(0),
        }
    }

    /// An empty tier of the same configuration, made without touching a lock of this one.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self::new(self.config)
    }

    #[inline]
    fn shard(&self, key: &[u8; 32]) -> &Lock<Shard<V, F, P>> {
        // Other bytes than those that choose the index cell.
        let bits = u32::from_le_bytes([key[4], key[5], key[6], key[7]]);
        let at = ((u64::from(bits) * self.shards.len() as u64) >> 32) as usize;
        &self.shards[at].0
    }

    /// Looks a key up at `now` and counts it. `latest` is the last invalidation seq known to the
    /// process: an entry last checked before it is shown to `valid` once, under the shard's lock;
    /// if it says no, the entry is removed and counted as invalidated, and the look-up is a miss.
    #[inline]
    pub fn get(
        &self,
        key: &[u8; 32],
        now: i64,
        latest: u64,
        valid: impl FnOnce(&EntryView<'_, F>) -> bool,
    ) -> Lookup<V>
    where
        V: Clone,
    {
        let mut shard = self.shard(key).lock();
        let (found, parted) = shard.look(key, now, latest, valid);
        #[cfg(feature = "planted-bug")]
        {
            drop(shard);
            shard = self.shard(key).lock();
        }
        let lookup = match found {
            Found::Fresh(slot) => shard
                .value(slot)
                .cloned()
                .map_or(Lookup::Miss, Lookup::Fresh),
            Found::Stale(slot) => shard
                .value(slot)
                .cloned()
                .map_or(Lookup::Miss, Lookup::Stale),
            Found::Nothing => Lookup::Miss,
        };
        drop(shard);
        drop(parted);
        lookup
    }

    /// As [`get`](Self::get), but reads value and entry in place, under the shard's lock; fresh or stale.
    #[inline]
    pub fn view<R>(
        &self,
        key: &[u8; 32],
        now: i64,
        latest: u64,
        valid: impl FnOnce(&EntryView<'_, F>) -> bool,
        read: impl FnOnce(&V, &EntryView<'_, F>) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(key).lock();
        let (found, parted) = shard.look(key, now, latest, valid);
        let result = match found {
            Found::Fresh(slot) | Found::Stale(slot) => shard.read(slot, read),
            Found::Nothing => None,
        };
        drop(shard);
        drop(parted);
        result
    }

    /// As [`view`](Self::view), leaving statistics, policy and the entry itself untouched.
    pub fn peek<R>(
        &self,
        key: &[u8; 32],
        now: i64,
        latest: u64,
        valid: impl FnOnce(&EntryView<'_, F>) -> bool,
        read: impl FnOnce(&V, &EntryView<'_, F>) -> R,
    ) -> Option<R> {
        let shard = self.shard(key).lock();
        shard.read(shard.glance(key, now, latest, valid)?, read)
    }

    /// Stores an entry at `now`, evicting for room: expired entries first, then the policy's
    /// victims. Never raises [`bytes`](Self::bytes) above the capacity.
    pub fn insert(&self, entry: NewEntry<V, F>, now: i64) -> Inserted<V, F> {
        self.shard(&entry.key).lock().insert(entry, now)
    }

    /// Takes an entry out.
    pub fn remove(&self, key: &[u8; 32]) -> Option<Parted<V, F>> {
        self.shard(key).lock().remove(key)
    }

    /// Ends an entry's freshness at `now`, leaving the stale window; whether there was an entry.
    pub fn expire(&self, key: &[u8; 32], now: i64) -> bool {
        self.shard(key).lock().expire(key, now)
    }

    /// Takes out up to `limit` entries past their `stale_until`. Optional: room is made from
    /// expired entries first in any case. An entry is found at most 66 ms late.
    pub fn remove_expired(&self, now: i64, limit: usize) -> Dropped<V, F> {
        let mut dropped = Dropped::new();
        for shard in &self.shards {
            let left = limit - dropped.len();
            if left == 0 {
                break;
            }
            let more = shard.0.lock().remove_expired(now, left);
            dropped.extend(more);
        }
        dropped
    }

    /// Leaves `bytes` of the capacity to something else that is held beside the entries, in place of what was
    /// left before; what no longer fits is evicted at `now`. Costs look-ups nothing: shards learn it here.
    pub fn reserve(&self, bytes: u64, now: i64) -> Dropped<V, F> {
        let mut reserved = self.reserved.lock();
        *reserved = bytes;
        let capacity = self.config.capacity.saturating_sub(bytes) / self.shards.len() as u64;
        let mut dropped = Dropped::new();
        for shard in &self.shards {
            let more = shard.0.lock().set_capacity(capacity, now);
            dropped.extend(more);
        }
        dropped
    }

    /// Bytes left to something else.
    pub fn reserved(&self) -> u64 {
        *self.reserved.lock()
    }

    /// Takes everything out, shard by shard, and frees the structures.
    pub fn clear(&self) -> Dropped<V, F> {
        let mut dropped = Dropped::new();
        for shard in &self.shards {
            let values = shard.0.lock().clear();
            dropped.extend(values);
        }
        dropped
    }

    /// Exact counters of each shard.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.shards
            .iter()
            .map(|shard| shard.0.lock().stats())
            .collect()
    }

    /// Entries held, expired ones not yet reclaimed included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// Whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes charged: see the module.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.lock().bytes()).sum()
    }

    /// Bytes allowed, reserved ones included.
    pub fn capacity(&self) -> u64 {
        self.config.capacity
    }

    /// Visits the entries shard by shard under its lock, 128 slots per hold, in no order. Entries
    /// stored or removed meanwhile may be seen or not; `each` must not call into this tier.
    pub fn for_each(&self, mut each: impl FnMut(&[u8; 32], &EntryView<'_, F>)) {
        for shard in &self.shards {
            let mut from = Some(0);
            while let Some(slot) = from {
                from = shard.0.lock().scan(slot, SCAN, &mut each);
            }
        }
    }
}
