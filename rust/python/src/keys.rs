//! The keys of a mapping while they are sorted.

use std::cmp::Ordering;

use pyo3::ffi;
use smallvec::SmallVec;

#[derive(Clone, Copy)]
pub(crate) struct KeyRef {
    /// The first eight bytes, big-endian: most comparisons end here.
    prefix: u64,
    text: *const u8,
    len: usize,
    pub(crate) value: *mut ffi::PyObject,
}

impl KeyRef {
    #[inline]
    pub(crate) fn new(text: &[u8], value: *mut ffi::PyObject) -> Self {
        Self {
            prefix: prefix(text),
            text: text.as_ptr(),
            len: text.len(),
            value,
        }
    }

    pub(crate) fn text<'a>(&self) -> &'a [u8] {
        // SAFETY: points into a key's UTF-8 (or `Walk::normalized`), alive until the walk leaves the mapping.
        unsafe { std::slice::from_raw_parts(self.text, self.len) }
    }

    #[inline]
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.prefix
            .cmp(&other.prefix)
            .then_with(|| self.text().cmp(other.text()))
    }
}

/// Mappings of no more keys than this are sorted while they are read, and on the stack.
pub(crate) const FEW: usize = 12;

pub(crate) type Keys = SmallVec<[KeyRef; FEW]>;

/// Whether two keys have the same text; `keys` are sorted unless `ordered`.
#[cold]
pub(crate) fn any_twice(keys: &Keys, ordered: bool) -> bool {
    let mut texts: Vec<&[u8]> = keys.iter().map(KeyRef::text).collect();
    if ordered {
        texts.sort_unstable();
    }
    texts.windows(2).any(|pair| pair[0] == pair[1])
}

/// The first eight bytes as a number that sorts as they do.
#[inline]
fn prefix(text: &[u8]) -> u64 {
    if let Some(first) = text.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let n = text.len();
    if n >= 4 {
        // Two overlapping halves; what they share is the same in both.
        let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) else {
            return 0;
        };
        return u64::from(u32::from_be_bytes(*first)) << 32
            | u64::from(u32::from_be_bytes(*last)) << (64 - 8 * n);
    }
    text.iter()
        .enumerate()
        .fold(0, |all, (at, &byte)| all | u64::from(byte) << (56 - 8 * at))
}
