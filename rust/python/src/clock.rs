//! The clock an engine reads: the system's, or one that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pyo3::prelude::*;

/// No time set: read the system's clock.
const SYSTEM: i64 = i64::MIN;

/// Time in microseconds since 1970. Shared by an engine and whoever passed it in.
#[pyclass(frozen, subclass, module = "llmcache_fast._core")]
#[derive(Clone)]
pub(crate) struct Clock {
    time: Arc<AtomicI64>,
}

#[pymethods]
impl Clock {
    /// The system's clock, until `set` is called.
    #[new]
    #[pyo3(signature = (*_arguments))]
    fn new(_arguments: &Bound<'_, PyAny>) -> Self {
        Self {
            time: Arc::new(AtomicI64::new(SYSTEM)),
        }
    }

    /// Microseconds since 1970, exactly.
    #[pyo3(name = "__call__")]
    pub(crate) fn now(&self) -> i64 {
        match self.time.load(Ordering::Relaxed) {
            SYSTEM => system(),
            time => time,
        }
    }

    /// From now on the time is what is set.
    fn set(&self, time: i64) {
        self.time.store(time, Ordering::Relaxed);
    }
}

impl Clock {
    /// Microseconds since 1970, up to one tick of the kernel (1 to 10 ms) late: a quarter of the price.
    #[inline]
    pub(crate) fn coarse(&self) -> i64 {
        match self.time.load(Ordering::Relaxed) {
            SYSTEM => coarse(),
            time => time,
        }
    }
}

fn system() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX - 1)
        })
}

#[cfg(target_os = "linux")]
#[inline]
fn coarse() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec it is given; this clock is always there on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

#[cfg(not(target_os = "linux"))]
fn coarse() -> i64 {
    system()
}
