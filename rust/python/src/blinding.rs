//! Blinded names for Python, one at a time and many in one call.

use llmcache_core::blinding;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::envelope::to_fingerprint;
use crate::keyring::secret;

/// From this many targets on, blinding them takes long enough (tens of microseconds) to let other threads run.
const DETACH_FROM: usize = 64;

/// Names that tiers see in place of fingerprints and invalidation targets; from 32 secret bytes.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Blinding(blinding::Blinding);

#[pymethods]
impl Blinding {
    #[new]
    fn new(key: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(blinding::Blinding::new(&*secret("blinding", key)?)))
    }

    /// What tiers call the entry of a fingerprint: 32 bytes.
    fn tier_key<'py>(&self, py: Python<'py>, fingerprint: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let fingerprint = to_fingerprint(fingerprint)?;
        Ok(PyBytes::new(py, &self.0.tier_key(&fingerprint)))
    }

    /// What authorities call an invalidation target or a namespace.
    fn tier_target(&self, target: u64) -> u64 {
        self.0.tier_target(target)
    }

    /// `tier_target` of each.
    fn tier_targets(&self, py: Python<'_>, targets: Vec<u64>) -> Vec<u64> {
        each(py, targets, |target| self.0.tier_target(target))
    }

    /// The opposite of `tier_target`.
    fn target(&self, blinded: u64) -> u64 {
        self.0.target(blinded)
    }

    /// `target` of each.
    fn targets(&self, py: Python<'_>, blinded: Vec<u64>) -> Vec<u64> {
        each(py, blinded, |blinded| self.0.target(blinded))
    }

    #[expect(clippy::unused_self, reason = "Python calls it on an object")]
    fn __repr__(&self) -> &'static str {
        "<Blinding>"
    }
}

fn each(py: Python<'_>, numbers: Vec<u64>, name: impl Fn(u64) -> u64 + Send + Sync) -> Vec<u64> {
    let work = || numbers.iter().map(|&number| name(number)).collect();
    if numbers.len() >= DETACH_FROM {
        py.detach(work)
    } else {
        work()
    }
}
