//! Asks the processor for memory that is going to be needed, so that nobody waits for it then.
//!
//! An insert that evicts touches eight lines or so that lie anywhere: waiting for one after the other was a third of
//! its time (`benches/test_l1.py`). A hint changes nothing; where there is no safe way to give it, none is given.

/// Asks for the first line of `what`.
#[inline]
pub(super) fn fetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(what);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}
