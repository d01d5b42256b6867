//! `Journal` and `DeadLetters`: the core's journal for Python. Calls that wait for the disk detach from the
//! interpreter; `append` and `done` touch memory alone.

use std::path::PathBuf;

use llmcache_core::journal::{self, Found, JournalError, Letters, Record};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// From here on copying and hashing an envelope takes long enough to let others run meanwhile.
const LONG: usize = 64 << 10;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Journal>()?;
    module.add_class::<DeadLetters>()
}

/// One process's lane of a write-behind journal: see `docs/reference/journal.md`.
///
/// Failures raise `TierError`, or `TierUnavailableError` when the folder cannot be used; `reason` names the cause.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Journal {
    inner: journal::Journal,
}

#[pymethods]
impl Journal {
    /// A new lane in `folder`, in files of `segment_bytes`.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, segment_bytes: u64) -> PyResult<Self> {
        py.detach(|| journal::Journal::create(&folder, segment_bytes))
            .map(|inner| Self { inner })
            .map_err(|error| to_python(py, "open", &error))
    }

    /// The lanes whose processes are gone, and the errors of those that cannot be read.
    #[staticmethod]
    fn adopt(
        py: Python<'_>,
        folder: PathBuf,
        segment_bytes: u64,
    ) -> PyResult<(Vec<Self>, Vec<Py<PyAny>>)> {
        let lanes = py
            .detach(|| journal::Journal::adopt(&folder, segment_bytes))
            .map_err(|error| to_python(py, "adopt", &error))?;
        let (mut journals, mut errors) = (Vec::new(), Vec::new());
        for lane in lanes {
            match lane {
                Ok(inner) => journals.push(Self { inner }),
                Err(error) => errors.push(to_python(py, "adopt", &error).into_value(py).into_any()),
            }
        }
        Ok((journals, errors))
    }

    /// Of how many records in the lanes of living processes, done or not, `matches(envelope)` is true; lanes of
    /// the paths `own` are left out.
    #[staticmethod]
    fn survey(
        py: Python<'_>,
        folder: PathBuf,
        own: Vec<PathBuf>,
        matches: Py<PyAny>,
    ) -> PyResult<u64> {
        let (mut count, mut failed) = (0, None);
        py.detach(|| {
            journal::Journal::survey(&folder, |lane, record| {
                if failed.is_some() || own.iter().any(|path| path == lane) {
                    return;
                }
                let answer = Python::attach(|py| {
                    let envelope = PyBytes::new(py, record.envelope);
                    matches.bind(py).call1((envelope,))?.is_truthy()
                });
                match answer {
                    Ok(yes) => count += u64::from(yes),
                    Err(error) => failed = Some(error),
                }
            })
        })
        .map_err(|error| to_python(py, "survey", &error))?;
        failed.map_or(Ok(count), Err)
    }

    /// The lane's folder.
    #[getter]
    fn path(&self) -> PathBuf {
        self.inner.path().to_owned()
    }

    /// Take a record into the next group; its number.
    fn append(
        &self,
        py: Python<'_>,
        record: &Bound<'_, PyTuple>,
        facts: Option<&Bound<'_, PyBytes>>,
        tiers: &str,
    ) -> PyResult<u64> {
        let fields = Fields::of(record, facts)?;
        let record = fields.record(tiers)?;
        if record.envelope.len() < LONG {
            self.inner.append(&record)
        } else {
            py.detach(|| self.inner.append(&record))
        }
        .map_err(|error| to_python(py, "append", &error))
    }

    /// The tiers of the bits have these records, given as `(number, bits)`.
    fn done(&self, py: Python<'_>, sequences: Vec<(u64, u64)>) -> PyResult<()> {
        self.inner
            .done(&sequences)
            .map_err(|error| to_python(py, "done", &error))
    }

    /// Write and sync what was appended: the last number of the group, and what went wrong or None.
    fn sync(&self, py: Python<'_>) -> PyResult<(u64, Option<Py<PyAny>>)> {
        let synced = py
            .detach(|| self.inner.sync())
            .map_err(|error| to_python(py, "sync", &error))?;
        let error = synced
            .result
            .err()
            .map(|error| to_python(py, "sync", &error).into_value(py).into_any());
        Ok((synced.through, error))
    }

    /// Records that are not done, after the number `after`, as `(number, bits left, tiers, fields)`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        after: u64,
        max_items: usize,
        max_bytes: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let found = py
            .detach(|| self.inner.read(after, max_items, max_bytes))
            .map_err(|error| to_python(py, "read", &error))?;
        let rows = found
            .iter()
            .map(|found| to_row(py, found))
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }

    /// Delete from the disk all that is done.
    fn compact(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.compact())
            .map_err(|error| to_python(py, "compact", &error))
    }

    /// Write what is pending and let go of the lane.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close())
            .map_err(|error| to_python(py, "close", &error))
    }

    /// In a forked child: let go of the parent's lock.
    fn leave(&self) {
        self.inner.leave();
    }

    /// What was found when the lane was adopted, by name.
    fn recovery<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = self.inner.recovery();
        let dict = PyDict::new(py);
        for (name, value) in [
            ("records", found.records),
            ("bytes", found.bytes),
            ("cost", found.cost),
            ("damaged", found.damaged),
            ("damaged_bytes", found.damaged_bytes),
            ("torn_bytes", found.torn_bytes),
            ("missing_files", found.missing_files),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Counts and sizes, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self
            .inner
            .stats()
            .map_err(|error| to_python(py, "stats", &error))?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("records", stats.records),
            ("bytes", stats.bytes),
            ("file_bytes", stats.file_bytes),
            ("segments", stats.segments),
            ("syncs", stats.syncs),
            ("moved", stats.moved),
            ("damaged", stats.damaged),
            ("untidy", stats.untidy),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}

