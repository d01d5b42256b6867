//! L1 and the markers under shuttle: random schedules of concurrent operations on the code that ships.
//!
//! Their source is included here beside a `lock` made of shuttle's mutex, so no feature
//! reaches the product. With `--features planted-bug` a look-up lets go of its lock between
//! finding an entry and reading it, and a generation of markers is announced before they are
//! raised; the tests then have to fail, and say so.

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the whole tier is included, a part is used"
)]
#[path = "../src/l1/mod.rs"]
mod l1;

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "all of the markers are included, a part is used"
)]
#[path = "../src/markers/mod.rs"]
mod markers;

mod lock {
    //! The same face as `llmcache_core`'s lock, under shuttle's scheduler.
    use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) use shuttle::sync::atomic::AtomicU64;

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
            self.0
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
            self.0
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    pub(crate) struct Lock<T>(Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

use std::sync::Arc;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use l1::{Config, L1, Lookup, NEVER, NewEntry};
use markers::{Markers, Stamp};
use shuttle::thread;

/// A value that knows its key and how many of its kind are alive.
struct Value {
    key: u64,
    alive: Arc<AtomicUsize>,
}

impl Value {
    fn new(key: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Relaxed);
        Self {
            key,
            alive: alive.clone(),
        }
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        Self::new(self.key, &self.alive)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

type Tier = L1<Value, u64>;

fn key(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn entry(n: u64, snap: u64, alive: &Arc<AtomicUsize>) -> NewEntry<Value, u64> {
    NewEntry {
        key: key(n),
        value: Value::new(n, alive),
        payload_bytes: 600,
        facts: Some(Box::new(n)),
        facts_bytes: 8,
        created: 0,
        fresh_until: NEVER,
        stale_until: NEVER,
        cost: n,
        epoch: 1,
        snap,
        checked: snap,
    }
}

/// Threads on a tier with room for a few entries only, each ending with every value accounted for.
fn churn() {
    let alive = Arc::new(AtomicUsize::new(0));
    let tier = Arc::new(Tier::new(Config {
        capacity: 4096,
        shards: Some(1),
    }));
    let threads: Vec<_> = (0..3_u64)
        .map(|me| {
            let (tier, alive) = (tier.clone(), alive.clone());
            thread::spawn(move || {
                for step in 0..6 {
                    let n = (me * 5 + step * 3) % 7;
                    drop(tier.insert(entry(n, step, &alive), 0));
                    let wanted = (n + step) % 7;
                    if let Lookup::Fresh(value) | Lookup::Stale(value) =
                        tier.get(&key(wanted), 0, 9, |view| view.facts() == Some(&wanted))
                    {
                        assert_eq!(value.key, wanted, "another key's value was served");
                    }
                    match (me + step) % 5 {
                        0 => drop(tier.remove(&key(wanted))),
                        1 if step == 3 => drop(tier.clear()),
                        _ => {}
                    }
                    assert!(tier.bytes() <= tier.capacity());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ran to its end");
    }
    assert_eq!(
        alive.load(Relaxed),
        tier.len(),
        "a value was lost or dropped twice"
    );
    let stats = tier.stats()[0];
    assert_eq!(
        stats.hits + stats.stale_hits + stats.misses,
        18,
        "a look-up was not counted"
    );
    let left = stats.evictions + stats.expirations + stats.invalidated + stats.removed;
    assert_eq!(
        stats.inserts,
        left + stats.len,
        "an entry came or went uncounted"
    );
}

/// Writers with different stamps: whatever the order, the newest stands.
fn stamps() {
    let alive = Arc::new(AtomicUsize::new(0));
    let tier = Arc::new(Tier::new(Config {
        capacity: 1 << 16,
        shards: Some(1),
    }));
    let threads: Vec<_> = (1..4)
        .map(|snap| {
            let (tier, alive) = (tier.clone(), alive.clone());
            thread::spawn(move || drop(tier.insert(entry(1, snap, &alive), 0)))
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ran to its end");
    }
    assert_eq!(
        tier.peek(&key(1), 0, 0, |_| true, |_, view| view.snap()),
        Some(3)
    );
}

const SPACE: u64 = 7;
const TAG: u64 = 8;
const NONE: &[&str] = &[];

/// A tier with its markers, as the engine joins them.
struct Cache {
    tier: L1<u64, ()>,
    markers: Markers,
    /// What every call knows of: nothing older may be served to it.
    known: shuttle::sync::atomic::AtomicU64,
}

impl Cache {
    /// An entry of the tag, unless it is known to be invalid. Its value is its snap.
    fn insert(&self, stamp: Stamp) {
        let checked = self.markers.generation();
        if self
            .markers
            .valid_entry(SPACE, stamp, &key(1), &[TAG], || None, 0)
        {
            let entry = NewEntry {
                key: key(1),
                value: stamp.snap,
                payload_bytes: 600,
                facts: None,
                facts_bytes: 0,
                created: 0,
                fresh_until: NEVER,
                stale_until: NEVER,
                cost: 1,
                epoch: stamp.epoch,
                snap: stamp.snap,
                checked,
            };
            drop(self.tier.insert(entry, 0));
        }
    }

    fn look(&self) {
        let known = self.known.load(SeqCst);
        let latest = self.markers.generation();
        let found = self.tier.get(&key(1), 0, latest, |entry| {
            let stamp = Stamp {
                epoch: entry.epoch(),
                snap: entry.snap(),
            };
            let since = entry.checked();
            self.markers
                .valid_entry(SPACE, stamp, &key(1), &[TAG], || None, since)
        });
        if let Lookup::Fresh(snap) = found {
            assert!(snap >= known, "invalid and served all the same");
        }
    }
}

/// Computations, hits and invalidations of their tag, at once and deferred, in any order.
fn invalidations() {
    let cache = Arc::new(Cache {
        tier: L1::new(Config {
            capacity: 1 << 16,
            shards: Some(1),
        }),
        markers: Markers::new(1),
        known: shuttle::sync::atomic::AtomicU64::new(0),
    });
    let spawn = |work: fn(&Cache)| {
        let cache = cache.clone();
        thread::spawn(move || work(&cache))
    };
    let threads = [
        spawn(|cache| {
            for _ in 0..3 {
                let stamp = cache.markers.stamp(SPACE);
                thread::yield_now();
                cache.insert(stamp);
            }
        }),
        spawn(|cache| {
            for _ in 0..4 {
                cache.look();
            }
        }),
        spawn(|cache| {
            cache.markers.raise(SPACE, &[TAG], NONE, 10);
            cache.known.store(10, SeqCst);
            cache.look();
            cache.markers.defer(SPACE, &[TAG], NONE);
            cache.known.store(u64::MAX, SeqCst);
            cache.look();
            // From here on those are right that start after the seq.
            cache.known.store(20, SeqCst);
            let stamp = Stamp { epoch: 1, snap: 20 };
            cache.markers.deliver(SPACE, &[TAG], NONE, stamp);
            cache.look();
        }),
    ];
    for thread in threads {
        thread.join().expect("the thread ran to its end");
    }
    cache.look();
}

#[test]
#[cfg_attr(
    feature = "planted-bug",
    should_panic(expected = "invalid and served all the same")
)]
fn what_was_invalidated_is_never_served_again() {
    shuttle::check_random(invalidations, 5_000);
}

#[test]
#[cfg_attr(
    feature = "planted-bug",
    should_panic(expected = "another key's value was served")
)]
fn no_value_is_lost_mixed_up_or_dropped_twice() {
    shuttle::check_random(churn, 3_000);
}

#[test]
fn the_newest_stamp_stands() {
    shuttle::check_random(stamps, 500);
}
