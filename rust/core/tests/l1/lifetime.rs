//! From insert to removal: freshness, validity, stamps, and what takes an entry out.

use llmcache_core::l1::{Config, L1, Lookup, NewEntry, Outcome};

use crate::{entry, key, tier, total};

#[test]
fn an_entry_is_fresh_then_stale_then_gone() {
    let l1 = tier();
    let timed = NewEntry {
        fresh_until: 10,
        stale_until: 20,
        ..entry(1, 7, 100)
    };
    assert_eq!(l1.insert(timed, 0).outcome, Outcome::Stored);
    assert_eq!(l1.get(&key(1), 9, 1, |_| false), Lookup::Fresh(7));
    assert_eq!(l1.get(&key(1), 10, 1, |_| false), Lookup::Stale(7));
    assert_eq!(l1.get(&key(1), 20, 1, |_| false), Lookup::Miss);
    assert!(l1.is_empty());
    assert_eq!(total(&l1).expirations, 1);
}

#[test]
fn validity_is_asked_once_per_seq_and_an_invalid_entry_goes() {
    let l1 = tier();
    let tagged = NewEntry {
        facts: Some(Box::new(vec![42])),
        facts_bytes: 32,
        ..entry(1, 7, 100)
    };
    let _ = l1.insert(tagged, 0);
    assert_eq!(
        l1.get(&key(1), 0, 5, |view| view.facts() == Some(&vec![42])
            && view.snap() == 1),
        Lookup::Fresh(7)
    );
    assert_eq!(
        l1.get(&key(1), 0, 5, |_| panic!("checked at 5 already")),
        Lookup::Fresh(7)
    );
    assert_eq!(l1.peek(&key(1), 0, 6, |_| false, |value, _| *value), None);
    assert_eq!(l1.len(), 1, "peek removes nothing");
    assert_eq!(l1.get(&key(1), 0, 6, |_| false), Lookup::Miss);
    let stats = total(&l1);
    assert_eq!(
        (stats.hits, stats.misses, stats.invalidated, stats.len),
        (2, 1, 1, 0)
    );
}

#[test]
fn a_newer_stamp_stands_against_an_older_one() {
    let l1 = tier();
    let _ = l1.insert(
        NewEntry {
            snap: 9,
            ..entry(1, 1, 100)
        },
        0,
    );
    let late = l1.insert(
        NewEntry {
            snap: 8,
            ..entry(1, 2, 100)
        },
        0,
    );
    assert_eq!((late.outcome, late.dropped[0].0), (Outcome::Older, 2));
    assert_eq!(
        l1.insert(
            NewEntry {
                snap: 9,
                ..entry(1, 3, 100)
            },
            0
        )
        .outcome,
        Outcome::Replaced
    );
    assert_eq!(
        l1.insert(
            NewEntry {
                snap: 1,
                epoch: 2,
                ..entry(1, 4, 100)
            },
            0
        )
        .outcome,
        Outcome::Replaced
    );
    assert_eq!(l1.get(&key(1), 0, 1, |_| true), Lookup::Fresh(4));
}

#[test]
fn expire_keeps_the_stale_window() {
    let l1 = tier();
    let _ = l1.insert(
        NewEntry {
            fresh_until: 50,
            stale_until: 90,
            ..entry(1, 7, 100)
        },
        0,
    );
    assert!(l1.expire(&key(1), 20));
    assert!(!l1.expire(&key(2), 20));
    assert_eq!(l1.get(&key(1), 20, 1, |_| true), Lookup::Stale(7));
}

#[test]
fn remove_expired_keeps_to_its_limit_and_clear_frees_everything() {
    let l1 = L1::<u64, Vec<u64>>::new(Config {
        capacity: 1 << 20,
        shards: Some(4),
    });
    let empty = l1.bytes();
    for n in 0..100 {
        let _ = l1.insert(
            NewEntry {
                fresh_until: 5,
                stale_until: 5,
                ..entry(n, n, 100)
            },
            0,
        );
    }
    assert_eq!(l1.remove_expired(1 << 20, 30).len(), 30);
    assert_eq!(l1.len(), 70);
    assert_eq!(l1.clear().len(), 70);
    assert_eq!((l1.len(), l1.bytes()), (0, empty));
}

#[test]
fn for_each_sees_every_entry_and_renewed_starts_empty() {
    let l1 = L1::<u64, Vec<u64>>::new(Config {
        capacity: 1 << 20,
        shards: Some(3),
    });
    for n in 0..500 {
        let _ = l1.insert(
            NewEntry {
                created: 3,
                ..entry(n, n, 100)
            },
            0,
        );
    }
    let mut seen = Vec::new();
    l1.for_each(|key, view| {
        assert_eq!(
            (
                view.created(),
                view.payload_bytes(),
                view.cost(),
                view.hits()
            ),
            (3, 100, 100, 0)
        );
        seen.push(*key);
    });
    seen.sort_unstable();
    let mut expected: Vec<_> = (0..500).map(key).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert!(l1.renewed().is_empty());
}
