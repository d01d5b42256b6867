//! A profile's rules over the top-level fields of a request.

#![expect(
    clippy::float_cmp,
    clippy::cast_precision_loss,
    reason = "defaults are exact small numbers"
)]

use std::ffi::c_int;

use llmcache_core::profile::{Constant, Profile, Rule};
use pyo3::ffi;

use crate::walk::is_exact;

/// What the rules say of a top-level field.
pub(crate) enum Verdict {
    In,
    Dropped(&'static str),
    Defaulted,
}

/// What a profile's rules say of a top-level field.
///
/// # Safety
/// `value` is alive.
pub(crate) unsafe fn verdict(
    profile: &'static Profile,
    field: &[u8],
    value: *mut ffi::PyObject,
) -> Verdict {
    let Some(rule) = profile.rule(field) else {
        return Verdict::In;
    };
    // SAFETY: as promised by the caller.
    let defaulted = unsafe {
        match rule {
            Rule::Drop(why) => return Verdict::Dropped(why),
            Rule::Default(constant) => is_constant(value, constant),
            Rule::DefaultOrNull(constant) => {
                value == ffi::Py_None() || is_constant(value, constant)
            }
            Rule::Nullable => value == ffi::Py_None(),
        }
    };
    if defaulted {
        Verdict::Defaulted
    } else {
        Verdict::In
    }
}

/// # Safety
/// `value` is alive.
unsafe fn is_constant(value: *mut ffi::PyObject, constant: Constant) -> bool {
    // SAFETY: as promised by the caller; every call is given an object of the type it asks for.
    unsafe {
        match constant {
            Constant::Bool(wanted) => {
                value
                    == if wanted {
                        ffi::Py_True()
                    } else {
                        ffi::Py_False()
                    }
            }
            Constant::Number(wanted) => {
                if ffi::PyFloat_Check(value) != 0 {
                    ffi::PyFloat_AsDouble(value) == wanted
                } else if ffi::PyLong_Check(value) != 0 && !is_exact!(value, PyBool_Type) {
                    let mut overflow: c_int = 0;
                    let number = ffi::PyLong_AsLongLongAndOverflow(value, &raw mut overflow);
                    overflow == 0 && number as f64 == wanted
                } else {
                    false
                }
            }
            Constant::Text(wanted) => is_text(value, wanted),
        }
    }
}

/// # Safety
/// `value` is alive.
unsafe fn is_text(value: *mut ffi::PyObject, wanted: &str) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        if ffi::PyUnicode_Check(value) == 0
            || ffi::PyUnicode_GetLength(value).cast_unsigned() != wanted.len()
        {
            return false;
        }
        let mut len = 0;
        let text = ffi::PyUnicode_AsUTF8AndSize(value, &raw mut len);
        if text.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        std::slice::from_raw_parts(text.cast::<u8>(), len.cast_unsigned()) == wanted.as_bytes()
    }
}
