//! Random operations against the rules of the tier over a plain map.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use llmcache_core::l1::eviction::{Gdsf, Lru, Ours, S3Fifo, Sieve, WTinyLfu};
use llmcache_core::l1::{Config, L1, Lookup, NEVER, NewEntry, Outcome, Policy, ShardStats};
use proptest::prelude::*;

use crate::{entry, key, total};

/// A value that knows how many of its kind are alive.
#[derive(Debug)]
struct Counted {
    id: u64,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn new(id: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Relaxed);
        Self {
            id,
            alive: alive.clone(),
        }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.id, &self.alive)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert {
        key: u64,
        bytes: u64,
        ttl: Option<i64>,
        stale: i64,
        cost: u64,
        epoch: u64,
        snap: u64,
    },
    Get {
        key: u64,
    },
    Invalidate {
        below: u64,
    },
    Remove {
        key: u64,
    },
    Expire {
        key: u64,
    },
    RemoveExpired {
        limit: usize,
    },
    Clear,
    Wait {
        by: i64,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    let key = 0..60_u64;
    let insert = (
        key.clone(),
        prop_oneof![8 => 0..3000_u64, 1 => 3000..40_000_u64],
        prop::option::of(0..400_000_i64),
        0..400_000_i64,
        0..5000_u64,
        0..2_u64,
        0..20_u64,
    )
        .prop_map(|(key, bytes, ttl, stale, cost, epoch, snap)| Op::Insert {
            key,
            bytes,
            ttl,
            stale,
            cost,
            epoch,
            snap,
        });
    prop_oneof![
        10 => insert,
        10 => key.clone().prop_map(|key| Op::Get { key }),
        1 => (0..20_u64).prop_map(|below| Op::Invalidate { below }),
        2 => key.clone().prop_map(|key| Op::Remove { key }),
        1 => key.prop_map(|key| Op::Expire { key }),
        1 => (0..5_usize).prop_map(|limit| Op::RemoveExpired { limit }),
        1 => Just(Op::Wait { by: 1 }),
        3 => (0..150_000_i64).prop_map(|by| Op::Wait { by }),
        1 => prop::bool::weighted(0.1).prop_map(|clear| if clear { Op::Clear } else { Op::Wait { by: 0 } }),
    ]
}

/// What must be in the tier if it is in at all.
#[derive(Debug, Clone)]
struct Known {
    id: u64,
    fresh_until: i64,
    stale_until: i64,
    epoch: u64,
    snap: u64,
    bytes: u64,
    cost: u64,
}

/// The rules of the tier over a plain map; the tier's choices (who is evicted, refused or expired
/// when) are read off its answers, everything else must agree.
struct Model<P: Policy> {
    l1: L1<Counted, u64, P>,
    alive: Arc<AtomicUsize>,
    known: HashMap<u64, Known>,
    counts: ShardStats,
    now: i64,
    latest: u64,
    marker: u64,
    next: u64,
}

impl<P: Policy> Model<P> {
    fn new(capacity: u64, shards: u32) -> Self {
        Self {
            l1: L1::new(Config {
                capacity,
                shards: Some(shards),
            }),
            alive: Arc::default(),
            known: HashMap::new(),
            counts: ShardStats::default(),
            now: 1_000_000,
            latest: 0,
            marker: 0,
            next: 0,
        }
    }

    /// Entries that left by eviction or expiry: at most once each, and only what was held.
    fn left(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let key = *self
                .known
                .iter()
                .find(|(_, known)| known.id == id)
                .expect("dropped what was not held")
                .0;
            let known = self.known.remove(&key).expect("just found");
            if known.stale_until <= self.now {
                // Expired: whether reclaimed as such or as a policy's victim shows in the counters.
                self.counts.expirations += 1;
            } else {
                self.counts.evictions += 1;
                self.counts.evicted_bytes += known.bytes;
                self.counts.evicted_cost += known.cost;
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert {
                key: n,
                bytes,
                ttl,
                stale,
                cost,
                epoch,
                snap,
            } => {
                self.insert(n, bytes, (ttl, stale), cost, (epoch, snap));
            }
            Op::Get { key: n } => self.get(n),
            Op::Invalidate { below } => {
                self.latest += 1;
                self.marker = self.marker.max(below);
            }
            Op::Remove { key: n } => {
                let removed = self
                    .l1
                    .remove(&key(n))
                    .map(|(value, facts)| (value.id, facts.as_deref().copied()));
                let known = self
                    .known
                    .remove(&n)
                    .map(|known| (known.id, Some(known.id)));
                assert_eq!(removed, known);
                self.counts.removed += u64::from(removed.is_some());
            }
            Op::Expire { key: n } => {
                assert_eq!(
                    self.l1.expire(&key(n), self.now),
                    self.known.contains_key(&n)
                );
                if let Some(known) = self.known.get_mut(&n) {
                    known.fresh_until = known.fresh_until.min(self.now);
                }
            }
            Op::RemoveExpired { limit } => {
                let dropped = self.l1.remove_expired(self.now, limit);
                assert!(dropped.len() <= limit);
                let tick = 1 << 16;
                let due = self
                    .known
                    .values()
                    .filter(|known| known.stale_until <= self.now - tick)
                    .count();
                assert!(dropped.len() >= due.min(limit), "expired entries were left");
                let ids: Vec<u64> = dropped.iter().map(|(value, _)| value.id).collect();
                let before = self.counts.evictions;
                self.left(ids);
                assert_eq!(
                    self.counts.evictions, before,
                    "removed a living entry as expired"
                );
            }
            Op::Clear => {
                let mut ids: Vec<u64> = self.l1.clear().iter().map(|(value, _)| value.id).collect();
                let mut expected: Vec<u64> =
                    self.known.drain().map(|(_, known)| known.id).collect();
                ids.sort_unstable();
                expected.sort_unstable();
                self.counts.removed += expected.len() as u64;
                assert_eq!(ids, expected);
            }
            Op::Wait { by } => self.now += by,
        }
    }

