//! What L1 says it occupies against what the allocator handed out.
//!
//! The one place in the core with `unsafe`: an allocator that counts, in this test only. Bytes
//! are counted as requested, per thread, so that tests running beside each other do not mix.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroU64;

use llmcache_core::l1::{Config, ENTRY_BYTES, L1, NEVER, NewEntry};

struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(by: i64) {
    // After a thread's end nothing is counted any more.
    let _ = HELD.try_with(|held| held.set(held.get() + by));
}

fn bytes(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

fn held() -> u64 {
    HELD.with(|held| u64::try_from(held.get()).unwrap_or(0))
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-bytes(layout));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn entry(n: u64, payload_bytes: u64, life: Option<i64>) -> NewEntry<NonZeroU64, ()> {
    let until = life.unwrap_or(NEVER);
    NewEntry {
        key: *blake3::hash(&n.to_le_bytes()).as_bytes(),
        value: NonZeroU64::MIN,
        payload_bytes,
        facts: None,
        facts_bytes: 0,
        created: 0,
        fresh_until: until,
        stale_until: until,
        cost: 1 + n % 1000,
        epoch: 1,
        snap: 1,
        checked: 1,
    }
}

/// The claim is exact but for the handful of bytes of the `L1` itself.
fn agrees(l1: &L1<NonZeroU64, ()>, payloads: u64, before: u64) {
    let (said, real) = (l1.bytes() - payloads, held() - before);
    assert!(
        said.abs_diff(real) <= 64,
        "claims {said} bytes beyond payloads, has {real}"
    );
}

#[test]
fn bytes_are_those_allocated_while_growing_evicting_and_shrinking() {
    let before = held();
    let l1 = L1::<NonZeroU64, ()>::new(Config {
        capacity: 4 << 20,
        shards: Some(2),
    });
    agrees(&l1, 0, before);
    for n in 0..20_000 {
        drop(l1.insert(entry(n, 500 + n % 100, (n % 2 == 0).then_some(1 << 40)), 0));
        if n % 997 == 0 {
            let mut payloads = 0;
            l1.for_each(|_, view| payloads += view.payload_bytes());
            agrees(&l1, payloads, before);
        }
    }
    drop(l1.remove_expired(1 << 41, usize::MAX));
    let mut payloads = 0;
    l1.for_each(|_, view| payloads += view.payload_bytes());
    agrees(&l1, payloads, before);
    drop(l1.clear());
    agrees(&l1, 0, before);
}

/// The target: a dict's own share (index and entry 52 bytes at 100,000 keys, key object 65) and 64 more.
#[test]
fn an_entry_costs_no_more_than_promised() {
    const DICT: u64 = 52 + 65;
    for life in [None, Some(1 << 40)] {
        let before = held();
        let l1 = L1::<NonZeroU64, ()>::new(Config {
            capacity: 100_000 * (2048 + 190),
            shards: Some(8),
        });
        // Half as many again as fit, so that history and heaps are in their steady state.
        for n in 0..150_000 {
            drop(l1.insert(entry(n, 2048, life), 0));
        }
        let each = (held() - before) / l1.len() as u64;
        println!(
            "{each} bytes per entry beyond the payload, life {life:?}, {} entries",
            l1.len()
        );
        assert!(each <= DICT + 64, "{each} bytes per entry");
        assert!(
            each.abs_diff(ENTRY_BYTES) <= 16,
            "{each} bytes per entry, documented as {ENTRY_BYTES}"
        );
    }
}
