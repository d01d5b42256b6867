//! The extension module `llmcache_fast._core`: translation between Python and the core, nothing else.

use pyo3::prelude::*;

mod disk;
mod envelope;

/// The Rust core of `llmcache_fast`.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    disk::register(module)?;
    envelope::register(module)?;
    Ok(())
}
