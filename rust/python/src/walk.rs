//! From Python objects straight to canonical bytes: no intermediate JSON, no copy of long strings.
//!
//! A request made of exact builtins is read with borrowed references, because nothing that runs during the
//! walk can change it. The first object that needs Python code (a dataclass, another mapping) ends that walk;
//! it is repeated with every item held, so that such code may do what it likes. On a free-threaded
//! interpreter everything is held, and containers are read inside their critical section.

use std::{mem::MaybeUninit, ptr};

use llmcache_core::canonical::Writer;
use llmcache_core::profile::{Order, Profile};
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

use crate::builtins;
use crate::fail::{Fail, Segment, Walked, segment};
use crate::keys::{FEW, KeyRef, Keys, any_twice};
use crate::memo::Table;
use crate::rules::{Verdict, verdict};
use crate::shape::{self, MAX_KEYS};

/// A long value whose digest is still to be computed.
pub(crate) struct Pending {
    pub(crate) at: usize,
    pub(crate) text: *const u8,
    pub(crate) len: usize,
    /// The exact `str` or `bytes` to remember the digest for.
    pub(crate) object: *mut ffi::PyObject,
    /// Whether the text is that object's own, and so as alive.
    pub(crate) own: bool,
    /// The `memo::sample` of the text.
    pub(crate) sample: u32,
}

/// Where the order of keys counts from here on; `None` is nowhere.
type Below = Option<&'static Order>;

/// The parts of a walk that are kept for the next one.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) writer: Writer,
    pub(crate) pending: Vec<Pending>,
    /// Mappings without a known shape.
    pub(crate) unknown: Vec<(u64, *mut ffi::PyObject)>,
}

impl Scratch {
    /// Makes ready for a document that begins with `prefix`.
    pub(crate) fn begin(&mut self, prefix: &[u8]) {
        self.writer.truncate(0);
        self.pending.clear();
        self.unknown.clear();
        self.writer.raw(prefix);
    }
}

/// One walk. `OWNED`: every object met is held until it is over.
pub(crate) struct Walk<'a, 'py, const OWNED: bool> {
    pub(crate) py: Python<'py>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) memo: Option<&'a Table>,
    pub(crate) profile: &'static Profile,
    pub(crate) nfc: bool,
    pub(crate) held: Vec<Py<PyAny>>,
    pub(crate) normalized: Vec<Box<str>>,
    pub(crate) values: u32,
    pub(crate) bytes: usize,
}

macro_rules! is_exact {
    ($object:expr, $type:ident) => {
        ::pyo3::ffi::Py_TYPE($object) == &raw mut ::pyo3::ffi::$type
    };
}
pub(crate) use is_exact;

impl<'a, 'py, const OWNED: bool> Walk<'a, 'py, OWNED> {
    /// The whole request under the profile's rules.
    pub(crate) fn request(&mut self, request: &Bound<'py, PyAny>) -> Walked<()> {
        let order = &self.profile.order;
        // SAFETY: the caller holds the request.
        unsafe { self.value(request.as_ptr(), Some(order), 0) }
    }

    /// # Safety
    /// `object` is alive: borrowed from a container that nothing can change during this walk, or held by it.
    #[inline]
    pub(crate) unsafe fn value(
        &mut self,
        object: *mut ffi::PyObject,
        below: Below,
        depth: u32,
    ) -> Walked<()> {
        self.values += 1;
        // SAFETY: as promised by the caller; each call is given an object of the type it asks for.
        unsafe {
            if is_exact!(object, PyUnicode_Type) {
                self.exact_text(object)
            } else {
                self.rest(object, below, depth)
            }
        }
    }

    /// Everything but strings.
    ///
    /// # Safety
    /// As `value`.
    unsafe fn rest(&mut self, object: *mut ffi::PyObject, below: Below, depth: u32) -> Walked<()> {
        // SAFETY: as promised by the caller; each call is given an object of the type it asks for.
        unsafe {
            if is_exact!(object, PyDict_Type) {
                self.mapping(object, below, depth)
            } else if is_exact!(object, PyList_Type) || is_exact!(object, PyTuple_Type) {
                self.array(object, below, depth)
            } else if object == ffi::Py_None() {
                self.scratch.writer.null();
                Ok(())
            } else if is_exact!(object, PyBool_Type) {
                self.scratch.writer.boolean(object == ffi::Py_True());
                Ok(())
            } else if is_exact!(object, PyLong_Type) {
                self.integer(object)
            } else if is_exact!(object, PyFloat_Type) {
                self.float(object)
            } else if is_exact!(object, PyBytes_Type) {
                self.blob(object, true)
            } else {
                self.other(object, below, depth)
            }
        }
    }

