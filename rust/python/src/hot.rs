//! `get`, `get_nowait` and `get_or_compute`, called as often as anything can be.
//!
//! A look-up takes some tens of nanoseconds; a generated method spends as much again on its arguments and on
//! entering Rust. These are methods by hand (`METH_FASTCALL`): a call with a ready fingerprint and no
//! keywords goes straight to L1, every other call takes the general way below.
//! `benches/test_l1.py` and `benches/test_get_or_compute.py` have the difference.

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
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

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

const GET_OR_COMPUTE: &CStr = c"get_or_compute($self, request, compute, *, type=None, namespace=None, profile=None, variant=None, \
ttl=..., stale_while_revalidate=..., stale_if_error=..., tags=..., label=..., depends_on=..., timeout=..., \
refresh=..., only_if_cached=..., store=..., semantic=..., question=...)\n--\n\n\
The value of a request: from a tier, from a computation that is running, or from `compute`. Awaitable.";

/// Which method was called: the constant argument of `method`.
const GETS: u8 = 0;
const GETS_NOW: u8 = 1;
const COMPUTES: u8 = 2;
const NAMES: [&str; 3] = ["get", "get_nowait", "get_or_compute"];

/// What `_compute` is told of, as given. A hit depends on none of them but `refresh`.
const OPTIONS: [&str; 12] = [
    "ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "tags",
    "label",
    "depends_on",
    "timeout",
    "refresh",
    "only_if_cached",
    "store",
    "semantic",
    "question",
];

/// Puts the methods on the type.
///
/// # Errors
/// What the interpreter raises.
pub(crate) fn init(engine: &Bound<'_, PyType>) -> PyResult<()> {
    let py = engine.py();
    let methods: [(_, _, ffi::PyCFunctionFastWithKeywords); 3] = [
        (c"get", GET, method::<GETS>),
        (c"get_nowait", GET_NOWAIT, method::<GETS_NOW>),
        (c"get_or_compute", GET_OR_COMPUTE, method::<COMPUTES>),
    ];
    for (name, doc, function) in methods {
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

unsafe extern "C" fn method<const METHOD: u8>(
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
    enter(py, || match at_once::<METHOD>(py, slf, arguments) {
        Ok(value) if METHOD == GETS_NOW => Ok(value),
        Ok(value) => ready(py, value),
        Err(looked) => attached::<METHOD>(py, slf, arguments, looked),
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
fn at_once<const METHOD: u8>(
    py: Python<'_>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
) -> Result<Bound<'_, PyAny>, Looked> {
    let least = if METHOD == COMPUTES { 2 } else { 1 };
    if arguments.count < least || arguments.count > 2 || !arguments.names.is_null() {
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
fn attached<const METHOD: u8>(
    py: Python<'_>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
    looked: Looked,
) -> PyResult<Bound<'_, PyAny>> {
    let value =
        Python::attach(|py| general::<METHOD>(py, slf, arguments, looked).map(Bound::into_ptr))?;
    // SAFETY: a new reference, handed on.
    Ok(unsafe { Bound::from_owned_ptr(py, value) })
}

fn general<const METHOD: u8>(
    py: Python<'_>,
    slf: *mut ffi::PyObject,
    arguments: Arguments,
    looked: Looked,
) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the descriptor has checked that `slf` is an engine.
    let slf = unsafe { Bound::from_borrowed_ptr(py, slf).cast_into_unchecked::<Engine>() };
    let call = parse::<METHOD>(py, arguments)?;
    let core = slf.get().opened(py)?;
    let (key, looked) = match looked {
        Some((key, looked)) => (key, Some(looked)),
        None => (core.fingerprint(&call.request, &call.reading)?, None),
    };
    let refreshing = match &call.refresh {
        None => false,
        Some(refresh) => refresh.is_truthy()?,
    };
    if !refreshing
        && let Lookup::Fresh(value) = looked.unwrap_or_else(|| core.look(&key))
        && let Some(value) = finished(&slf, value, call.reading.kind.as_ref())?
    {
        return if METHOD == GETS_NOW {
            Ok(value)
        } else {
            ready(py, value)
        };
    }
    let namespace = call.reading.namespace.as_deref().unwrap_or(&core.namespace);
    let kind = &call.reading.kind;
    let second = call.second.unwrap_or_else(|| py.None().into_bound(py));
    if METHOD == COMPUTES {
        return slf.call_method1(
            intern!(py, "_compute"),
            (
                keyer::to_bytes(py, &key),
                &call.request,
                second,
                kind,
                namespace,
                options(py, arguments)?,
                &call.reading.profile,
                &call.reading.variant,
            ),
        );
    }
    if METHOD == GETS_NOW {
        return Ok(second);
    }
    if core.alone {
        return ready(py, second);
    }
    slf.call_method1(
        intern!(py, "_get_below"),
        (keyer::to_bytes(py, &key), second, kind, namespace),
    )
}

/// The arguments of a call. What only `_compute` looks at stays where it is: see `options`.
struct Call<'py> {
    request: Bound<'py, PyAny>,
    /// The default, or what computes.
    second: Option<Bound<'py, PyAny>>,
    reading: Reading<'py>,
    refresh: Option<Bound<'py, PyAny>>,
}

impl Arguments {
    fn value<'py>(&self, py: Python<'py>, at: usize) -> Bound<'py, PyAny> {
        // SAFETY: the interpreter passes `count` positional values and then one for each name.
        unsafe { Bound::from_borrowed_ptr(py, *self.values.add(at)) }
    }

    fn names<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        // SAFETY: null, or a tuple of strings.
        let names = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.names) };
        Ok(names.map(Bound::cast_into).transpose()?)
    }
}

