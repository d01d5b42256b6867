//! L1 against its contract: a few scenarios by hand, then a model.

use llmcache_core::l1::{Config, ENTRY_BYTES, L1, Lookup, NEVER, NewEntry, Outcome};

fn key(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn entry(n: u64, value: u64, bytes: u64) -> NewEntry<u64, Vec<u64>> {
    NewEntry {
        key: key(n),
        value,
        payload_bytes: bytes,
        facts: None,
        facts_bytes: 0,
        created: 0,
        fresh_until: NEVER,
        stale_until: NEVER,
        cost: 1 + n % 7,
        epoch: 1,
        snap: 1,
        checked: 1,
    }
}

#[test]
fn an_entry_is_fresh_then_stale_then_gone() {
    let l1 = L1::<u64, Vec<u64>>::new(Config::new(1 << 20));
    let timed = NewEntry { fresh_until: 10, stale_until: 20, ..entry(1, 7, 100) };
    assert_eq!(l1.insert(timed, 0).outcome, Outcome::Stored);
    assert_eq!(l1.get(&key(1), 9, 1, |_| false), Lookup::Fresh(7));
    assert_eq!(l1.get(&key(1), 10, 1, |_| false), Lookup::Stale(7));
    assert_eq!(l1.get(&key(1), 20, 1, |_| false), Lookup::Miss);
    assert!(l1.is_empty());
    assert_eq!(l1.stats()[0].expirations, 1);
}

#[test]
fn a_full_shard_evicts_and_never_exceeds_its_capacity() {
    let l1 = L1::<u64, Vec<u64>>::new(Config::new(1 << 20));
    for n in 0..20_000 {
        let inserted = l1.insert(entry(n, n, 100 + n % 1000), 0);
        assert_eq!(inserted.outcome, Outcome::Stored);
        assert!(l1.bytes() <= l1.capacity());
    }
    assert!(l1.len() as u64 * (550 + ENTRY_BYTES) > 900_000, "{}", l1.len());
    let stats = l1.stats()[0];
    assert_eq!(stats.evictions + stats.len, 20_000);
}