    /// Subclasses of builtins, sets and foreign objects.
    ///
    /// # Safety
    /// As `value`.
    #[cold]
    unsafe fn other(&mut self, object: *mut ffi::PyObject, below: Below, depth: u32) -> Walked<()> {
        // SAFETY: as promised by the caller; the type checks decide which call the object is given to.
        unsafe {
            if ffi::PyUnicode_Check(object) != 0 {
                return self.text(object, false);
            }
            if ffi::PyLong_Check(object) != 0 {
                return self.integer(object);
            }
            if ffi::PyFloat_Check(object) != 0 {
                return self.float(object);
            }
            if ffi::PyBytes_Check(object) != 0 {
                return self.blob(object, false);
            }
            if ffi::PyList_Check(object) != 0 || ffi::PyTuple_Check(object) != 0 {
                return self.array(object, below, depth);
            }
            if !OWNED {
                return Err(Fail::foreign());
            }
            if ffi::PyAnySet_Check(object) != 0 {
                return self.set(object, depth);
            }
            self.enter(depth)?;
            let plain = self.plain(&Bound::from_borrowed_ptr(self.py, object))?;
            let pointer = plain.as_ptr();
            self.held.push(plain.unbind());
            // The builtin stands in the object's place: the same level, and one value.
            self.values -= 1;
            self.value(pointer, below, depth)
        }
    }

    /// What `llmcache_fast._request.plain` makes of an object: builtins, or an error that says why not.
    fn plain(&self, object: &Bound<'py, PyAny>) -> Walked<Bound<'py, PyAny>> {
        let convert = || {
            static PLAIN: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
            PLAIN
                .import(self.py, "llmcache_fast._request", "plain")?
                .call1((object,))
        };
        convert().map_err(|error| {
            let reason = error
                .value(self.py)
                .getattr("reason")
                .and_then(|reason| reason.extract::<String>());
            let kind = error
                .get_type(self.py)
                .name()
                .map_or_else(|_| "an exception".into(), |name| name.to_string());
            let of = object
                .get_type()
                .name()
                .map_or_else(|_| "?".into(), |name| name.to_string());
            let mut fail = Fail::request(reason.unwrap_or_else(|_| {
                format!("reading the fields of a {of} raised {kind}; pass a plain mapping instead")
            }));
            if !error.is_instance_of::<PyException>(self.py) {
                fail.raised = Some(error);
            }
            fail
        })
    }

    /// # Safety
    /// `object` is alive and an instance of `list` or `tuple`.
    unsafe fn array(&mut self, object: *mut ffi::PyObject, below: Below, depth: u32) -> Walked<()> {
        self.enter(depth)?;
        let below = match below {
            Some(Order::Each(order)) => Some(*order),
            Some(Order::Keep) => below,
            _ => None,
        };
        let list = builtins::is_list(object);
        let base = self.held.len();
        if OWNED {
            // SAFETY: `object` is alive; the items are held before anything else can run.
            let holder = unsafe { Bound::from_borrowed_ptr(self.py, object) };
            with_critical_section(&holder, || unsafe {
                for index in 0..builtins::size(object, list) {
                    let item = builtins::item(object, index, list);
                    self.held
                        .push(Bound::from_borrowed_ptr(self.py, item).unbind());
                }
            });
        }
        // SAFETY: as promised by the caller. Unless `OWNED`, nothing below can change the list.
        unsafe {
            let count = if OWNED {
                self.held.len() - base
            } else {
                builtins::size(object, list)
            };
            self.scratch.writer.array(count);
            for index in 0..count {
                let item = if OWNED {
                    self.held[base + index].as_ptr()
                } else {
                    builtins::item(object, index, list)
                };
                if let Err(fail) = self.value(item, below, depth + 1) {
                    return Err(fail.under(Segment::Index(index)));
                }
            }
            self.enter(depth)
        }
    }

    /// # Safety
    /// `object` is alive and an exact `dict`.
    unsafe fn mapping(
        &mut self,
        object: *mut ffi::PyObject,
        below: Below,
        depth: u32,
    ) -> Walked<()> {
        if below.is_none()
            && let Some(memo) = self.memo
        {
            // SAFETY: as promised by the caller.
            return unsafe { self.known_mapping(memo, object, depth) };
        }
        // SAFETY: as promised by the caller.
        unsafe { self.any_mapping(object, below, depth) }
    }

    /// A mapping whose keys may be known; all orders below are sorted. The walk is not `OWNED`.
    ///
    /// # Safety
    /// As `mapping`.
    unsafe fn known_mapping(
        &mut self,
        memo: &'a Table,
        object: *mut ffi::PyObject,
        depth: u32,
    ) -> Walked<()> {
        let mut keys = [const { MaybeUninit::uninit() }; MAX_KEYS];
        let mut values = [const { MaybeUninit::uninit() }; MAX_KEYS];
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        let mut position: isize = 0;
        let mut count = 0;
        // SAFETY: as promised by the caller; nothing runs between two steps.
        unsafe {
            let size = builtins::dict_size(object);
            if size > MAX_KEYS {
                return self.any_mapping(object, None, depth);
            }
            // A step costs as much as a short value: the one that only says that there is no more is saved.
            while count < size
                && ffi::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut value) != 0
            {
                keys[count] = MaybeUninit::new(key);
                values[count] = MaybeUninit::new(value);
                count += 1;
            }
        }
        // SAFETY: the first `count` were written.
        let (keys, values) = unsafe {
            (
                keys[..count].assume_init_ref(),
                values[..count].assume_init_ref(),
            )
        };
        let hash = shape::hash(keys);
        let Some(shape) = memo.shapes.get(hash, keys) else {
            self.scratch.unknown.push((hash, object));
            // SAFETY: as promised by the caller.
            return unsafe { self.any_mapping(object, None, depth) };
        };
        self.bytes += shape.text;
        self.enter(depth)?;
        if count == 0 {
            self.scratch.writer.mapping(0, false);
        }
        for (place, (index, before)) in shape.places().enumerate() {
            self.scratch.writer.raw(before);
            // SAFETY: the value is borrowed from the dict.
            if let Err(fail) = unsafe { self.value(values[index], None, depth + 1) } {
                // The head of the mapping and of the key are before its text.
                return Err(fail.under(segment(&before[if place == 0 { 3 } else { 1 }..])));
            }
        }
        Ok(())
    }

