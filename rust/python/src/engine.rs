//! `Engine`: the hot half of a cache. `LLMCache` is its subclass; what is awaited there starts here.
//!
//! A hit is one call: fingerprint, look-up, validity, finished awaitable. Everything else (a miss, a stale
//! entry, a value to decode, a closed cache) calls the method of the subclass named for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use llmcache_core::fingerprint::Fingerprint;
use llmcache_core::l1::{self, EntryView, L1, Lookup};
use llmcache_core::markers::{Markers, Stamp, Target, target};
use llmcache_core::profile::PROFILES;
use parking_lot::RwLock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::clock::Clock;
use crate::error;
use crate::keyer::{self, Prefix};
use crate::memo::Memo;
use crate::stored::{Facts, Stored, is_plain};

/// Prefixes of other namespaces kept ready.
const PREFIXES: usize = 4096;

pub(crate) struct Core {
    pub(crate) l1: L1<Stored, Facts>,
    pub(crate) markers: Markers,
    pub(crate) clock: Clock,
    pub(crate) namespace: String,
    /// The number of the cache's own namespace.
    pub(crate) home: u64,
    memo: Memo,
    nfc: bool,
    profile: usize,
    prefix: Prefix,
    prefixes: RwLock<HashMap<String, Vec<Option<Arc<Prefix>>>>>,
    /// Whether a miss in memory is a miss.
    pub(crate) alone: bool,
    /// Whether a hit needs markers that are vouched for.
    strict: bool,
    /// Until when of the monotonic clock all markers are known that others have raised.
    pub(crate) vouched: AtomicI64,
}

/// The hot half of a cache.
#[pyclass(frozen, subclass, module = "llmcache_fast._core")]
pub(crate) struct Engine {
    core: OnceLock<Core>,
    open: AtomicBool,
}

/// What a reading call says beside the request.
#[derive(Default)]
pub(crate) struct Reading<'py> {
    pub(crate) namespace: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) variant: Option<Bound<'py, PyAny>>,
    pub(crate) kind: Option<Bound<'py, PyAny>>,
}

impl Core {
    #[inline]
    pub(crate) fn fingerprint(
        &self,
        request: &Bound<'_, PyAny>,
        reading: &Reading<'_>,
    ) -> PyResult<Fingerprint> {
        if let Ok(bytes) = request.cast_exact::<PyBytes>() {
            return bytes.as_bytes().try_into().map_err(|_| {
                let reason = "bytes in place of a request are a fingerprint and must be 32; put others in a mapping";
                error::unkeyable(request.py(), reason, "")
            });
        }
        if reading.namespace.is_none() && reading.profile.is_none() && reading.variant.is_none() {
            return keyer::fingerprint(request, &self.prefix, Some(&self.memo), self.nfc);
        }
        self.scoped_fingerprint(request, reading)
    }

    #[cold]
    fn scoped_fingerprint(
        &self,
        request: &Bound<'_, PyAny>,
        reading: &Reading<'_>,
    ) -> PyResult<Fingerprint> {
        let memo = Some(&self.memo);
        let profile = reading
            .profile
            .as_deref()
            .map_or(Ok(self.profile), keyer::profile)?;
        let namespace = reading.namespace.as_deref().unwrap_or(&self.namespace);
        if reading.variant.is_some() {
            let prefix = Prefix::new(namespace, PROFILES[profile].name, reading.variant.as_ref())?;
            return keyer::fingerprint(request, &prefix, memo, self.nfc);
        }
        let known = self
            .prefixes
            .read()
            .get(namespace)
            .and_then(|prefixes| prefixes[profile].clone());
        let prefix = match known {
            Some(prefix) => prefix,
            None => self.remember_prefix(namespace, profile)?,
        };
        keyer::fingerprint(request, &prefix, memo, self.nfc)
    }

    fn remember_prefix(&self, namespace: &str, profile: usize) -> PyResult<Arc<Prefix>> {
        let prefix = Arc::new(Prefix::new(namespace, PROFILES[profile].name, None)?);
        let mut prefixes = self.prefixes.write();
        if prefixes.len() >= PREFIXES {
            prefixes.clear();
        }
        let row = prefixes
            .entry(namespace.to_owned())
            .or_insert_with(|| vec![None; PROFILES.len()]);
        row[profile] = Some(prefix.clone());
        Ok(prefix)
    }

    /// Whether no invalidation known here covers an entry of memory.
    pub(crate) fn valid(&self, key: &Fingerprint, entry: &EntryView<'_, Facts>) -> bool {
        let stamp = Stamp {
            epoch: entry.epoch(),
            snap: entry.snap(),
        };
        // Without facts: of the cache's own namespace, and nothing named.
        let facts = entry.facts();
        let (namespace, targets) = facts.map_or((self.home, &[][..]), |facts| {
            (facts.namespace, &facts.targets)
        });
        let label = || facts.and_then(Facts::label);
        let since = entry.checked();
        self.markers
            .valid_entry(namespace, stamp, key, targets, label, since)
    }

