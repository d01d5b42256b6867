//! Remembers the digests of long immutable objects by identity, and by content.
//!
//! Sound because the memo holds a reference: while an object is in the table no other can have its address,
//! and the content of an exact `str` or `bytes` never changes. A fingerprint does not depend on the memo: a
//! table that is busy or full only costs the hashing it would have saved.
//!
//! A server parses its requests anew each time: texts that were seen before come in objects that were not. They
//! are found by a few of their words and compared byte by byte with what is held, a tenth of what hashing takes.

use std::cell::Cell;
use std::ptr;

use llmcache_core::documents::Documents;
use llmcache_core::fingerprint::{Fingerprint, of_document};
use parking_lot::{Mutex, MutexGuard};
use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::shape::Shapes;

const WAYS: usize = 4;
const SETS: usize = 1024;
/// Places by content.
const ALIKE: usize = WAYS * SETS;

/// Text and bytes kept alive at the most.
pub(crate) const MAX_HELD: usize = 64 << 20;
/// An object of more than this share of the bound is not remembered.
const MAX_ONE: usize = MAX_HELD / 4;

/// One line: a look-up waits for memory more than for anything else.
#[repr(align(64))]
struct Slot {
    object: Option<Py<PyAny>>,
    /// The object's own bytes if they are what the digest is of: as alive as the object. Else null.
    text: *const u8,
    len: usize,
    digest: [u8; 32],
    used: Cell<u64>,
}

// SAFETY: `text` points to what `object` owns and nothing changes; `object` may be sent.
unsafe impl Send for Slot {}

impl Default for Slot {
    fn default() -> Self {
        Self {
            object: None,
            text: ptr::null(),
            len: 0,
            digest: [0; 32],
            used: Cell::new(0),
        }
    }
}

impl Slot {
    /// The text of what is remembered, if the object itself has it.
    #[inline]
    fn text(&self) -> Option<&[u8]> {
        if self.object.is_none() || self.text.is_null() {
            return None;
        }
        // SAFETY: `object` is held, and owns these `len` bytes (`Table::put`).
        Some(unsafe { std::slice::from_raw_parts(self.text, self.len) })
    }

    #[inline]
    fn known(&self) -> Known {
        Known {
            len: self.len,
            digest: self.digest,
        }
    }
}

/// What had to go, to be released when the table is unlocked.
pub(crate) type Dropped = SmallVec<[Py<PyAny>; 16]>;

/// What the memo knows of an object.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) len: usize,
    pub(crate) digest: [u8; 32],
}

#[derive(Default)]
struct Set {
    slots: [Slot; WAYS],
}

/// Read during a walk, written after it.
#[derive(Default)]
pub(crate) struct Table {
    sets: Vec<Set>,
    held: usize,
    tick: Cell<u64>,
    hand: usize,
    /// For texts by their `sample`: the rest of the sample, and the number of the slot that may have it.
    alike: Vec<(u16, u16)>,
    pub(crate) shapes: Shapes,
    documents: Documents,
}

/// A bounded table of digests, one to an engine.
pub(crate) struct Memo {
    table: Mutex<Table>,
}

