//! What threads meet at in L1 and the markers.
//!
//! A module of its own so that a test can include `l1` and `markers` beside another `lock` (shuttle's, see
//! `tests/l1_concurrency.rs`) and run the very code that ships.

use parking_lot::{Mutex, MutexGuard};

pub(crate) use parking_lot::RwLock;
pub(crate) use std::sync::atomic::AtomicU64;

/// Mutual exclusion without poisoning: a `valid` or `read` closure that panics runs before anything
/// is changed, so the shard stays consistent.
#[derive(Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}
