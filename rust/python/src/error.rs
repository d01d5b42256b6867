//! Raises the exceptions of `llmcache_fast._errors`; the tree itself is written once, in Python.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The class of that name in `llmcache_fast._errors`.
pub(crate) fn class<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyType>> {
    cell.import(py, "llmcache_fast._errors", name)
}

/// `UnkeyableRequestError(reason, path)`.
pub(crate) fn unkeyable(py: Python<'_>, reason: &str, path: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(py, &CLASS, "UnkeyableRequestError", (reason, path))
}

/// `CacheClosedError`.
#[cold]
pub(crate) fn closed(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(
        py,
        &CLASS,
        "CacheClosedError",
        ("the cache is not open: use it inside `async with LLMCache(...) as cache`",),
    )
}

fn raise<'py, A>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
    args: A,
) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    match class(py, cell, name).and_then(|class| class.call1(args)) {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => {
            let raised = PyRuntimeError::new_err(format!("could not raise {name}"));
            raised.set_cause(py, Some(error));
            raised
        }
    }
}
