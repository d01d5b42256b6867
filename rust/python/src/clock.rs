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
    times: Arc<Times>,
}

/// Both by hand, or both the system's.
struct Times {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

#[pymethods]
impl Clock {
    /// The system's clock, until `set` is called.
    #[new]
    #[pyo3(signature = (*_arguments))]
    fn new(_arguments: &Bound<'_, PyAny>) -> Self {
        Self {
            times: Arc::new(Times {
                wall: AtomicI64::new(SYSTEM),
                monotonic: AtomicI64::new(0),
            }),
        }
    }

    /// Microseconds since 1970, exactly.
    #[pyo3(name = "__call__")]
    pub(crate) fn now(&self) -> i64 {
        match self.times.wall.load(Ordering::Relaxed) {
            SYSTEM => system(),
            time => time,
        }
    }

    /// Microseconds of a clock that never goes back: the system's, which goes on while the machine is
    /// suspended, or how far `advance` has moved it.
    pub(crate) fn monotonic(&self) -> i64 {
        match self.times.wall.load(Ordering::Relaxed) {
            SYSTEM => read(SINCE_BOOT),
            _ => self.times.monotonic.load(Ordering::Relaxed),
        }
    }

    /// From now on the time is what is set, and the monotonic clock stands where it is.
    fn set(&self, time: i64) {
        let by_hand = self.monotonic();
        self.times.monotonic.store(by_hand, Ordering::Relaxed);
        self.times.wall.store(time, Ordering::Relaxed);
    }

    /// Moves a clock that was set; the monotonic one only forward.
    fn _pass(&self, micros: i64) {
        self.times.wall.fetch_add(micros, Ordering::Relaxed);
        self.times
            .monotonic
            .fetch_add(micros.max(0), Ordering::Relaxed);
    }
}

impl Clock {
    /// Microseconds since 1970, up to one tick of the kernel (1 to 10 ms) late: a quarter of the price.
    #[inline]
    pub(crate) fn coarse(&self) -> i64 {
        match self.times.wall.load(Ordering::Relaxed) {
            SYSTEM => read(COARSE_WALL),
            time => time,
        }
    }

    /// Whether `until` of the monotonic clock has passed.
    #[inline]
    pub(crate) fn is_past(&self, until: i64) -> bool {
        self.monotonic() > until
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
const COARSE_WALL: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;
#[cfg(not(target_os = "linux"))]
const COARSE_WALL: libc::clockid_t = libc::CLOCK_REALTIME;

/// Not the one by which `time.monotonic` and the event loops go, which stands still in a suspended machine:
/// what was known before is no newer for that. It has no coarse form.
#[cfg(target_os = "linux")]
const SINCE_BOOT: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: libc::clockid_t = libc::CLOCK_MONOTONIC;

#[inline]
fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec it is given; these clocks are always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}
