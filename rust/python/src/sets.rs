//! Sets of a walk: sorted by the bytes of their items' forms.

use pyo3::ffi;
use pyo3::prelude::*;

use crate::fail::{Fail, Walked};
use crate::walk::{Walk, is_exact};

impl<'py, const OWNED: bool> Walk<'_, 'py, OWNED> {
    /// # Safety
    /// `object` is alive and an instance of `set` or `frozenset`; the walk is `OWNED`.
    pub(crate) unsafe fn set(&mut self, object: *mut ffi::PyObject, depth: u32) -> Walked<()> {
        self.enter(depth)?;
        // SAFETY: as promised by the caller.
        let set = unsafe { Bound::from_borrowed_ptr(self.py, object) };
        // A copy of the content: a subclass may define another iteration.
        // SAFETY: `object` is alive.
        let set =
            unsafe { Bound::from_owned_ptr_or_err(self.py, ffi::PyFrozenSet_New(set.as_ptr())) };
        let unsortable = || {
            Fail::request(
                "the set cannot be sorted: its items must be all strings, all numbers or all bytes",
            )
        };
        let items: Vec<Bound<'py, PyAny>> = set
            .and_then(|set| set.try_iter())
            .and_then(Iterator::collect::<PyResult<_>>)
            .map_err(|_| unsortable())?;
        let kind = |item: &Bound<'py, PyAny>| unsafe {
            let item = item.as_ptr();
            if ffi::PyUnicode_Check(item) != 0 {
                1
            } else if is_exact!(item, PyBool_Type) {
                0
            } else if ffi::PyLong_Check(item) != 0 || ffi::PyFloat_Check(item) != 0 {
                2
            } else if ffi::PyBytes_Check(item) != 0 {
                3
            } else {
                0
            }
        };
        if items
            .iter()
            .any(|item| kind(item) == 0 || kind(item) != kind(&items[0]))
        {
            return Err(unsortable());
        }
        // Each item is written once to learn its form; long items are hashed at once, as sorting needs them.
        let mut forms = Vec::with_capacity(items.len());
        let start = self.scratch.writer.len();
        for item in items {
            let pending = self.scratch.pending.len();
            // SAFETY: `item` is held.
            unsafe { self.value(item.as_ptr(), None, depth + 1)? };
            for todo in self.scratch.pending.drain(pending..) {
                // SAFETY: the text belongs to `item`, which is alive.
                let text = unsafe { std::slice::from_raw_parts(todo.text, todo.len) };
                self.scratch.writer.patch(
                    todo.at,
                    &llmcache_core::fingerprint::tree_digests(&[text])[0],
                );
            }
            forms.push(self.scratch.writer.as_bytes()[start..].to_vec());
            self.scratch.writer.truncate(start);
            self.held.push(item.unbind());
        }
        forms.sort_unstable();
        if forms.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Fail::request(
                "two items of the set are equal, as they are or under NFC; remove one",
            ));
        }
        self.scratch.writer.set(forms.len());
        for form in forms {
            self.scratch.writer.raw(&form);
        }
        Ok(())
    }
}
