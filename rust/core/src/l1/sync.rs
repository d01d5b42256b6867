//! The one lock of the tier: `parking_lot` in production, shuttle's scheduler under `--features shuttle`.
//!
//! What belongs here: the lock and nothing else, so that the concurrent model test runs the very
//! shard code that ships.

/// Mutual exclusion for one shard; poisoning does not exist (a panicking `valid` or `read`
/// closure runs before anything is changed, so the shard stays consistent).
#[derive(Debug, Default)]
pub(super) struct Lock<T> {
    #[cfg(not(feature = "shuttle"))]
    inner: parking_lot::Mutex<T>,
    #[cfg(feature = "shuttle")]
    inner: shuttle::sync::Mutex<T>,
}

impl<T> Lock<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            #[cfg(not(feature = "shuttle"))]
            inner: parking_lot::Mutex::new(value),
            #[cfg(feature = "shuttle")]
            inner: shuttle::sync::Mutex::new(value),
        }
    }

    #[cfg(not(feature = "shuttle"))]
    #[inline]
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, T> {
        self.inner.lock()
    }

    #[cfg(feature = "shuttle")]
    pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
