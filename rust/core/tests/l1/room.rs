//! Who goes when room is needed, and that the bound holds.

use llmcache_core::l1::eviction::{Gdsf, Lru, Ours, S3Fifo, Sieve, WTinyLfu};
use llmcache_core::l1::{Config, ENTRY_BYTES, L1, Lookup, NEVER, NewEntry, Outcome, Policy};

use crate::{entry, key, tier, total};

#[test]
fn expired_bytes_are_reclaimed_before_anything_is_evicted() {
    let l1 = L1::<u64, Vec<u64>>::new(Config::new(100_000));
    let second = 1_000_000;
    for n in 0..40 {
        let until = if n % 2 == 0 { second } else { NEVER };
        let timed = NewEntry {
            fresh_until: until,
            stale_until: until,
            cost: 1 << 20,
            ..entry(n, n, 2000)
        };
        assert_eq!(l1.insert(timed, 0).outcome, Outcome::Stored);
    }
    for n in 100..115 {
        let _ = l1.insert(entry(n, n, 2000), 2 * second);
    }
    let stats = total(&l1);
    assert_eq!(stats.evictions, 0);
    assert!(stats.expirations > 0);
    for n in (1..40).step_by(2) {
        assert_eq!(l1.get(&key(n), 2 * second, 1, |_| true), Lookup::Fresh(n));
    }
}

#[test]
fn what_a_shard_cannot_hold_is_too_large_and_counted() {
    let l1 = tier();
    assert_eq!(
        l1.insert(entry(1, 1, 1 << 20), 0).outcome,
        Outcome::TooLarge
    );
    assert_eq!(
        l1.insert(entry(1, 1, u64::MAX), 0).outcome,
        Outcome::TooLarge
    );
    assert_eq!(L1::<u64, ()>::new(Config::new(0)).capacity(), 0);
    assert_eq!(total(&l1).too_large, 2);
    // However it was filled before: structures grown for small entries give way.
    for n in 0..10_000 {
        let _ = l1.insert(entry(n, n, 1), 0);
    }
    assert_eq!(
        l1.insert(
            NewEntry {
                cost: u64::MAX,
                ..entry(77_777, 5, 900_000)
            },
            0
        )
        .outcome,
        Outcome::Stored
    );
    assert_eq!(l1.get(&key(77_777), 0, 1, |_| true), Lookup::Fresh(5));
}

fn fills_up<P: Policy>() {
    let l1 = L1::<u64, Vec<u64>, P>::new(Config::new(1 << 20));
    let mut refused = 0;
    for n in 0..20_000 {
        match l1
            .insert(
                NewEntry {
                    cost: n % 7,
                    ..entry(n, n, 100 + n % 1000)
                },
                0,
            )
            .outcome
        {
            Outcome::Stored => {}
            Outcome::NotAdmitted => refused += 1,
            other => panic!("{other:?}"),
        }
        let _ = l1.get(&key(n * 7 % (n + 1)), 0, 1, |_| true);
        assert!(l1.bytes() <= l1.capacity());
    }
    let stats = total(&l1);
    assert_eq!(stats.not_admitted, refused);
    assert_eq!(stats.evictions + stats.len + refused, 20_000);
    assert!(
        stats.bytes > (1 << 20) * 9 / 10,
        "only {} bytes used",
        stats.bytes
    );
    assert!(stats.len * (100 + ENTRY_BYTES) < 1 << 20);
}

#[test]
fn every_policy_fills_a_shard_and_never_exceeds_it() {
    fills_up::<Lru>();
    fills_up::<Sieve>();
    fills_up::<S3Fifo>();
    fills_up::<WTinyLfu>();
    fills_up::<Gdsf>();
    fills_up::<Ours>();
}

#[test]
fn dear_entries_outlive_cheap_ones_and_unknown_costs_count_as_average() {
    let l1 = L1::<u64, Vec<u64>>::new(Config::new(200_000));
    for n in 0..1000 {
        let cost = [1, 10_000, 0][(n % 3) as usize];
        let _ = l1.insert(
            NewEntry {
                cost,
                ..entry(n, n, 1000)
            },
            0,
        );
    }
    let mut kept = [0; 3];
    for n in 0..1000 {
        if l1.peek(&key(n), 0, 1, |_| true, |_, _| ()).is_some() {
            kept[(n % 3) as usize] += 1;
        }
    }
    assert!(kept[1] > kept[0] && kept[2] > kept[0], "{kept:?}");
}

