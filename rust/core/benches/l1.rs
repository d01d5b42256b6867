//! L1's operations: 100,000 entries of 2 KB charged, zipfian look-ups, beside a `HashMap` behind a
//! lock, which has neither bound nor time to live.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU64;

use criterion::{Criterion, criterion_group, criterion_main};
use llmcache_core::l1::{Config, L1, Lookup, NewEntry};
use parking_lot::Mutex;

type Key = [u8; 32];
const ENTRIES: u64 = 100_000;

fn key(n: u64) -> Key {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn entry(n: u64) -> NewEntry<NonZeroU64, ()> {
    stored(key(n))
}

fn stored(key: Key) -> NewEntry<NonZeroU64, ()> {
    NewEntry {
        key,
        value: NonZeroU64::MIN,
        payload_bytes: 2048,
        facts: None,
        facts_bytes: 0,
        created: 0,
        fresh_until: 1 << 50,
        stale_until: 1 << 51,
        cost: 1000 + u64::from(key[31]) * 40,
        epoch: 1,
        snap: 1,
        checked: 1,
    }
}

/// A zipfian (0.9) sequence of keys, longer than any branch predictor's memory.
fn lookups() -> Vec<Key> {
    let mut sums = Vec::new();
    let mut sum = 0.0_f64;
    for rank in 1..=u32::try_from(ENTRIES).unwrap_or(u32::MAX) {
        sum += f64::from(rank).powf(-0.9);
        sums.push(sum);
    }
    let mut state = 1_u64;
    (0..1 << 18)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX);
            key(sums.partition_point(|&before| before < unit * sum) as u64)
        })
        .collect()
}

fn benches(c: &mut Criterion) {
    let keys = lookups();
    let l1 = L1::<NonZeroU64, ()>::new(Config::new(400 << 20));
    let mut map = HashMap::new();
    for n in 0..ENTRIES {
        drop(l1.insert(entry(n), 0));
        map.insert(key(n), n);
    }
    let map = Mutex::new(map);
    let mut at = 0;
    let mut next = || {
        at = (at + 1) & (keys.len() - 1);
        &keys[at]
    };
    c.bench_function("hit/l1", |b| {
        b.iter(|| matches!(l1.get(next(), 1, 1, |_| true), Lookup::Fresh(_)));
    });
    c.bench_function("hit/locked hashmap", |b| {
        b.iter(|| black_box(map.lock().get(next()).copied()));
    });

    let full = L1::<NonZeroU64, ()>::new(Config::new(ENTRIES * (2048 + 170)));
    let mut n = 0;
    for _ in 0..ENTRIES * 2 {
        n += 1;
        drop(full.insert(entry(n), 0));
    }
    // Keys are made beforehand: hashing is not what is measured.
    let entries: Vec<Key> = (0..1 << 20).map(|n| key(n + ENTRIES * 3)).collect();
    let mut at = 0;
    c.bench_function("insert evicting/l1", |b| {
        b.iter(|| {
            at = (at + 1) & (entries.len() - 1);
            full.insert(stored(entries[at]), 0)
        });
    });
    c.bench_function("miss/l1", |b| {
        b.iter(|| {
            at = (at + 1) & (entries.len() - 1);
            matches!(l1.get(&entries[at], 1, 1, |_| true), Lookup::Miss)
        });
    });
}

criterion_group!(l1, benches);
criterion_main!(l1);
