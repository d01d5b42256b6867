//! Strings, bytes and numbers of a walk.

use std::ffi::c_int;
use std::ptr;

use llmcache_core::canonical::{Blob, LONG, MAX_BYTES};
use pyo3::ffi;
use pyo3::prelude::*;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::builtins;
use crate::fail::{Fail, Walked};
use crate::memo::{Known, sample};
use crate::walk::{Pending, Walk};

/// Strings of more characters than this are not given a UTF-8 copy of their own to keep.
const KEEP_UTF8: usize = 4096;

impl<const OWNED: bool> Walk<'_, '_, OWNED> {
    /// # Safety
    /// `object` is alive and an exact `str`.
    #[expect(
        clippy::inline_always,
        reason = "a call costs as much as reading a short string"
    )]
    #[inline(always)]
    pub(crate) unsafe fn exact_text(&mut self, object: *mut ffi::PyObject) -> Walked<()> {
        // SAFETY: as promised by the caller.
        if let Some(text) = unsafe { builtins::ascii(object) } {
            // ASCII is its own normal form.
            if text.len() < LONG {
                self.scratch.writer.short_text(text);
                self.bytes += text.len();
                return Ok(());
            }
            return self.long_ascii(text, object);
        }
        // SAFETY: as promised by the caller.
        unsafe { self.text(object, true) }
    }

    #[inline(never)]
    fn long_ascii(&mut self, text: &[u8], object: *mut ffi::PyObject) -> Walked<()> {
        if self.recall(object, Blob::Text)? {
            Ok(())
        } else {
            self.long(text, object, true, Blob::Text)
        }
    }

    /// # Safety
    /// `object` is alive and an instance of `str`; `exact` says that its type is `str` itself.
    pub(crate) unsafe fn text(&mut self, object: *mut ffi::PyObject, exact: bool) -> Walked<()> {
        // SAFETY: as promised by the caller.
        let chars = unsafe { ffi::PyUnicode_GetLength(object) }.cast_unsigned();
        // The memo is asked first: a remembered string needs no UTF-8 form.
        if exact && chars >= LONG / 4 && self.recall(object, Blob::Text)? {
            return Ok(());
        }
        let held = self.held.len();
        // A subclass may define `isascii`: only exact strings are asked.
        // SAFETY: as promised by the caller.
        let given = unsafe { self.utf8(object, if exact { chars } else { 0 })? };
        let text = if self.nfc {
            self.normalize(given)
        } else {
            given
        };
        if text.len() < LONG {
            self.scratch.writer.short_text(text);
            return self.count(text.len());
        }
        // Neither a copy that only the walk holds, nor another text.
        let own = self.held.len() == held && ptr::eq(text, given);
        let object = self.known_or_held(object, exact);
        self.long(text, object, own, Blob::Text)
    }

    /// What to remember a digest for. An instance of a subclass is not remembered, so nothing but the request
    /// would hold it while it is hashed: the walk does.
    fn known_or_held(&mut self, object: *mut ffi::PyObject, exact: bool) -> *mut ffi::PyObject {
        if exact {
            return object;
        }
        // SAFETY: `object` is alive.
        self.held
            .push(unsafe { Bound::from_borrowed_ptr(self.py, object) }.unbind());
        ptr::null_mut()
    }

    /// The UTF-8 form of a string of about `chars` characters.
    ///
    /// # Safety
    /// `object` is alive and an instance of `str`.
    pub(crate) unsafe fn utf8<'a>(
        &mut self,
        object: *mut ffi::PyObject,
        chars: usize,
    ) -> Walked<&'a [u8]> {
        let mut len: isize = 0;
        // SAFETY: as promised by the caller; the bytes live as long as the object that owns them,
        // which the request or `held` keeps alive.
        unsafe {
            let text = if chars > KEEP_UTF8 && !self.is_ascii(object) {
                let bytes = ffi::PyUnicode_AsUTF8String(object);
                if bytes.is_null() {
                    ptr::null()
                } else {
                    self.held
                        .push(Bound::from_owned_ptr(self.py, bytes).unbind());
                    len = ffi::PyBytes_Size(bytes);
                    ffi::PyBytes_AsString(bytes).cast_const()
                }
            } else {
                ffi::PyUnicode_AsUTF8AndSize(object, &raw mut len)
            };
            if text.is_null() {
                drop(PyErr::take(self.py));
                return Err(Fail::request(
                    "the string holds a lone surrogate, which has no UTF-8 form; decode it properly",
                ));
            }
            Ok(std::slice::from_raw_parts(text.cast(), len.cast_unsigned()))
        }
    }

    /// # Safety
    /// `object` is alive and an instance of `str`.
    unsafe fn is_ascii(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: as promised by the caller.
        let object = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        object
            .call_method0(pyo3::intern!(self.py, "isascii"))
            .and_then(|answer| answer.extract())
            .unwrap_or(false)
    }

    pub(crate) fn normalize<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        match std::str::from_utf8(text) {
            Ok(string) if is_nfc_quick(string.chars()) != IsNormalized::Yes => {
                let normal: String = string.nfc().collect();
                self.normalized.push(normal.into_boxed_str());
                let kept: *const str =
                    &raw const **self.normalized.last().unwrap_or_else(|| unreachable!());
                // SAFETY: a boxed str does not move, and `normalized` outlives the walk's use of it.
                unsafe { (*kept).as_bytes() }
            }
            _ => text,
        }
    }

    /// Writes the digest of a remembered object.
    fn recall(&mut self, object: *mut ffi::PyObject, kind: Blob) -> Walked<bool> {
        let Some(Known { len, digest }) = self.memo.as_mut().and_then(|memo| memo.get(object))
        else {
            return Ok(false);
        };
        self.count(len)?;
        self.scratch.writer.long(kind, len, &digest);
        Ok(true)
    }

    /// Writes the digest of a long text known from another object, or leaves it open. `own`: see `Pending`.
    fn long(
        &mut self,
        text: &[u8],
        object: *mut ffi::PyObject,
        own: bool,
        kind: Blob,
    ) -> Walked<()> {
        self.count(text.len())?;
        let sample = sample(text);
        if let Some(known) = self.memo.and_then(|memo| memo.alike(text, sample)) {
            self.scratch.writer.long(kind, known.len, &known.digest);
            return Ok(());
        }
        let at = self.scratch.writer.long(kind, text.len(), &[0; 32]);
        self.scratch.pending.push(Pending {
            at,
            text: text.as_ptr(),
            len: text.len(),
            object,
            own,
            sample,
        });
        Ok(())
    }

    #[inline]
    pub(crate) fn count(&mut self, bytes: usize) -> Walked<()> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(too_long());
        }
        Ok(())
    }

    /// # Safety
    /// `object` is alive and an instance of `bytes`; `exact` says that its type is `bytes` itself.
    pub(crate) unsafe fn blob(&mut self, object: *mut ffi::PyObject, exact: bool) -> Walked<()> {
        // SAFETY: as promised by the caller; `bytes` never move or change.
        let bytes = unsafe {
            let len = ffi::PyBytes_Size(object).cast_unsigned();
            std::slice::from_raw_parts(ffi::PyBytes_AsString(object).cast::<u8>(), len)
        };
        if bytes.len() < LONG {
            self.count(bytes.len())?;
            self.scratch.writer.short_bytes(bytes);
            return Ok(());
        }
        if exact && self.recall(object, Blob::Bytes)? {
            return Ok(());
        }
        let object = self.known_or_held(object, exact);
        self.long(bytes, object, true, Blob::Bytes)
    }

    /// # Safety
    /// `object` is alive and an instance of `int`.
    pub(crate) unsafe fn integer(&mut self, object: *mut ffi::PyObject) -> Walked<()> {
        let mut overflow: c_int = 0;
        // SAFETY: as promised by the caller.
        let small = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow) };
        if overflow == 0 {
            self.scratch.writer.integer(small);
            return Ok(());
        }
        // SAFETY: as promised by the caller. The methods are those of `int`, whatever a subclass defines.
        let magnitude = unsafe { magnitude(&Bound::from_borrowed_ptr(self.py, object)) };
        let magnitude = magnitude
            .map_err(|_| Fail::request("the integer is too large; pass it as a string"))?;
        self.count(magnitude.len())?;
        self.scratch.writer.big_integer(overflow < 0, &magnitude);
        Ok(())
    }

    /// # Safety
    /// `object` is alive and an instance of `float`.
    pub(crate) unsafe fn float(&mut self, object: *mut ffi::PyObject) -> Walked<()> {
        // SAFETY: as promised by the caller.
        let value = unsafe { ffi::PyFloat_AsDouble(object) };
        self.scratch.writer.float(value).map_err(|_| {
            Fail::request("NaN and infinities are not numbers a provider accepts; remove the field")
        })
    }
}

#[cold]
fn too_long() -> Box<Fail> {
    Fail::request(format!(
        "more than {} MiB of text and bytes; pass a digest instead",
        MAX_BYTES >> 20
    ))
}

fn magnitude(number: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = number.py();
    let int = py.get_type::<pyo3::types::PyInt>();
    let absolute = int.call_method1("__abs__", (number,))?;
    let bits: usize = int.call_method1("bit_length", (&absolute,))?.extract()?;
    if bits / 8 > MAX_BYTES {
        return Err(pyo3::exceptions::PyOverflowError::new_err("too large"));
    }
    int.call_method1("to_bytes", (&absolute, bits.div_ceil(8), "big"))?
        .extract()
}
