//! `get` and `get_nowait`, called as often as anything can be.
//!
//! A look-up takes some tens of nanoseconds; a generated method spends as much again on its arguments and on
//! entering Rust. These two are methods by hand (`METH_FASTCALL`): a call with a ready fingerprint and no
//! keywords goes straight to L1, every other call takes the general way below.
//! `benches/test_l1.py` has the difference.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use llmcache_core::fingerprint::Fingerprint;
use llmcache_core::l1::Lookup;
use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use crate::engine::{Engine, Reading, finished};
use crate::keyer;
use crate::ready::ready;
use crate::stored::{Stored, is_plain};
use crate::walk::is_exact;

/// The arguments as the interpreter passes them.
#[derive(Clone, Copy)]
struct Arguments {
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
}

const GET: &CStr = c"get($self, request, default=None, *, type=None, namespace=None, profile=None, variant=None)\n--\n\n\
The value of a request if it is fresh in any tier, else `default`. Awaitable; a hit in memory is finished.\n\n\
`request` is the mapping, or its fingerprint (32 bytes); `type` what to decode the value to.\n\n\
Raises:\n    CacheClosedError: the cache is not open.\n    UnkeyableRequestError: the request has no canonical form.";

const GET_NOWAIT: &CStr = c"get_nowait($self, request, default=None, *, type=None, namespace=None, profile=None, variant=None)\n--\n\n\
The value of a request if it is fresh in memory, else `default`. No await, no lower tier. As `get` otherwise.";

/// Puts the two methods on the type.
///
/// # Errors
/// What the interpreter raises.
pub(crate) fn init(engine: &Bound<'_, PyType>) -> PyResult<()> {
    let py = engine.py();
    for (name, doc, function) in [
        (c"get", GET, get as ffi::PyCFunctionFastWithKeywords),
        (
            c"get_nowait",
            GET_NOWAIT,
            get_nowait as ffi::PyCFunctionFastWithKeywords,
        ),
    ] {
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: function,
            },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: doc.as_ptr().cast::<c_char>(),
        }));
        // SAFETY: the definition lives for ever; the descriptor checks that `self` is an `Engine`.
        let method = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyDescr_NewMethod(engine.as_type_ptr(), definition),
            )?
        };
        engine.setattr(name.to_string_lossy(), method)?;
    }
    Ok(())
}

unsafe extern "C" fn get(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let arguments = Arguments {
        values,
        count: count.cast_unsigned(),
        names,
    };
    // SAFETY: called by the interpreter, attached.
    let py = unsafe { Python::assume_attached() };
    enter(py, || match at_once(py, slf, arguments) {
        Ok(value) => ready(py, value),
        Err(looked) => attached(py, slf, arguments, looked, "get", true),
    })
}

unsafe extern "C" fn get_nowait(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let arguments = Arguments {
        values,
        count: count.cast_unsigned(),
        names,
    };
    // SAFETY: called by the interpreter, attached.
    let py = unsafe { Python::assume_attached() };
    enter(py, || match at_once(py, slf, arguments) {
        Ok(value) => Ok(value),
        Err(looked) => attached(py, slf, arguments, looked, "get_nowait", false),
    })
}

/// Runs a method's body: its error becomes the interpreter's, a panic becomes an error.
#[inline]
fn enter<'py>(
    py: Python<'py>,
    body: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> *mut ffi::PyObject {
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value.into_ptr(),
        Ok(Err(error)) => error,
        Err(_) => {
            PyRuntimeError::new_err("a bug of llmcache_fast: the engine panicked; please report it")
        }
    };
    error.restore(py);
    ptr::null_mut()
}

/// A look-up that was made, for the general way to go on from.
type Looked = Option<(Fingerprint, Lookup<Stored>)>;

