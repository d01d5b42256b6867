//! `Engine`: the hot half of a cache. `LLMCache` is its subclass; what is awaited there starts here.
//!
//! A hit is one call: fingerprint, look-up, validity, finished awaitable. Everything else (a miss, a stale
//! entry, a value to decode, a closed cache) calls the method of the subclass named for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use llmcache_core::fingerprint::Fingerprint;
use llmcache_core::l1::{self, EntryView, L1, Lookup};
use llmcache_core::markers::{Markers, Stamp};
use llmcache_core::profile::PROFILES;
use parking_lot::RwLock;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet};

use crate::clock::Clock;
use crate::error;
use crate::keyer::{self, Prefix};
use crate::memo::Memo;
use crate::ready::ready;
use crate::stored::{Facts, Stored, is_plain};

/// Prefixes of other namespaces kept ready.
const PREFIXES: usize = 4096;

pub(crate) struct Core {
    pub(crate) l1: L1<Stored, Facts>,
    pub(crate) markers: Markers,
    pub(crate) clock: Clock,
    pub(crate) namespace: String,
    memo: Memo,
    nfc: bool,
    profile: usize,
    prefix: Prefix,
    prefixes: RwLock<HashMap<String, Vec<Option<Arc<Prefix>>>>>,
    /// Names of the options a computing call takes.
    options: Py<PyFrozenSet>,
    /// Whether a miss in memory is a miss.
    alone: bool,
}

/// The hot half of a cache.
#[pyclass(frozen, subclass, module = "llmcache_fast._core")]
pub(crate) struct Engine {
    core: OnceLock<Core>,
    open: AtomicBool,
}

/// What picks the document's prefix in a call.
#[derive(Clone, Copy)]
struct Scope<'a, 'py> {
    namespace: Option<&'a str>,
    profile: Option<&'a str>,
    variant: Option<&'a Bound<'py, PyAny>>,
}

impl Core {
    fn fingerprint(&self, request: &Bound<'_, PyAny>, scope: Scope<'_, '_>) -> PyResult<Fingerprint> {
        if let Ok(bytes) = request.cast_exact::<PyBytes>() {
            return bytes.as_bytes().try_into().map_err(|_| {
                let reason = "bytes in place of a request are a fingerprint and must be 32; put others in a mapping";
                error::unkeyable(request.py(), reason, "")
            });
        }
        let memo = Some(&self.memo);
        if scope.namespace.is_none() && scope.profile.is_none() && scope.variant.is_none() {
            return keyer::fingerprint(request, &self.prefix, memo, self.nfc);
        }
        let profile = scope.profile.map_or(Ok(self.profile), keyer::profile)?;
        let namespace = scope.namespace.unwrap_or(&self.namespace);
        if scope.variant.is_some() {
            let prefix = Prefix::new(namespace, PROFILES[profile].name, scope.variant)?;
            return keyer::fingerprint(request, &prefix, memo, self.nfc);
        }
        let known = self.prefixes.read().get(namespace).and_then(|prefixes| prefixes[profile].clone());
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
        let row = prefixes.entry(namespace.to_owned()).or_insert_with(|| vec![None; PROFILES.len()]);
        row[profile] = Some(prefix.clone());
        Ok(prefix)
    }

    pub(crate) fn valid(&self, entry: &EntryView<'_, Facts>) -> bool {
        let stamp = Stamp { epoch: entry.epoch(), snap: entry.snap() };
        entry.facts().is_some_and(|facts| self.markers.valid(facts.namespace, stamp, &facts.targets))
    }

    #[inline]
    fn look(&self, key: &Fingerprint) -> Lookup<Stored> {
        let generation = self.markers.generation();
        self.l1.get(key, self.clock.coarse(), generation, |entry| self.valid(entry))
    }
}

impl Engine {
    /// The parts of an engine that was configured, open or not.
    pub(crate) fn core(&self) -> PyResult<&Core> {
        self.core.get().ok_or_else(|| PyRuntimeError::new_err("LLMCache.__init__ was not called"))
    }

    /// The parts of an open engine.
    #[inline]
    fn opened(&self, py: Python<'_>) -> PyResult<&Core> {
        if self.open.load(Ordering::Relaxed) { self.core() } else { Err(error::closed(py)) }
    }
}

