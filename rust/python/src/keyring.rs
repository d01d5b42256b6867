//! The ring of keys for Python. It shows no key, and cannot be pickled.

use llmcache_core::keyring::{self, Key};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use zeroize::Zeroizing;

/// Keys that seal and open records: 32 bytes each, of full entropy. The first seals.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Keyring(keyring::Keyring);

impl Keyring {
    pub(crate) fn core(&self) -> &keyring::Keyring {
        &self.0
    }
}

#[pymethods]
impl Keyring {
    #[new]
    #[pyo3(signature = (keys, *, accept_plain=false))]
    fn new(keys: Vec<Bound<'_, PyAny>>, accept_plain: bool) -> PyResult<Self> {
        let keys = keys
            .iter()
            .map(|key| secret("key", key).map(|key| Key::new(&key)))
            .collect::<PyResult<_>>()?;
        keyring::Keyring::new(keys, accept_plain)
            .map(Self)
            .map_err(|error| PyValueError::new_err(format!("keys: {error}")))
    }

    /// What records say of the key that sealed them: 16 hex digits, derived from it one way.
    #[getter]
    fn current_id(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.0.current().id()))
    }

    #[expect(clippy::unused_self, reason = "Python calls it on an object")]
    fn __repr__(&self) -> &'static str {
        "<Keyring>"
    }
}

/// A secret of 32 bytes. An error says nothing of it but its length.
pub(crate) fn secret(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Zeroizing<[u8; 32]>> {
    let bytes: &[u8] = value
        .extract()
        .map_err(|_| PyValueError::new_err(format!("{what}: must be bytes")))?;
    let mut secret = Zeroizing::new([0; 32]);
    if bytes.len() != secret.len() {
        return Err(PyValueError::new_err(format!(
            "{what}: 32 bytes are needed, {} were given",
            bytes.len()
        )));
    }
    secret.copy_from_slice(bytes);
    Ok(secret)
}