/// Records that a tier did not take, in one folder, shared by processes.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct DeadLetters {
    inner: Letters,
}

#[pymethods]
impl DeadLetters {
    #[new]
    fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self {
            inner: Letters::new(&folder, max_bytes),
        }
    }

    /// Add `(at, reason, tier, record, facts)`s; how many older ones were given up for room.
    fn add(&self, py: Python<'_>, letters: Vec<Bound<'_, PyTuple>>) -> PyResult<u64> {
        type Parts<'py> = (
            i64,
            String,
            String,
            Bound<'py, PyTuple>,
            Option<Bound<'py, PyBytes>>,
        );
        let parts: Vec<Parts<'_>> = letters
            .iter()
            .map(|letter| letter.extract())
            .collect::<PyResult<_>>()?;
        let fields = parts
            .iter()
            .map(|part| Fields::of(&part.3, part.4.as_ref()))
            .collect::<PyResult<Vec<_>>>()?;
        let letters = parts
            .iter()
            .zip(&fields)
            .map(|((at, reason, tier, ..), fields)| {
                Ok((*at, reason.as_str(), fields.record(tier)?))
            })
            .collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.inner.add(&letters))
            .map_err(|error| to_python(py, "dead_letter", &error))
    }

    /// All letters as `(id, at, reason, tier, fields)`, oldest first, and the count of damaged places.
    fn all<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyList>, u64)> {
        let (letters, damage) = py
            .detach(|| self.inner.all())
            .map_err(|error| to_python(py, "dead_letters", &error))?;
        let rows = letters
            .iter()
            .map(|letter| {
                let (at, reason, record) = letter.parts();
                let id = PyBytes::new(py, &letter.id);
                (id, at, reason, record.tiers, to_fields(py, &record)?).into_pyobject(py)
            })
            .collect::<PyResult<Vec<_>>>()?;
        Ok((PyList::new(py, rows)?, damage.places))
    }

    /// Remove letters by id; how many were there.
    fn remove(&self, py: Python<'_>, ids: Vec<[u8; 16]>) -> PyResult<u64> {
        py.detach(|| self.inner.remove(&ids))
            .map_err(|error| to_python(py, "dead_letters", &error))
    }
}

/// What a `StoredRecord` holds, taken out of its tuple.
struct Fields<'py> {
    key: Bound<'py, PyBytes>,
    envelope: Bound<'py, PyBytes>,
    numbers: (u64, u64, i64, u64, i64, i64),
    namespace: Option<String>,
    facts: Option<Bound<'py, PyBytes>>,
}

impl<'py> Fields<'py> {
    fn of(record: &Bound<'py, PyTuple>, facts: Option<&Bound<'py, PyBytes>>) -> PyResult<Self> {
        let item = |index| record.get_item(index);
        Ok(Self {
            key: item(0)?.cast_into()?,
            envelope: item(1)?.cast_into()?,
            numbers: (
                item(2)?.extract()?,
                item(3)?.extract()?,
                item(4)?.extract()?,
                item(5)?.extract()?,
                item(6)?.extract()?,
                item(7)?.extract()?,
            ),
            namespace: item(8)?.extract()?,
            facts: facts.cloned(),
        })
    }

    fn record<'a>(&'a self, tiers: &'a str) -> PyResult<Record<'a>> {
        let (epoch, snap, stale_until, cost, created, fresh_until) = self.numbers;
        let key = self.key.as_bytes();
        Ok(Record {
            key: key.try_into().map_err(|_| {
                PyValueError::new_err(format!(
                    "a key is a fingerprint of 32 bytes, this one has {}",
                    key.len()
                ))
            })?,
            epoch,
            snap,
            stale_until,
            cost,
            created,
            fresh_until,
            tiers,
            namespace: self.namespace.as_deref(),
            facts: self.facts.as_ref().map(PyBytesMethods::as_bytes),
            envelope: self.envelope.as_bytes(),
        })
    }
}

fn to_row<'py>(py: Python<'py>, found: &Found) -> PyResult<Bound<'py, PyTuple>> {
    let record = found.record();
    (
        found.sequence,
        found.left,
        record.tiers,
        to_fields(py, &record)?,
    )
        .into_pyobject(py)
}

/// The fields in a `StoredRecord`'s order; the facts still packed.
fn to_fields<'py>(py: Python<'py>, record: &Record<'_>) -> PyResult<Bound<'py, PyTuple>> {
    (
        PyBytes::new(py, &record.key),
        PyBytes::new(py, record.envelope),
        record.epoch,
        record.snap,
        record.stale_until,
        record.cost,
        record.created,
        record.fresh_until,
        record.namespace,
        record.facts.map(|facts| PyBytes::new(py, facts)),
    )
        .into_pyobject(py)
}

fn to_python(py: Python<'_>, operation: &str, error: &JournalError) -> PyErr {
    build(py, operation, error).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, operation: &str, error: &JournalError) -> PyResult<PyErr> {
    let passing = matches!(
        error,
        JournalError::Busy(_) | JournalError::TooLarge(_) | JournalError::Behind
    );
    let name = if passing {
        "TierError"
    } else {
        "TierUnavailableError"
    };
    let class = py.import("llmcache_fast._errors")?.getattr(name)?;
    let keywords = PyDict::new(py);
    keywords.set_item("tier", "journal")?;
    keywords.set_item("operation", operation)?;
    keywords.set_item("reason", error.reason())?;
    Ok(PyErr::from_value(
        class.call((error.to_string(),), Some(&keywords))?,
    ))
}
