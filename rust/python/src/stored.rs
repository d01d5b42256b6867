//! What L1 holds: references to immutable objects, and the facts beside them.

use llmcache_core::l1::EntryView;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use smallvec::SmallVec;

use crate::walk::is_exact;

/// A value as stored: an exact `bytes` or `str` to be handed out as it is, or an `Encoded`.
pub(crate) struct Stored(Py<PyAny>);

impl Clone for Stored {
    fn clone(&self) -> Self {
        // SAFETY: entries are read and dropped by methods of `Engine` only, which are called attached.
        Self(self.0.clone_ref(unsafe { Python::assume_attached() }))
    }
}

impl Stored {
    pub(crate) fn new(value: Bound<'_, PyAny>) -> Self {
        Self(value.unbind())
    }

    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        self.0.into_bound(py)
    }

    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }
}

/// Whether a stored value is what the caller gets.
#[inline]
pub(crate) fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    let object = value.as_ptr();
    // SAFETY: `object` is alive.
    unsafe { is_exact!(object, PyBytes_Type) || is_exact!(object, PyUnicode_Type) }
}

/// A stored value that must be decoded before a caller gets it.
///
/// `content` is the content type ("json", "msgpack", "stream", ...), `kind` "value" or "negative".
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Encoded {
    #[pyo3(get)]
    pub(crate) payload: Py<PyBytes>,
    #[pyo3(get)]
    pub(crate) content: Py<PyAny>,
    #[pyo3(get)]
    pub(crate) kind: Py<PyAny>,
}

#[pymethods]
impl Encoded {
    #[new]
    fn new(payload: Py<PyBytes>, content: Py<PyAny>, kind: Py<PyAny>) -> Self {
        Self {
            payload,
            content,
            kind,
        }
    }

    fn __sizeof__(&self, py: Python<'_>) -> usize {
        // The two names are shared by all entries.
        size_of::<Self>()
            + 2 * size_of::<usize>()
            + object_bytes(self.payload.bind(py).as_any()).unwrap_or(0)
    }
}

/// Bytes an object occupies with what it owns, rounded up as the allocator does.
pub(crate) fn object_bytes(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    let bytes = if let Ok(bytes) = object.cast::<PyBytes>() {
        bytes.as_bytes().len() + 33
    } else {
        object
            .call_method0(pyo3::intern!(object.py(), "__sizeof__"))?
            .extract()?
    };
    Ok(bytes.next_multiple_of(16))
}

/// What L1 keeps beside a value.
pub(crate) struct Facts {
    pub(crate) namespace: u64,
    /// What the entry can be invalidated by beside namespace and key: tags, label prefixes, versions.
    /// Those of three tags in place: one line of memory less to wait for where an entry has to be judged.
    pub(crate) targets: SmallVec<[u64; 3]>,
    /// Tags, label, model, usage: as the envelope carries them, decoded only when asked for.
    text: Box<[u8]>,
    packed: u32,
    /// Where the label's text is in `text`: among the packed facts, so that it costs nothing beside.
    label_at: u32,
    label: u32,
}

impl Facts {
    pub(crate) fn new(
        namespace: u64,
        mut targets: SmallVec<[u64; 3]>,
        packed: &[u8],
        label: Option<&str>,
    ) -> PyResult<Self> {
        let label = label.unwrap_or_default().as_bytes();
        targets.shrink_to_fit();
        let mut text = packed.to_vec();
        // Any place will do where it reads the same.
        let at = packed
            .windows(label.len().max(1))
            .position(|window| window == label)
            .unwrap_or_else(|| {
                text.extend_from_slice(label);
                packed.len()
            });
        Ok(Self {
            namespace,
            targets,
            text: text.into(),
            packed: packed.len().try_into()?,
            label_at: at.try_into()?,
            label: label.len().try_into()?,
        })
    }

    pub(crate) fn packed(&self) -> &[u8] {
        &self.text[..self.packed as usize]
    }

    /// The text rules are judged by.
    pub(crate) fn label(&self) -> Option<&str> {
        let at = self.label_at as usize;
        let text = &self.text[at..at + self.label as usize];
        str::from_utf8(text).ok().filter(|label| !label.is_empty())
    }

    pub(crate) fn bytes(&self) -> usize {
        let spilled = if self.targets.spilled() {
            self.targets.capacity() * 8
        } else {
            0
        };
        size_of::<Self>() + spilled + self.text.len().next_multiple_of(16)
    }
}

/// An entry with its facts, for the parts of the cache written in Python.
#[pyclass(frozen, get_all, module = "llmcache_fast._core")]
pub(crate) struct View {
    value: Py<PyAny>,
    created: i64,
    fresh_until: i64,
    stale_until: i64,
    cost: u64,
    epoch: u64,
    snap: u64,
    hits: u32,
    facts: Py<PyBytes>,
}

impl View {
    pub(crate) fn of(py: Python<'_>, value: &Stored, entry: &EntryView<'_, Facts>) -> Self {
        Self {
            value: value.bind(py).clone().unbind(),
            created: entry.created(),
            fresh_until: entry.fresh_until(),
            stale_until: entry.stale_until(),
            cost: entry.cost(),
            epoch: entry.epoch(),
            snap: entry.snap(),
            hits: entry.hits(),
            facts: PyBytes::new(py, entry.facts().map_or(&[], Facts::packed)).unbind(),
        }
    }
}