/// Which of `count` entries of 1,000 bytes are held.
fn held<P: Policy>(l1: &L1<u64, Vec<u64>, P>, count: u64) -> Vec<u64> {
    let holds = |n: &u64| l1.peek(&key(*n), 0, 1, |_| true, |_, _| ()).is_some();
    (0..count).filter(holds).collect()
}

fn used_ones_stay<P: Policy>() {
    let l1 = L1::<u64, Vec<u64>, P>::new(Config::new(64_000));
    let mut count = 0;
    while total(&l1).evictions == 0 {
        let _ = l1.insert(entry(count, count, 1000), 0);
        count += 1;
    }
    // Of equal entries the first went. Those used since wait for their turn again, the others do not.
    assert_eq!(held(&l1, count), (1..count).collect::<Vec<_>>());
    for n in [1, 3, 4] {
        assert_eq!(l1.get(&key(n), 0, 1, |_| true), Lookup::Fresh(n));
    }
    l1.remove(&key(7)).expect("from the middle of its list");
    l1.remove(&key(count - 1)).expect("the newest");
    for n in 0..8 {
        let _ = l1.insert(entry(1000 + n, n, 1000), 0);
    }
    let evicted = total(&l1).evictions - 1;
    let unused = [2, 5, 6, 8, 9, 10, 11, 12];
    let gone: Vec<u64> = (0..evicted).zip(unused).map(|(_, n)| n).collect();
    let kept = (1..count - 1).filter(|n| *n != 7 && !gone.contains(n));
    assert!(evicted > 3);
    assert_eq!(held(&l1, count), kept.collect::<Vec<_>>());
}

#[test]
fn of_equal_entries_the_oldest_go_first_and_used_ones_wait_again() {
    used_ones_stay::<Gdsf>();
}

/// Priorities are kept small by passes over the lists, each after the level has risen far enough.
#[test]
fn order_survives_long_runs() {
    let l1 = L1::<u64, Vec<u64>, Gdsf>::new(Config::new(12_000));
    for n in 0..200_000 {
        let _ = l1.insert(entry(n, n, 1000), 0);
        if n >= 20 {
            assert!(l1.peek(&key(n), 0, 1, |_| true, |_, _| ()).is_some());
            assert!(l1.peek(&key(n - 11), 0, 1, |_| true, |_, _| ()).is_none());
        }
    }
}

#[test]
fn what_is_reserved_is_not_there_for_entries() {
    let l1 = L1::<u64, Vec<u64>>::new(Config {
        capacity: 1 << 20,
        shards: Some(4),
    });
    let fill = || {
        for n in 0..2000 {
            let _ = l1.insert(entry(n, n, 900), 0);
        }
    };
    fill();
    let full = l1.bytes();
    assert!(full > (1 << 20) * 8 / 10);
    let dropped = l1.reserve(1 << 19, 0);
    assert!(!dropped.is_empty());
    assert!(l1.bytes() <= 1 << 19);
    assert_eq!((l1.reserved(), l1.capacity()), (1 << 19, 1 << 20));
    assert_eq!(total(&l1).capacity, 1 << 19);
    assert_eq!(total(&l1).len, l1.len() as u64);
    fill();
    assert!(l1.bytes() <= 1 << 19);
    // More than there is: nothing is held, and nothing breaks.
    drop(l1.reserve(u64::MAX, 0));
    assert_eq!(l1.insert(entry(1, 1, 10), 0).outcome, Outcome::TooLarge);
    assert!(l1.is_empty());
    // Given back.
    assert!(l1.reserve(0, 0).is_empty());
    fill();
    assert!(l1.bytes() > full * 9 / 10);
    assert_eq!(l1.renewed().reserved(), 0);
}

#[test]
fn reserving_takes_expired_entries_first() {
    let l1 = L1::<u64, Vec<u64>>::new(Config::new(100_000));
    for n in 0..40 {
        let until = if n % 2 == 0 { 1_000_000 } else { NEVER };
        let timed = NewEntry {
            fresh_until: until,
            stale_until: until,
            ..entry(n, n, 2000)
        };
        assert_eq!(l1.insert(timed, 0).outcome, Outcome::Stored);
    }
    assert_eq!(
        l1.reserve(40_000, 2_000_000).len(),
        total(&l1).expirations as usize
    );
    assert_eq!(total(&l1).evictions, 0);
}