    /// The number of a namespace; that of the cache's own is known.
    pub(crate) fn namespace_id(&self, namespace: &str) -> u64 {
        if namespace == self.namespace {
            self.home
        } else {
            target(namespace, Target::Namespace)
        }
    }

    #[inline]
    pub(crate) fn look(&self, key: &Fingerprint) -> Lookup<Stored> {
        if self.strict && self.clock.is_past(self.vouched.load(Ordering::Relaxed)) {
            return Lookup::Miss;
        }
        let generation = self.markers.generation();
        self.l1.get(key, self.clock.coarse(), generation, |entry| {
            self.valid(key, entry)
        })
    }
}

impl Engine {
    /// The parts of an engine that was configured, open or not.
    pub(crate) fn core(&self) -> PyResult<&Core> {
        self.core
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("LLMCache.__init__ was not called"))
    }

    /// The parts of an engine if it is open.
    #[inline]
    pub(crate) fn if_open(&self) -> Option<&Core> {
        if self.open.load(Ordering::Relaxed) {
            self.core.get()
        } else {
            None
        }
    }

    /// The parts of an open engine.
    #[inline]
    pub(crate) fn opened(&self, py: Python<'_>) -> PyResult<&Core> {
        if self.open.load(Ordering::Relaxed) {
            self.core()
        } else {
            Err(error::closed(py))
        }
    }
}

/// A fresh value as the caller gets it, or `None` if it cannot be (then it is a miss).
pub(crate) fn finished<'py>(
    slf: &Bound<'py, Engine>,
    value: Stored,
    kind: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = value.into_bound(slf.py());
    if kind.is_none() && is_plain(&value) {
        return Ok(Some(value));
    }
    // `(decoded,)`, or None for what cannot be decoded to this type and for remembered failures.
    let decoded = slf.call_method1(intern!(slf.py(), "_decoded"), (value, kind))?;
    if decoded.is_none() {
        Ok(None)
    } else {
        decoded.get_item(0).map(Some)
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(_arguments: &Bound<'_, PyAny>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            core: OnceLock::new(),
            open: AtomicBool::new(false),
        }
    }

    #[pyo3(signature = (*, memory, namespace, profile, normalize, clock, epoch, alone, strict=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one call, made once")]
    fn _configure(
        &self,
        memory: u64,
        namespace: String,
        profile: &str,
        normalize: Option<&str>,
        clock: &Bound<'_, Clock>,
        epoch: u64,
        alone: bool,
        strict: bool,
    ) -> PyResult<()> {
        let core = Core {
            l1: L1::new(l1::Config::new(memory)),
            markers: Markers::new(epoch),
            memo: Memo::new(),
            nfc: keyer::nfc(normalize)?,
            clock: clock.get().clone(),
            prefix: Prefix::new(&namespace, profile, None)?,
            profile: keyer::profile(profile)?,
            home: target(&namespace, Target::Namespace),
            prefixes: RwLock::default(),
            namespace,
            alone,
            strict,
            vouched: AtomicI64::new(i64::MIN),
        };
        self.core
            .set(core)
            .map_err(|_| PyRuntimeError::new_err("LLMCache.__init__ was called twice"))
    }

    fn _set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// The 32-byte fingerprint of a request under this cache's namespace, profile and normalisation.
    #[pyo3(signature = (request, *, namespace=None, profile=None, variant=None))]
    fn fingerprint<'py>(
        &self,
        request: &Bound<'py, PyAny>,
        namespace: Option<String>,
        profile: Option<String>,
        variant: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let reading = Reading {
            namespace,
            profile,
            variant,
            kind: None,
        };
        Ok(keyer::to_bytes(
            request.py(),
            &self.core()?.fingerprint(request, &reading)?,
        ))
    }

    /// Each top-level field of a request with what the profile's rules say of it.
    #[pyo3(signature = (request, profile=None))]
    fn _explain(
        &self,
        request: &Bound<'_, PyAny>,
        profile: Option<&str>,
    ) -> PyResult<Vec<(String, &'static str, String)>> {
        let profile = profile.map_or(Ok(self.core()?.profile), keyer::profile)?;
        keyer::explain(request, PROFILES[profile])
    }

    /// `(objects, bytes)` the fingerprint memo holds.
    fn _memo(&self) -> PyResult<(usize, usize)> {
        Ok(self.core()?.memo.usage())
    }

    /// Forgets what the fingerprint memo holds.
    fn _clear_memo(&self) -> PyResult<()> {
        self.core()?.memo.clear();
        Ok(())
    }
}