/// A fresh value as the caller gets it, or `None` if it cannot be (then it is a miss).
fn finished<'py>(
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
    if decoded.is_none() { Ok(None) } else { decoded.get_item(0).map(Some) }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(_arguments: &Bound<'_, PyAny>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        Self { core: OnceLock::new(), open: AtomicBool::new(false) }
    }

    #[pyo3(signature = (*, memory, namespace, profile, normalize, clock, epoch, options, alone))]
    #[expect(clippy::too_many_arguments, reason = "keywords of one call, made once")]
    fn _configure(
        &self,
        memory: u64,
        namespace: String,
        profile: &str,
        normalize: Option<&str>,
        clock: &Bound<'_, Clock>,
        epoch: u64,
        options: Py<PyFrozenSet>,
        alone: bool,
    ) -> PyResult<()> {
        let core = Core {
            l1: L1::new(l1::Config::new(memory)),
            markers: Markers::new(epoch),
            memo: Memo::new(),
            nfc: keyer::nfc(normalize)?,
            clock: clock.get().clone(),
            prefix: Prefix::new(&namespace, profile, None)?,
            profile: keyer::profile(profile)?,
            prefixes: RwLock::default(),
            namespace,
            options,
            alone,
        };
        self.core.set(core).map_err(|_| PyRuntimeError::new_err("LLMCache.__init__ was called twice"))
    }

    fn _set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// The 32-byte fingerprint of a request under this cache's namespace, profile and normalisation.
    #[pyo3(signature = (request, *, namespace=None, profile=None, variant=None))]
    fn fingerprint<'py>(
        &self,
        request: &Bound<'py, PyAny>,
        namespace: Option<&str>,
        profile: Option<&str>,
        variant: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let scope = Scope { namespace, profile, variant };
        Ok(keyer::to_bytes(request.py(), &self.core()?.fingerprint(request, scope)?))
    }

    /// The value of a request if it is fresh in any tier, else `default`. Awaitable.
    #[pyo3(signature = (request, default=None, *, r#type=None, namespace=None, profile=None, variant=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        request: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
        namespace: Option<&str>,
        profile: Option<&str>,
        variant: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.get().opened(py)?;
        let key = core.fingerprint(request, Scope { namespace, profile, variant })?;
        if let Lookup::Fresh(value) = core.look(&key)
            && let Some(value) = finished(slf, value, r#type)?
        {
            return ready(py, value);
        }
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        if core.alone {
            return ready(py, default);
        }
        let arguments = (keyer::to_bytes(py, &key), default, r#type, namespace.unwrap_or(&core.namespace));
        slf.call_method1(intern!(py, "_get_below"), arguments)
    }

    /// The value of a request if it is fresh in memory, else `default`. No await, no lower tier.
    #[pyo3(signature = (request, default=None, *, r#type=None, namespace=None, profile=None, variant=None))]
    fn get_nowait<'py>(
        slf: &Bound<'py, Self>,
        request: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
        namespace: Option<&str>,
        profile: Option<&str>,
        variant: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.get().opened(py)?;
        let key = core.fingerprint(request, Scope { namespace, profile, variant })?;
        if let Lookup::Fresh(value) = core.look(&key)
            && let Some(value) = finished(slf, value, r#type)?
        {
            return Ok(value);
        }
        Ok(default.unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// The value of a request: from a tier, from a computation that is running, or from `compute`. Awaitable.
    #[pyo3(signature = (request, compute, *, r#type=None, namespace=None, profile=None, variant=None, **options))]
    #[expect(clippy::too_many_arguments, reason = "keywords of a Python call")]
    fn get_or_compute<'py>(
        slf: &Bound<'py, Self>,
        request: &Bound<'py, PyAny>,
        compute: &Bound<'py, PyAny>,
        r#type: Option<&Bound<'py, PyAny>>,
        namespace: Option<&str>,
        profile: Option<&str>,
        variant: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.get().opened(py)?;
        let key = core.fingerprint(request, Scope { namespace, profile, variant })?;
        let mut look = true;
        if let Some(options) = options {
            for name in options.keys() {
                if !core.options.bind(py).contains(&name)? {
                    return Err(PyTypeError::new_err(format!("get_or_compute has no option {name}")));
                }
            }
            // Refreshing and the like go the long way.
            look = !options.contains(intern!(py, "refresh"))?;
        }
        if look
            && let Lookup::Fresh(value) = core.look(&key)
            && let Some(value) = finished(slf, value, r#type)?
        {
            return ready(py, value);
        }
        let namespace = namespace.unwrap_or(&core.namespace);
        let arguments = (keyer::to_bytes(py, &key), request, compute, r#type, namespace, options);
        slf.call_method1(intern!(py, "_compute"), arguments)
    }

    /// Each top-level field of a request with what the profile's rules say of it.
    #[pyo3(signature = (request, profile=None))]
    fn _explain(&self, request: &Bound<'_, PyAny>, profile: Option<&str>) -> PyResult<Vec<(String, &'static str, String)>> {
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