fn parse<const METHOD: u8>(py: Python<'_>, arguments: Arguments) -> PyResult<Call<'_>> {
    let (method, second_name) = (
        NAMES[usize::from(METHOD)],
        if METHOD == COMPUTES {
            "compute"
        } else {
            "default"
        },
    );
    let wrong = |what: &str| Err(PyTypeError::new_err(format!("Engine.{method}() {what}")));
    let count = arguments.count;
    if count > 2 {
        let takes = if METHOD == COMPUTES {
            "2"
        } else {
            "from 1 to 2"
        };
        return wrong(&format!(
            "takes {takes} positional arguments but {count} were given"
        ));
    }
    let mut request = (count > 0).then(|| arguments.value(py, 0));
    let mut second = (count > 1).then(|| arguments.value(py, 1));
    let mut reading = Reading::default();
    let mut refresh = None;
    if let Some(names) = arguments.names(py)? {
        for (at, name) in names.iter().enumerate() {
            let value = arguments.value(py, count + at);
            let given = (!value.is_none()).then(|| value.clone());
            let place = match name.cast::<PyString>()?.to_str()? {
                "namespace" => {
                    reading.namespace = given.map(|value| value.extract()).transpose()?;
                    continue;
                }
                "profile" => {
                    reading.profile = given.map(|value| value.extract()).transpose()?;
                    continue;
                }
                "variant" => {
                    reading.variant = given;
                    continue;
                }
                "type" => {
                    reading.kind = given;
                    continue;
                }
                "refresh" if METHOD == COMPUTES => &mut refresh,
                "request" => &mut request,
                name if name == second_name => &mut second,
                name if METHOD == COMPUTES && OPTIONS.contains(&name) => continue,
                name => return wrong(&format!("got an unexpected keyword argument '{name}'")),
            };
            if place.replace(value).is_some() {
                return wrong(&format!("got multiple values for argument '{name}'"));
            }
        }
    }
    match (request, second) {
        (Some(request), second) if METHOD != COMPUTES || second.is_some() => Ok(Call {
            request,
            second,
            reading,
            refresh,
        }),
        (None, None) if METHOD == COMPUTES => {
            wrong("missing 2 required positional arguments: 'request' and 'compute'")
        }
        (None, _) => wrong("missing 1 required positional argument: 'request'"),
        (Some(_), _) => wrong("missing 1 required positional argument: 'compute'"),
    }
}

/// The options of `_compute` that were given.
fn options(py: Python<'_>, arguments: Arguments) -> PyResult<Option<Bound<'_, PyDict>>> {
    let mut options: Option<Bound<'_, PyDict>> = None;
    if let Some(names) = arguments.names(py)? {
        for (at, name) in names.iter().enumerate() {
            if OPTIONS.contains(&name.cast::<PyString>()?.to_str()?) {
                options
                    .get_or_insert_with(|| PyDict::new(py))
                    .set_item(name, arguments.value(py, arguments.count + at))?;
            }
        }
    }
    Ok(options)
}