    /// # Safety
    /// As `mapping`.
    unsafe fn any_mapping(
        &mut self,
        object: *mut ffi::PyObject,
        below: Below,
        depth: u32,
    ) -> Walked<()> {
        self.enter(depth)?;
        let ordered = matches!(below, Some(Order::Keep));
        let mut keys = Keys::new();
        // SAFETY: as promised by the caller.
        let exact = unsafe {
            if OWNED {
                let holder = Bound::from_borrowed_ptr(self.py, object);
                with_critical_section(&holder, || self.collect(object, &mut keys, ordered, depth))?
            } else {
                self.collect(object, &mut keys, ordered, depth)?
            }
        };
        if !ordered && keys.len() > FEW {
            keys.sort_unstable_by(super::keys::KeyRef::compare);
        }
        // Exact strings as they are differ, because they are the keys of one dict.
        if (self.nfc || !exact) && any_twice(&keys, ordered) {
            return Err(Fail::request(
                "two keys are equal, as they are or under NFC; rename one",
            ));
        }
        self.scratch.writer.mapping(keys.len(), ordered);
        for key in &keys {
            let text = key.text();
            self.scratch.writer.key(text);
            let below = match below {
                Some(Order::Keep) => below,
                Some(Order::Keys(keys)) => keys
                    .iter()
                    .find(|(name, _)| name.as_bytes() == text)
                    .map(|(_, order)| order),
                None | Some(Order::Each(_)) => None,
            };
            // SAFETY: the value is borrowed from the dict, or held.
            if let Err(fail) = unsafe { self.value(key.value, below, depth + 1) } {
                return Err(fail.under(segment(text)));
            }
        }
        self.enter(depth)
    }

    /// Reads keys and values, in ascending order if they are few. Returns whether all keys are exact strings.
    ///
    /// # Safety
    /// `object` is alive and an exact `dict`, inside its critical section.
    #[inline]
    unsafe fn collect(
        &mut self,
        object: *mut ffi::PyObject,
        keys: &mut Keys,
        ordered: bool,
        depth: u32,
    ) -> Walked<bool> {
        let mut exact = true;
        let mut position: isize = 0;
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: nothing in the loop runs Python code, so the dict does not change under it. Key and value
        // are borrowed from it; `OWNED` holds them beyond the loop.
        unsafe {
            while ffi::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut value) != 0 {
                let text = self.key_text(key)?;
                exact &= is_exact!(key, PyUnicode_Type);
                if depth == 0 && !matches!(verdict(self.profile, text, value), Verdict::In) {
                    continue;
                }
                if OWNED {
                    self.held
                        .push(Bound::from_borrowed_ptr(self.py, key).unbind());
                    self.held
                        .push(Bound::from_borrowed_ptr(self.py, value).unbind());
                }
                let new = KeyRef::new(text, value);
                keys.push(new);
                let mut at = keys.len() - 1;
                if !ordered && at < FEW {
                    let keys = &mut keys[..];
                    while at > 0 && new.compare(&keys[at - 1]).is_lt() {
                        keys[at] = keys[at - 1];
                        at -= 1;
                    }
                    keys[at] = new;
                }
            }
        }
        Ok(exact)
    }

    /// # Safety
    /// `key` is alive.
    #[inline]
    unsafe fn key_text<'k>(&mut self, key: *mut ffi::PyObject) -> Walked<&'k [u8]> {
        // SAFETY: as promised by the caller.
        unsafe {
            if is_exact!(key, PyUnicode_Type)
                && let Some(text) = builtins::ascii(key)
            {
                self.bytes += text.len();
                return Ok(text);
            }
            if ffi::PyUnicode_Check(key) == 0 {
                let of = Bound::from_borrowed_ptr(self.py, key).get_type();
                let of = of
                    .name()
                    .map_or_else(|_| "?".into(), |name| name.to_string());
                return Err(Fail::request(format!(
                    "a key is of type {of}; keys must be strings"
                )));
            }
            let text = self.utf8(key, 0)?;
            self.count(text.len())?;
            Ok(if self.nfc { self.normalize(text) } else { text })
        }
    }
}