    fn get(&mut self, n: u64) {
        let (marker, now) = (self.marker, self.now);
        let found = match self
            .l1
            .get(&key(n), now, self.latest, |view| view.snap() >= marker)
        {
            Lookup::Fresh(value) => Some((value.id, true)),
            Lookup::Stale(value) => Some((value.id, false)),
            Lookup::Miss => None,
        };
        let expected = self.known.get(&n).cloned().and_then(|known| {
            if known.stale_until <= now {
                self.counts.expirations += 1;
                self.known.remove(&n);
                None
            } else if known.snap < marker {
                self.counts.invalidated += 1;
                self.known.remove(&n);
                None
            } else {
                if now < known.fresh_until {
                    self.counts.hit_cost += known.cost;
                }
                Some((known.id, now < known.fresh_until))
            }
        });
        match expected {
            Some((_, true)) => self.counts.hits += 1,
            Some((_, false)) => self.counts.stale_hits += 1,
            None => self.counts.misses += 1,
        }
        assert_eq!(found, expected);
    }

    fn insert(
        &mut self,
        n: u64,
        bytes: u64,
        (ttl, stale): (Option<i64>, i64),
        cost: u64,
        (epoch, snap): (u64, u64),
    ) {
        self.next += 1;
        let id = self.next;
        let fresh_until = ttl.map_or(NEVER, |ttl| self.now + ttl);
        let stale_until = fresh_until.saturating_add(stale);
        let new = NewEntry {
            facts: Some(Box::new(id)),
            facts_bytes: 16,
            created: self.now,
            fresh_until,
            stale_until,
            cost,
            epoch,
            snap,
            // Like the binding: only what was valid at the latest seq is marked as checked at it.
            checked: 0,
            ..entry(n, Counted::new(id, &self.alive), bytes)
        };
        let inserted = self.l1.insert(new, self.now);
        let stands = self.known.get(&n).is_some_and(|known| {
            self.now < known.stale_until && known.epoch == epoch && known.snap > snap
        });
        assert_eq!(inserted.outcome == Outcome::Older, stands);
        let mut ids: Vec<u64> = inserted.dropped.iter().map(|(value, _)| value.id).collect();
        for (value, facts) in &inserted.dropped {
            assert_eq!(facts.as_deref(), Some(&value.id), "facts of another entry");
        }
        if !stands && let Some(old) = self.known.remove(&n) {
            let at = ids
                .iter()
                .position(|&dropped| dropped == old.id)
                .expect("the replaced value is handed back");
            ids.swap_remove(at);
            if inserted.outcome == Outcome::Replaced {
                self.counts.replaced += 1;
            }
        } else if inserted.outcome == Outcome::Stored {
            self.counts.inserts += 1;
        }
        match inserted.outcome {
            Outcome::Stored | Outcome::Replaced => {
                self.known.insert(
                    n,
                    Known {
                        id,
                        fresh_until,
                        stale_until,
                        epoch,
                        snap,
                        bytes: bytes + 16,
                        cost,
                    },
                );
            }
            refused => {
                let at = ids
                    .iter()
                    .position(|&dropped| dropped == id)
                    .expect("a refused value is handed back");
                ids.swap_remove(at);
                match refused {
                    Outcome::Older => self.counts.older += 1,
                    Outcome::TooLarge => self.counts.too_large += 1,
                    _ => self.counts.not_admitted += 1,
                }
            }
        }
        self.left(ids);
    }

    fn agree(&self) {
        let mut stats = total(&self.l1);
        assert!(
            self.l1
                .stats()
                .iter()
                .all(|shard| shard.bytes <= shard.capacity),
            "{stats:?}"
        );
        assert_eq!(stats.len, self.known.len() as u64);
        assert_eq!(
            self.alive.load(Relaxed),
            self.known.len(),
            "a value was lost or kept"
        );
        // An expired entry may leave as the policy's victim within a tick of its end.
        let mut counts = self.counts;
        let late = stats.evictions.abs_diff(counts.evictions);
        assert!(late <= counts.expirations, "{stats:?} {counts:?}");
        assert_eq!(
            stats.evictions + stats.expirations,
            counts.evictions + counts.expirations
        );
        for one in [&mut stats, &mut counts] {
            (
                one.evictions,
                one.expirations,
                one.len,
                one.bytes,
                one.capacity,
            ) = (0, 0, 0, 0, 0);
            if late > 0 {
                (one.evicted_bytes, one.evicted_cost) = (0, 0);
            }
        }
        assert_eq!(stats, counts);
    }
}

fn agrees<P: Policy>(capacity: u64, shards: u32, ops: &[Op]) {
    let mut model = Model::<P>::new(capacity, shards);
    for op in ops {
        model.apply(op);
        model.agree();
    }
    let Model { l1, alive, .. } = model;
    drop(l1);
    assert_eq!(alive.load(Relaxed), 0, "the tier leaked");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_plain_model(
        capacity in 2000..60_000_u64,
        shards in 1..3_u32,
        ops in prop::collection::vec(ops(), 1..300),
    ) {
        agrees::<Ours>(capacity, shards, &ops);
        agrees::<Lru>(capacity, shards, &ops);
        agrees::<Sieve>(capacity, shards, &ops);
        agrees::<S3Fifo>(capacity, shards, &ops);
        agrees::<WTinyLfu>(capacity, shards, &ops);
        agrees::<Gdsf>(capacity, shards, &ops);
    }
}
