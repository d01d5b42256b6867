//! What it costs to judge an entry: a hit in L1 with and without tags, when nothing was invalidated since the
//! last one and when something was between any two.

use std::hint::black_box;
use std::num::NonZeroU64;

use criterion::{Criterion, criterion_group, criterion_main};
use llmcache_core::l1::{Config, L1, Lookup, NewEntry};
use llmcache_core::markers::{Markers, Stamp};

type Key = [u8; 32];
type Tier = L1<NonZeroU64, [u64; 3]>;

const SPACE: u64 = 7;
const STAMP: Stamp = Stamp {
    epoch: 1,
    snap: 1 << 20,
};
/// So many that all of them are in the processor's cache: it is the check that is measured.
const ENTRIES: u64 = 1000;

fn key(n: u64) -> Key {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn number(n: u64) -> u64 {
    let key = key(n);
    let mut first = [0; 8];
    first.copy_from_slice(&key[8..16]);
    u64::from_le_bytes(first)
}

fn tier(tagged: bool) -> Tier {
    let l1 = Tier::new(Config::new(64 << 20));
    for n in 0..ENTRIES {
        drop(l1.insert(
            NewEntry {
                key: key(n),
                value: NonZeroU64::MIN,
                payload_bytes: 2048,
                facts: tagged.then(|| Box::new([n % 100, n % 7, n].map(|n| number(1 << 40 | n)))),
                facts_bytes: 24,
                created: 0,
                fresh_until: 1 << 50,
                stale_until: 1 << 51,
                cost: 1000,
                epoch: STAMP.epoch,
                snap: STAMP.snap,
                checked: 1,
            },
            0,
        ));
    }
    l1
}

fn benches(c: &mut Criterion) {
    let keys: Vec<Key> = (0..ENTRIES).map(key).collect();
    for raised in [1, 50_000] {
        let markers = Markers::new(STAMP.epoch);
        for n in 0..raised {
            markers.raise(SPACE, &[number(n)], &[] as &[&str], n);
        }
        for tagged in [false, true] {
            let l1 = tier(tagged);
            for (when, every) in [("nothing since", 0), ("something since", 1)] {
                let tags = if tagged { 3 } else { 0 };
                let mut generation = markers.generation();
                let mut at = 0;
                c.bench_function(&format!("{tags} tags/{when}/{raised} markers"), |b| {
                    b.iter(|| {
                        at = if at + 1 == keys.len() { 0 } else { at + 1 };
                        generation += every;
                        let key = &keys[at];
                        let found = l1.get(key, 1, generation, |entry| {
                            let stamp = Stamp {
                                epoch: entry.epoch(),
                                snap: entry.snap(),
                            };
                            let targets = entry.facts().map_or(&[][..], |facts| &facts[..]);
                            markers.valid_entry(
                                SPACE,
                                stamp,
                                key,
                                targets,
                                || None,
                                entry.checked(),
                            )
                        });
                        matches!(black_box(found), Lookup::Fresh(_))
                    });
                });
            }
        }
    }
}

criterion_group!(validity, benches);
criterion_main!(validity);
