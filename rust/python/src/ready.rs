//! The finished awaitable: what a hit returns.
//!
//! `await ready` asks for no event loop, makes no coroutine frame and raises no `StopIteration`: `am_send`
//! (PEP 492, C API since 3.10) hands the value over. It has the methods of a coroutine, so that
//! `asyncio.create_task`, `gather` and task groups take it like the coroutine that a miss returns.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a size of 24 bytes and flags of 32 bits, in the types the C API wants"
)]

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

#[repr(C)]
struct Ready {
    base: ffi::PyObject,
    value: *mut ffi::PyObject,
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A finished awaitable over `value`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub(crate) fn ready<'py>(py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let kind = TYPE
        .get(py)
        .ok_or_else(|| PyRuntimeError::new_err("the module is not initialised"))?;
    // SAFETY: the type was made by `init` with the size of `Ready`; a new object has a reference to its type
    // and room for the value, which it takes over.
    unsafe {
        let object = ffi::PyType_GenericAlloc(kind.as_ptr().cast(), 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        (*object.cast::<Ready>()).value = value.into_ptr();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

// SAFETY of all slots: the interpreter calls them attached, with an instance of the type; `value` is a
// reference the instance owns from `ready` to `dealloc`.

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    unsafe {
        let kind = ffi::Py_TYPE(object);
        ffi::Py_XDECREF((*object.cast::<Ready>()).value);
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    unsafe {
        ffi::Py_INCREF(object);
    }
    object
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    unsafe {
        let value = (*object.cast::<Ready>()).value;
        ffi::Py_INCREF(value);
        *result = value;
    }
    ffi::PySendResult::PYGEN_RETURN
}

/// For callers below C: `StopIteration(value)`.
unsafe extern "C" fn iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    unsafe {
        // An instance, not the bare value: a tuple would be taken for several arguments.
        let stop = ffi::PyObject_CallFunctionObjArgs(
            ffi::PyExc_StopIteration,
            (*object.cast::<Ready>()).value,
            ptr::null_mut::<ffi::PyObject>(),
        );
        if !stop.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop);
            ffi::Py_DECREF(stop);
        }
    }
    ptr::null_mut()
}

unsafe extern "C" fn send(
    object: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    unsafe { iternext(object) }
}

/// `throw(type)`, `throw(instance)`: raises it, as a coroutine that has not started does.
unsafe extern "C" fn throw(
    _object: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    unsafe {
        let count = ffi::PyTuple_Size(arguments);
        if count < 1 {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, c"throw expects an exception".as_ptr());
            return ptr::null_mut();
        }
        let first = ffi::PyTuple_GetItem(arguments, 0);
        let second = if count > 1 {
            ffi::PyTuple_GetItem(arguments, 1)
        } else {
            ptr::null_mut()
        };
        if ffi::PyExceptionInstance_Check(first) != 0 {
            ffi::PyErr_SetObject(ffi::Py_TYPE(first).cast(), first);
        } else if ffi::PyExceptionClass_Check(first) != 0 {
            ffi::PyErr_SetObject(
                first,
                if second.is_null() {
                    ffi::Py_None()
                } else {
                    second
                },
            );
        } else {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, c"throw expects an exception".as_ptr());
        }
    }
    ptr::null_mut()
}

unsafe extern "C" fn close(
    _object: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    unsafe {
        ffi::Py_INCREF(ffi::Py_None());
        ffi::Py_None()
    }
}

/// Makes the type.
///
/// # Errors
/// What the interpreter raises.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    let mut methods = Box::new([
        method(c"send", send, ffi::METH_O),
        method(c"throw", throw, ffi::METH_VARARGS),
        method(c"close", close, ffi::METH_NOARGS),
        ffi::PyMethodDef::zeroed(),
    ]);
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, iternext as *mut c_void),
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(
            ffi::Py_tp_doc,
            c"A finished awaitable: a hit.".as_ptr().cast_mut().cast(),
        ),
        slot(0, ptr::null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"llmcache_fast._core.Ready".as_ptr(),
        basicsize: size_of::<Ready>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
            | ffi::Py_TPFLAGS_IMMUTABLETYPE) as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: spec and slots are read before the call returns; the method table lives for ever.
    let kind = unsafe {
        let kind = ffi::PyType_FromSpec(&raw mut spec);
        Bound::from_owned_ptr_or_err(py, kind)?.cast_into::<PyType>()?
    };
    Box::leak(methods);
    let _ = TYPE.set(py, kind.unbind());
    Ok(())
}

fn method(
    name: &'static std::ffi::CStr,
    function: ffi::PyCFunction,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}
