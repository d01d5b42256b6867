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

/// The known keys of a mapping.
pub(crate) struct Shape {
    keys: Vec<Py<PyAny>>,
    /// For each place in sorted order: which key it is, and where its encoded form ends.
    places: Vec<(u8, u16)>,
    /// The keys in sorted order, each with its length, as they stand in the canonical form.
    encoded: Vec<u8>,
}

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
        let mut places = Vec::with_capacity(keys.len());
        for (index, text) in sorted {
            writer.key(text);
            places.push((u8::try_from(index).ok()?, u16::try_from(writer.len()).ok()?));
        }
        let encoded = writer.as_bytes().to_vec();
        Some(Self {
            keys: keys.into_iter().map(|key| key.0).collect(),
            places,
            encoded,
        })
    }

    /// `(index of the key, its encoded form)` in sorted order.
    #[inline]
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut start = 0;
        self.places.iter().map(move |&(index, end)| {
            let encoded = &self.encoded[start..usize::from(end)];
            start = usize::from(end);
            (usize::from(index), encoded)
        })
    }

    fn is(&self, keys: &[*mut ffi::PyObject]) -> bool {
        self.keys.len() == keys.len()
            && self
                .keys
                .iter()
                .zip(keys)
                .all(|(known, &key)| known.as_ptr() == key)
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
        let shape = self.shapes.get(place(hash))?.as_deref()?;
        shape.is(keys).then_some(shape)
    }

    /// Counts a sequence of keys that is not known; whether it is time to keep it.
    pub(crate) fn meet(&mut self, hash: u64) -> bool {
        if self.met.is_empty() {
            self.met.resize(SHAPES, (0, 0));
        }
        let tag = hash as u32;
        let (last, times) = &mut self.met[place(hash)];
        if *last == tag {
            *times = times.saturating_add(1);
        } else {
            (*last, *times) = (tag, 1);
        }
        *times >= OFTEN
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
        self.shapes[place].replace(Box::new(shape))
    }
}
