//! Remembers the keys of common mappings: `{"role": ..., "content": ...}` and the like.
//!
//! Programs build their requests from the same few key objects over and over. A shape is the sequence of
//! those objects with their order and their encoded form, so that a mapping of a known shape needs no look at
//! its keys at all: no text, no sort. Like the digests of `memo`, shapes hold what they know by identity, and
//! a fingerprint does not depend on them.

use std::ptr;

use llmcache_core::canonical::Writer;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::walk::is_exact;

/// Mappings of more keys than this have no shape.
pub(crate) const MAX_KEYS: usize = 12;
const SHAPES: usize = 512;
/// A shape is kept when it was met this often: keys that a parser makes anew each time are not worth it.
const OFTEN: u8 = 8;

/// Bytes the encoded keys of a shape may take.
const MAX_ENCODED: usize = 255;

/// The known keys of a mapping.
pub(crate) struct Shape {
    count: usize,
    /// Bytes of the keys' text.
    pub(crate) text: usize,
    /// In the order given.
    keys: [*mut ffi::PyObject; MAX_KEYS],
    /// For each place in sorted order: which key it is, and where what stands before its value ends.
    places: [(u8, u8); MAX_KEYS],
    /// What stands before each value in the canonical form: the key with its length, and before the first one
    /// the head of the mapping.
    encoded: [u8; MAX_ENCODED],
    /// Keeps the keys alive.
    held: Vec<Py<PyAny>>,
}

// SAFETY: the pointers are compared, never followed; `held` owns what they point to.
unsafe impl Send for Shape {}

impl Shape {
    /// The shape of a mapping; `None` unless all its keys are exact, short ASCII strings.
    ///
    /// # Safety
    /// `object` is alive and an exact `dict` that nothing changes meanwhile.
    pub(crate) unsafe fn of(py: Python<'_>, object: *mut ffi::PyObject) -> Option<Self> {
        let (mut key, mut value, mut position) = (ptr::null_mut(), ptr::null_mut(), 0);
        let mut keys: Vec<(Py<PyAny>, &[u8])> = Vec::new();
        // SAFETY: as promised by the caller; a text is as alive as its key, which is held.
        unsafe {
            while ffi::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut value) != 0 {
                if !is_exact!(key, PyUnicode_Type) || keys.len() == MAX_KEYS {
                    return None;
                }
                let mut len = 0;
                let text = ffi::PyUnicode_AsUTF8AndSize(key, &raw mut len);
                if text.is_null() {
                    ffi::PyErr_Clear();
                    return None;
                }
                let text = std::slice::from_raw_parts(text.cast::<u8>(), len.cast_unsigned());
                if !text.is_ascii() || text.len() >= 0x80 {
                    return None;
                }
                keys.push((Bound::from_borrowed_ptr(py, key).unbind(), text));
            }
        }
        let mut sorted: Vec<(usize, &[u8])> = keys
            .iter()
            .enumerate()
            .map(|(index, key)| (index, key.1))
            .collect();
        sorted.sort_unstable_by_key(|key| key.1);
        let mut writer = Writer::default();
        let mut places = [(0, 0); MAX_KEYS];
        writer.mapping(keys.len(), false);
        for (place, (index, text)) in places.iter_mut().zip(sorted) {
            writer.key(text);
            *place = (u8::try_from(index).ok()?, u8::try_from(writer.len()).ok()?);
        }
        let mut shape = Self {
            count: keys.len(),
            text: keys.iter().map(|key| key.1.len()).sum(),
            keys: [ptr::null_mut(); MAX_KEYS],
            places,
            encoded: [0; MAX_ENCODED],
            held: Vec::new(),
        };
        shape.encoded[..writer.len()].copy_from_slice(writer.as_bytes());
        for (known, key) in shape.keys.iter_mut().zip(&keys) {
            *known = key.0.as_ptr();
        }
        shape.held = keys.into_iter().map(|key| key.0).collect();
        Some(shape)
    }

    /// `(index of the key, what stands before its value)` in sorted order.
    #[inline]
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut start = 0;
        self.places[..self.count].iter().map(move |&(index, end)| {
            let encoded = &self.encoded[start..usize::from(end)];
            start = usize::from(end);
            (usize::from(index), encoded)
        })
    }

    #[inline]
    fn is(&self, keys: &[*mut ffi::PyObject]) -> bool {
        self.count == keys.len() && self.keys.iter().zip(keys).all(|(known, key)| known == key)
    }
}

/// A bounded table of shapes.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<Option<Box<Shape>>>,
    /// The last unknown sequence of keys met at each place, and how often.
    met: Vec<(u32, u8)>,
}

/// Of the identities of keys, in their given order.
#[inline]
pub(crate) fn hash(keys: &[*mut ffi::PyObject]) -> u64 {
    keys.iter().fold(keys.len() as u64, |hash, &key| {
        (hash.rotate_left(23) ^ (key as u64 >> 4)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    })
}

#[inline]
fn place(hash: u64) -> usize {
    (hash >> 40) as usize % SHAPES
}

impl Shapes {
    /// The shape of these keys, whose `hash` this is.
    #[inline]
    pub(crate) fn get(&self, hash: u64, keys: &[*mut ffi::PyObject]) -> Option<&Shape> {
        // Two places: programs have few shapes, but two of them must not chase each other out.
        let place = place(hash);
        let first = self
            .shapes
            .get(place)?
            .as_deref()
            .filter(|shape| shape.is(keys));
        first.or_else(|| {
            self.shapes
                .get(place ^ 1)?
                .as_deref()
                .filter(|shape| shape.is(keys))
        })
    }

    /// Counts a sequence of keys that is not known; whether it is time to keep it.
    pub(crate) fn meet(&mut self, hash: u64) -> bool {
        if self.met.is_empty() {
            self.met.resize(SHAPES, (0, 0));
        }
        let tag = (hash >> 8 & 0xffff_ffff) as u32;
        let (last, times) = &mut self.met[place(hash)];
        // As in Misra and Gries' frequent items: two sequences at one place do not keep each other out.
        if *last == tag || *times == 0 {
            (*last, *times) = (tag, times.saturating_add(1));
        } else {
            *times -= 1;
        }
        *last == tag && *times >= OFTEN
    }

    /// Keeps a shape; returns the one that had to go, to be released after the table is unlocked.
    pub(crate) fn put(&mut self, hash: u64, shape: Shape) -> Option<Box<Shape>> {
        if self.shapes.is_empty() {
            self.shapes.resize_with(SHAPES, || None);
        }
        let place = place(hash);
        if let Some(met) = self.met.get_mut(place) {
            *met = (0, 0);
        }
        let place = if self.shapes[place].is_some() && self.shapes[place ^ 1].is_none() {
            place ^ 1
        } else {
            place
        };
        self.shapes[place].replace(Box::new(shape))
    }
}
