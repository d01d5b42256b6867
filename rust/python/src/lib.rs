//! The extension module `llmcache_fast._core`: translation between Python objects and `llmcache-core`.
//!
//! What belongs here: object conversion, reference counts, exceptions, the finished awaitable. What does
//! not: decisions; those are the core's.

#![expect(
    clippy::needless_pass_by_value,
    reason = "arguments of Python calls are handed over by value"
)]
#![expect(
    clippy::unnecessary_box_returns,
    reason = "the result of a step of a walk is one pointer wide"
)]

use std::sync::LazyLock;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::memo::Memo;

mod blinding;
mod builtins;
mod clock;
mod disk;
mod engine;
mod entries;
mod envelope;
mod error;
mod fail;
mod guard;
mod hot;
mod journal;
mod keyer;
mod keyring;
mod keys;
mod leaf;
mod memo;
mod ready;
mod rules;
mod sets;
mod shape;
mod stack;
mod stored;
mod validity;
mod vector;
mod walk;

/// The 32-byte fingerprint of a request: see `docs/reference/fingerprint.md`.
#[pyfunction]
#[pyo3(signature = (request, namespace="default", profile="generic", variant=None, normalize=None))]
fn fingerprint<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    namespace: &str,
    profile: &str,
    variant: Option<&Bound<'py, PyAny>>,
    normalize: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    static MEMO: LazyLock<Memo> = LazyLock::new(Memo::new);
    let nfc = keyer::nfc(normalize)?;
    // The memo holds digests of strings as they are.
    let memo = if nfc { None } else { Some(&*MEMO) };
    let fingerprint = match keyer::Prefix::shared(namespace, profile, variant) {
        Some(prefix) => keyer::fingerprint(request, prefix, memo, nfc)?,
        None => keyer::fingerprint(
            request,
            &keyer::Prefix::new(namespace, profile, variant)?,
            memo,
            nfc,
        )?,
    };
    Ok(keyer::to_bytes(py, &fingerprint))
}

/// The canonical document of a request, whose digest the fingerprint is: for tests and other implementations.
#[pyfunction]
#[pyo3(signature = (request, namespace="default", profile="generic", variant=None, normalize=None))]
fn canonical<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    namespace: &str,
    profile: &str,
    variant: Option<&Bound<'py, PyAny>>,
    normalize: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let prefix = keyer::Prefix::new(namespace, profile, variant)?;
    let document = keyer::canonical(request, &prefix, keyer::nfc(normalize)?)?;
    Ok(PyBytes::new(py, &document))
}

/// The module.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(canonical, module)?)?;
    module.add_class::<engine::Engine>()?;
    hot::init(&module.py().get_type::<engine::Engine>())?;
    module.add_class::<clock::Clock>()?;
    module.add_class::<stored::Encoded>()?;
    module.add_class::<stored::View>()?;
    disk::register(module)?;
    envelope::register(module)?;
    guard::register(module)?;
    module.add_class::<keyring::Keyring>()?;
    module.add_class::<blinding::Blinding>()?;
    journal::register(module)?;
    vector::register(module)?;
    ready::init(module.py())
}
