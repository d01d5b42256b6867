//! Requests to fingerprints: the walk, the deferred hashing of long values, the memo, `explain`.

use std::cell::Cell;
use std::ptr;
use std::sync::LazyLock;

use llmcache_core::canonical::{MAGIC, Writer};
use llmcache_core::fingerprint::{Fingerprint, of_document, tree_digests};
use llmcache_core::profile::{PROFILES, Profile};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyInt, PyMemoryView, PyString};
use smallvec::SmallVec;

use crate::error;
use crate::fail::Why;
use crate::memo::{Dropped, Known, Memo};
use crate::rules::{Verdict, verdict};
use crate::shape::Shape;
use crate::walk::{Pending, Scratch, Walk};

/// Long values of more bytes than this are hashed with the interpreter detached.
const DETACH: usize = 256 << 10;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// What stands before the request in a document.
pub(crate) struct Prefix {
    pub(crate) profile: &'static Profile,
    bytes: Vec<u8>,
}

impl Prefix {
    /// The ready-made prefix of the default namespace, the most common one outside a cache.
    pub(crate) fn shared(
        namespace: &str,
        profile: &str,
        variant: Option<&Bound<'_, PyAny>>,
    ) -> Option<&'static Self> {
        static SHARED: LazyLock<Vec<Prefix>> = LazyLock::new(|| {
            PROFILES
                .iter()
                .filter_map(|profile| Prefix::new("default", profile.name, None).ok())
                .collect()
        });
        if namespace != "default" || variant.is_some() {
            return None;
        }
        SHARED.iter().find(|prefix| prefix.profile.name == profile)
    }

    /// # Errors
    /// `ValueError` for an unknown profile or a variant that is neither a string nor an integer.
    pub(crate) fn new(
        namespace: &str,
        profile: &str,
        variant: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let profile = PROFILES[self::profile(profile)?];
        let mut writer = Writer::default();
        writer.raw(&MAGIC);
        writer.text(namespace);
        writer.text(profile.name);
        match variant {
            None => writer.null(),
            Some(variant) => {
                if let Ok(text) = variant.cast::<PyString>() {
                    writer.text(text.to_str()?);
                } else {
                    let number = variant.cast::<PyInt>().ok();
                    let number = number
                        .filter(|number| !number.is_instance_of::<PyBool>())
                        .and_then(|number| number.extract().ok());
                    writer.integer(number.ok_or_else(|| {
                        PyValueError::new_err("variant: must be a string or an integer of 64 bits")
                    })?);
                }
            }
        }
        Ok(Self {
            profile,
            bytes: writer.as_bytes().to_vec(),
        })
    }
}

/// The fingerprint of a request.
///
/// # Errors
/// `UnkeyableRequestError`, with the path to what has no canonical form.
pub(crate) fn fingerprint(
    request: &Bound<'_, PyAny>,
    prefix: &Prefix,
    memo: Option<&Memo>,
    nfc: bool,
) -> PyResult<Fingerprint> {
    if let Some(ready) = ready(request)? {
        return Ok(ready);
    }
    document(request, prefix, memo, nfc, |writer| match memo {
        Some(memo) => memo.fingerprint(writer.as_bytes()),
        None => of_document(writer.as_bytes()),
    })
}

/// A request that is its fingerprint already.
#[inline]
fn ready(request: &Bound<'_, PyAny>) -> PyResult<Option<Fingerprint>> {
    if request.is_exact_instance_of::<PyDict>() {
        return Ok(None);
    }
    let bytes = request.cast::<PyBytes>();
    if bytes.is_err()
        && !request.is_instance_of::<PyByteArray>()
        && !request.is_instance_of::<PyMemoryView>()
    {
        return Ok(None);
    }
    bytes
        .ok()
        .and_then(|bytes| bytes.as_bytes().try_into().ok())
        .map(Some)
        .ok_or_else(|| {
            let reason = "bytes on their own are a ready fingerprint, and that is exactly 32 bytes; \
                          put other bytes into a mapping";
            error::unkeyable(request.py(), reason, "")
        })
}

/// The canonical document of a request, for inspection and tests.
///
/// # Errors
/// As `fingerprint`.
pub(crate) fn canonical(
    request: &Bound<'_, PyAny>,
    prefix: &Prefix,
    nfc: bool,
) -> PyResult<Vec<u8>> {
    document(request, prefix, None, nfc, |writer| {
        writer.as_bytes().to_vec()
    })
}

fn document<T>(
    request: &Bound<'_, PyAny>,
    prefix: &Prefix,
    memo: Option<&Memo>,
    nfc: bool,
    finish: impl FnOnce(&Writer) -> T,
) -> PyResult<T> {
    // A walk may run Python code that asks for a fingerprint: the inner one finds no scratch and makes its own.
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let mut walked = if cfg!(Py_GIL_DISABLED) {
        Err(Why::Foreign)
    } else {
        walk::<false>(request, prefix, memo, nfc, &mut scratch)
    };
    if let Err(Why::Foreign) = walked {
        walked = walk::<true>(request, prefix, memo, nfc, &mut scratch);
    }
    let result = match walked {
        Ok(()) => Ok(finish(&scratch.writer)),
        Err(Why::Request(reason, path)) => Err(error::unkeyable(request.py(), &reason, &path)),
        Err(Why::Raised(raised)) => Err(raised),
        Err(Why::Foreign) => Err(error::unkeyable(
            request.py(),
            "the request cannot be read",
            "",
        )),
    };
    SCRATCH.set(Some(scratch));
    result
}