/// The hit that needs nothing but a look: a ready fingerprint, no keywords, a plain value.
#[inline]
fn at_once(
    py: Python<'_>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
) -> Result<Bound<'_, PyAny>, Looked> {
    if arguments.count == 0 || arguments.count > 2 || !arguments.names.is_null() {
        return Err(None);
    }
    // SAFETY: the descriptor has checked that `slf` is an engine; there is at least one argument.
    let (engine, key) = unsafe {
        let request = *arguments.values;
        if !is_exact!(request, PyBytes_Type) || ffi::PyBytes_Size(request) != 32 {
            return Err(None);
        }
        let key = &*ffi::PyBytes_AsString(request).cast::<Fingerprint>();
        (Borrowed::from_ptr(py, slf).cast_unchecked::<Engine>(), key)
    };
    let Some(core) = engine.get().if_open() else {
        return Err(None);
    };
    match core.look(key) {
        Lookup::Fresh(value) if is_plain(value.bind(py)) => Ok(value.into_bound(py)),
        other => Err(Some((*key, other))),
    }
}

/// The general way, attached as pyo3 counts it: it drops references of all kinds.
#[cold]
fn attached<'py>(
    py: Python<'py>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
    looked: Looked,
    method: &str,
    awaited: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let value = Python::attach(|py| {
        general(py, slf, arguments, looked, method, awaited).map(Bound::into_ptr)
    })?;
    // SAFETY: a new reference, handed on.
    Ok(unsafe { Bound::from_owned_ptr(py, value) })
}

fn general<'py>(
    py: Python<'py>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
    looked: Looked,
    method: &str,
    awaited: bool,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the descriptor has checked that `slf` is an engine.
    let slf = unsafe { Bound::from_borrowed_ptr(py, slf).cast_into_unchecked::<Engine>() };
    let core = slf.get().opened(py)?;
    let (request, default, reading) = parse(py, arguments, method)?;
    let (key, looked) = if let Some(looked) = looked {
        looked
    } else {
        let key = core.fingerprint(&request, &reading)?;
        (key, core.look(&key))
    };
    if let Lookup::Fresh(value) = looked
        && let Some(value) = finished(&slf, value, reading.kind.as_ref())?
    {
        return if awaited { ready(py, value) } else { Ok(value) };
    }
    let default = default.unwrap_or_else(|| py.None().into_bound(py));
    if !awaited {
        return Ok(default);
    }
    if core.alone {
        return ready(py, default);
    }
    let namespace = reading.namespace.as_deref().unwrap_or(&core.namespace);
    slf.call_method1(
        intern!(py, "_get_below"),
        (keyer::to_bytes(py, &key), default, reading.kind, namespace),
    )
}

type Parsed<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>, Reading<'py>);

fn parse<'py>(py: Python<'py>, arguments: Arguments, method: &str) -> PyResult<Parsed<'py>> {
    // SAFETY: the interpreter passes `count` positional values and then one for each name.
    let value = |at: usize| unsafe { Bound::from_borrowed_ptr(py, *arguments.values.add(at)) };
    if arguments.count > 2 {
        return Err(PyTypeError::new_err(format!(
            "{method} takes a request and a default, but {} arguments were given",
            arguments.count
        )));
    }
    let mut request = (arguments.count > 0).then(|| value(0));
    let mut default = (arguments.count > 1).then(|| value(1));
    let mut reading = Reading::default();
    // SAFETY: null, or a tuple of strings.
    let names = unsafe { Bound::from_borrowed_ptr_or_opt(py, arguments.names) };
    if let Some(names) = names {
        for (at, name) in names.cast_into::<PyTuple>()?.iter().enumerate() {
            let value = value(arguments.count + at);
            let given = (!value.is_none()).then(|| value.clone());
            match name.cast::<PyString>()?.to_str()? {
                "namespace" => {
                    reading.namespace = given.map(|value| value.extract()).transpose()?;
                }
                "profile" => reading.profile = given.map(|value| value.extract()).transpose()?,
                "variant" => reading.variant = given,
                "type" => reading.kind = given,
                "default" if default.is_none() => default = Some(value),
                "request" if request.is_none() => request = Some(value),
                other => {
                    return Err(PyTypeError::new_err(format!(
                        "{method} has no option {other:?}, or it was given twice"
                    )));
                }
            }
        }
    }
    let request =
        request.ok_or_else(|| PyTypeError::new_err(format!("{method} needs a request")))?;
    Ok((request, default, reading))
}
