//! How deep a walk may go: its own limits, and the stack the thread has left, which may be small.

use std::cell::Cell;

use llmcache_core::canonical::{MAX_DEPTH, MAX_VALUES};

use crate::fail::{Walked, too_much};
use crate::walk::Walk;

/// A walk of fewer levels is never asked: it takes about 1 KiB a level, less than the least stack holds.
const UNASKED: u32 = 8;

/// What must be left for hashing, an error, and Python code that reads an object's fields.
#[cfg(target_os = "linux")]
const RESERVE: usize = 12 << 10;

thread_local! {
    /// The address below which a walk goes no deeper; 0 is not known yet.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
}

/// Whether the stack has room for another level.
#[inline(never)]
fn has_room() -> bool {
    let here = 0_u8;
    let mut floor = FLOOR.get();
    if floor == 0 {
        floor = find();
        FLOOR.set(floor);
    }
    (&raw const here).addr() > floor
}

/// The lowest address of this thread's stack that a walk may reach; 1 where it cannot be told.
#[cfg(target_os = "linux")]
#[cold]
fn find() -> usize {
    let mut low = std::ptr::null_mut();
    let (mut size, mut guard) = (0, 0);
    // SAFETY: the attributes are initialised by the first call and read only if it succeeded.
    unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return 1;
        }
        libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size);
        libc::pthread_attr_getguardsize(&raw const attributes, &raw mut guard);
        libc::pthread_attr_destroy(&raw mut attributes);
    }
    low.addr() + guard + RESERVE
}

#[cfg(not(target_os = "linux"))]
fn find() -> usize {
    1
}

impl<const OWNED: bool> Walk<'_, '_, OWNED> {
    /// The limits, looked at where a walk goes deeper.
    #[inline]
    pub(crate) fn enter(&mut self, depth: u32) -> Walked<()> {
        if depth < MAX_DEPTH && self.values <= MAX_VALUES && (depth < UNASKED || has_room()) {
            self.count(0)
        } else {
            Err(too_much(depth, self.values))
        }
    }
}
