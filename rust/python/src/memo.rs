//! Remembers the digests of long immutable objects by identity.
//!
//! Sound because the memo holds a reference: while an object is in the table no other can have its address,
//! and the content of an exact `str` or `bytes` never changes. A fingerprint does not depend on the memo: a
//! table that is busy or full only costs the hashing it would have saved.

use std::cell::Cell;

use parking_lot::{Mutex, MutexGuard};
use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::shape::Shapes;

const WAYS: usize = 4;
const SETS: usize = 1024;

/// Text and bytes kept alive at the most.
pub(crate) const MAX_HELD: usize = 64 << 20;
/// An object of more than this share of the bound is not remembered.
const MAX_ONE: usize = MAX_HELD / 4;

#[derive(Default)]
struct Slot {
    object: Option<Py<PyAny>>,
    len: usize,
    digest: [u8; 32],
    used: Cell<u64>,
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
    pub(crate) shapes: Shapes,
}

/// A bounded table of digests, one to an engine.
pub(crate) struct Memo {
    table: Mutex<Table>,
}

fn set_of(object: *mut ffi::PyObject) -> usize {
    // Objects are 16-byte aligned; Fibonacci hashing spreads what is left.
    ((object as usize >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) % SETS
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
        Some(Known {
            len: slot.len,
            digest: slot.digest,
        })
    }

    fn next_tick(&self) -> u64 {
        self.tick.set(self.tick.get() + 1);
        self.tick.get()
    }

    /// Remembers an exact `str` or `bytes`. What had to go is pushed to `dropped`, to be released after the
    /// table is unlocked.
    pub(crate) fn put(&mut self, object: Py<PyAny>, known: Known, dropped: &mut Dropped) {
        if known.len > MAX_ONE {
            dropped.push(object);
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Set::default);
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
        let slots = &mut self.sets[set_of(pointer)].slots;
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
            len: known.len,
            digest: known.digest,
            used,
        };
    }
}