fn set_of(object: *mut ffi::PyObject) -> usize {
    // Objects are 16-byte aligned; Fibonacci hashing spreads what is left.
    ((object as usize >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) % SETS
}

/// Sixteen words of a long text in one number. What lies between them is not looked at: texts that differ there
/// alone share a place in `Table::alike`, which costs a comparison and then what hashing costs anyway.
#[inline]
pub(crate) fn sample(text: &[u8]) -> u32 {
    const WORDS: usize = 16;
    let step = (text.len() - 8) / (WORDS - 1);
    let word = |number: usize| {
        let at = number * step;
        text[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
    };
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Two chains, because a step waits for the one before it.
    let (mut even, mut odd) = (text.len() as u64, 0);
    for number in (0..WORDS).step_by(2) {
        even = mix(even, word(number));
        odd = mix(odd, word(number + 1));
    }
    (mix(even, odd) >> 32) as u32
}

/// Place in `Table::alike`, and what is kept there; never zero.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a half of the sample")]
fn alike_at(sample: u32) -> (usize, u16) {
    ((sample >> 16) as usize % ALIKE, sample as u16 | 1)
}

impl Memo {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::new(Table::default()),
        }
    }

    /// The table, unless another thread has it: nobody ever waits for it.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, Table>> {
        self.table.try_lock()
    }

    /// The fingerprint of a finished document; of one that came again and again without hashing it.
    pub(crate) fn fingerprint(&self, document: &[u8]) -> Fingerprint {
        match self.lock() {
            Some(mut table) => table.documents.fingerprint(document),
            None => of_document(document),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        if let Some(mut table) = self.lock() {
            let old = std::mem::take(&mut *table);
            drop(table);
            drop(old);
        }
    }

    /// `(objects, bytes)` held.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.lock().map_or((0, 0), |table| {
            let objects = table
                .sets
                .iter()
                .flat_map(|set| &set.slots)
                .filter(|slot| slot.object.is_some())
                .count();
            (objects, table.held)
        })
    }
}

impl Table {
    #[inline]
    pub(crate) fn get(&self, object: *mut ffi::PyObject) -> Option<Known> {
        let set = self.sets.get(set_of(object))?;
        let slot = set.slots.iter().find(|slot| {
            slot.object
                .as_ref()
                .is_some_and(|held| held.as_ptr() == object)
        })?;
        slot.used.set(self.next_tick());
        Some(slot.known())
    }

    /// What is known of another object with this text, of which this is the `sample`.
    pub(crate) fn alike(&self, text: &[u8], sample: u32) -> Option<Known> {
        let (place, tag) = alike_at(sample);
        let &(kept, number) = self.alike.get(place)?;
        if kept != tag {
            return None;
        }
        let number = usize::from(number);
        let slot = &self.sets[number / WAYS].slots[number % WAYS];
        if slot.text()? != text {
            return None;
        }
        slot.used.set(self.next_tick());
        Some(slot.known())
    }

    fn next_tick(&self) -> u64 {
        self.tick.set(self.tick.get() + 1);
        self.tick.get()
    }

    /// Remembers an exact `str` or `bytes`. What had to go is pushed to `dropped`, to be released after the
    /// table is unlocked.
    ///
    /// # Safety
    /// `text` is null, or the object owns the `known.len` bytes there, which are what the digest is of.
    pub(crate) unsafe fn put(
        &mut self,
        object: Py<PyAny>,
        text: *const u8,
        sample: u32,
        known: Known,
        dropped: &mut Dropped,
    ) {
        if known.len > MAX_ONE {
            dropped.push(object);
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Set::default);
            self.alike.resize(ALIKE, (0, 0));
        }
        while self.held + known.len > MAX_HELD {
            self.hand = (self.hand + 1) % SETS;
            for slot in &mut self.sets[self.hand].slots {
                if let Some(old) = slot.object.take() {
                    self.held -= slot.len;
                    dropped.push(old);
                }
            }
        }
        let used = Cell::new(self.next_tick());
        let pointer = object.as_ptr();
        let set = set_of(pointer);
        let slots = &mut self.sets[set].slots;
        let place = slots
            .iter()
            .position(|slot| {
                slot.object
                    .as_ref()
                    .is_some_and(|held| held.as_ptr() == pointer)
            })
            .or_else(|| slots.iter().position(|slot| slot.object.is_none()))
            .unwrap_or_else(|| {
                (0..WAYS)
                    .min_by_key(|&way| slots[way].used.get())
                    .unwrap_or(0)
            });
        let slot = &mut slots[place];
        if let Some(old) = slot.object.take() {
            self.held -= slot.len;
            dropped.push(old);
        }
        self.held += known.len;
        *slot = Slot {
            object: Some(object),
            text,
            len: known.len,
            digest: known.digest,
            used,
        };
        if !text.is_null() {
            // What stood at this place is no longer found by its content.
            let (at, tag) = alike_at(sample);
            self.alike[at] = (tag, u16::try_from(set * WAYS + place).unwrap_or(0));
        }
    }
}