fn walk<const OWNED: bool>(
    request: &Bound<'_, PyAny>,
    prefix: &Prefix,
    memo: Option<&Memo>,
    nfc: bool,
    scratch: &mut Scratch,
) -> Result<(), Why> {
    let py = request.py();
    scratch.begin(&prefix.bytes);
    // No lock is held while Python code may run.
    let table = if OWNED {
        None
    } else {
        memo.and_then(Memo::lock)
    };
    let mut walk = Walk::<OWNED> {
        py,
        scratch,
        memo: table.as_deref(),
        profile: prefix.profile,
        nfc,
        held: Vec::new(),
        normalized: Vec::new(),
        values: 0,
        bytes: 0,
    };
    let walked = walk.request(request);
    // Both own texts that are hashed below.
    let (_held, _normalized) = (walk.held, walk.normalized);
    drop(table);
    walked.map_err(|fail| fail.why())?;
    hash_pending(py, scratch, memo);
    Ok(())
}

/// Computes the digests the walk left open, all side by side, and remembers them.
fn hash_pending(py: Python<'_>, scratch: &mut Scratch, memo: Option<&Memo>) {
    let Scratch {
        writer,
        pending,
        unknown,
    } = scratch;
    if pending.is_empty() && unknown.is_empty() {
        return;
    }
    // SAFETY: the texts belong to objects of the request, which is alive and unchanged since the walk: no
    // Python code has run on this thread. Before other threads may run, a reference is taken to each.
    let texts: SmallVec<[&[u8]; 16]> = pending
        .iter()
        .map(|todo| unsafe { std::slice::from_raw_parts(todo.text, todo.len) })
        .collect();
    let total: usize = texts.iter().map(|text| text.len()).sum();
    let mut held = Vec::new();
    let digests = if total > DETACH {
        // The request may change meanwhile: only what is held may be looked at afterwards.
        held.extend(pending.iter().filter_map(|todo| todo.object(py)));
        unknown.clear();
        py.detach(|| tree_digests(&texts))
    } else {
        tree_digests(&texts)
    };
    // Declared before the table, and so released when no lock is held.
    let mut dropped = Dropped::new();
    let mut shapes = Vec::new();
    let mut table = memo.and_then(Memo::lock);
    for (todo, digest) in pending.iter().zip(&digests) {
        writer.patch(todo.at, digest);
        if let Some(table) = &mut table
            && let Some(object) = todo.object(py)
        {
            let known = Known {
                len: todo.len,
                digest: *digest,
            };
            let text = if todo.own { todo.text } else { ptr::null() };
            // SAFETY: the text was read from the object, and is its own if the walk says so.
            unsafe { table.put(object, text, todo.sample, known, &mut dropped) };
        }
    }
    if let Some(table) = &mut table {
        for &(hash, object) in unknown.iter() {
            if table.shapes.meet(hash) {
                // SAFETY: as the texts above.
                let shape = unsafe { Shape::of(py, object) };
                shapes.extend(shape.and_then(|shape| table.shapes.put(hash, shape)));
            }
        }
    }
}

impl Pending {
    fn object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        // SAFETY: alive as long as its text, see `hash_pending`.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.object).map(Bound::unbind) }
    }
}

/// Each top-level field with what the rules say of it: `(field, "in" | "dropped" | "defaulted", rule)`.
///
/// # Errors
/// `UnkeyableRequestError` when the request is neither a mapping nor an object with fields.
pub(crate) fn explain(
    request: &Bound<'_, PyAny>,
    profile: &'static Profile,
) -> PyResult<Vec<(String, &'static str, String)>> {
    let py = request.py();
    let Ok(fields) = request.cast::<PyDict>() else {
        return Err(error::unkeyable(py, "explain needs a mapping", ""));
    };
    let mut rows = Vec::new();
    for (key, value) in fields.iter() {
        let Ok(key) = key.extract::<String>() else {
            return Err(error::unkeyable(py, "keys must be strings", ""));
        };
        // SAFETY: `value` is alive.
        let (what, rule) = match unsafe { verdict(profile, key.as_bytes(), value.as_ptr()) } {
            Verdict::In => ("in", String::new()),
            Verdict::Dropped(why) => ("dropped", format!("{}/drop/{key} ({why})", profile.name)),
            Verdict::Defaulted => ("defaulted", format!("{}/default/{key}", profile.name)),
        };
        rows.push((key, what, rule));
    }
    Ok(rows)
}

/// The fingerprint as Python sees it.
pub(crate) fn to_bytes<'py>(py: Python<'py>, fingerprint: &Fingerprint) -> Bound<'py, PyBytes> {
    PyBytes::new(py, fingerprint)
}

/// The `normalize` option: whether strings are put into normalisation form C.
///
/// # Errors
/// `ValueError` for anything but `None` and `"NFC"`.
pub(crate) fn nfc(normalize: Option<&str>) -> PyResult<bool> {
    match normalize {
        None => Ok(false),
        Some("NFC") => Ok(true),
        Some(other) => Err(PyValueError::new_err(format!(
            "normalize: must be None or \"NFC\", not {other:?}"
        ))),
    }
}

/// The place in `PROFILES` of the profile of that name.
///
/// # Errors
/// `ValueError` that names the known ones.
pub(crate) fn profile(name: &str) -> PyResult<usize> {
    PROFILES
        .iter()
        .position(|profile| profile.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
            PyValueError::new_err(format!(
                "profile: there is none named {name:?}; known are {}",
                known.join(", ")
            ))
        })
}
