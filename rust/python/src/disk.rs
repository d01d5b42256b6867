//! `DiskStore`: the core's disk store for Python. Every call detaches from the interpreter while it works.

// pyo3 hands extracted arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::path::PathBuf;
use std::time::Duration;

use llmcache_core::disk::{self, Asked, DiskError, Key, Record};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<DiskStore>()
}

/// What changed in a namespace, as Python gets it.
type Answer<'py> = (u64, u64, Vec<(u64, u64)>, Vec<(Bound<'py, PyBytes>, u64)>);

/// Envelopes by fingerprint in one SQLite file on a local file system, shared by the processes of a machine.
///
/// `path` is the folder (made with mode 0700), `max_bytes` bounds all its files together, `budget` is the
/// longest a call waits for other writers, in seconds. Methods block: call them from a worker thread.
/// Failures raise `TierError`, or `TierUnavailableError` when the store as a whole cannot be used; `reason`
/// names the cause.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct DiskStore {
    inner: disk::DiskStore,
}

#[pymethods]
impl DiskStore {
    #[new]
    #[pyo3(signature = (path, max_bytes, budget=0.25))]
    fn new(py: Python<'_>, path: PathBuf, max_bytes: u64, budget: f64) -> PyResult<Self> {
        let budget = Duration::try_from_secs_f64(budget)
            .map_err(|_| PyValueError::new_err("budget: give a positive number of seconds"))?;
        py.detach(|| disk::DiskStore::open(&path, max_bytes, budget))
            .map(|inner| Self { inner })
            .map_err(|error| to_python(py, "open", &error))
    }

    /// The database file.
    #[getter]
    fn path(&self) -> PathBuf {
        self.inner.database().to_owned()
    }

    /// Whether opening made the database.
    #[getter]
    fn created(&self) -> bool {
        self.inner.opening().created
    }

    /// Where opening put a damaged database it found, or None.
    #[getter]
    fn set_aside(&self) -> Option<PathBuf> {
        self.inner.opening().set_aside.clone()
    }

    /// The largest envelope that is stored, in bytes.
    #[getter]
    fn max_record(&self) -> u64 {
        self.inner.max_record()
    }

    /// The envelope of each key, or None; from one snapshot. Does not wait for writers.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let keys = to_keys(&keys)?;
        let found = py
            .detach(|| self.inner.get_many(&keys))
            .map_err(|error| to_python(py, "get_many", &error))?;
        PyList::new(
            py,
            found
                .into_iter()
                .map(|envelope| envelope.map(|bytes| PyBytes::new(py, &bytes))),
        )
    }

    /// Store records given as `(key, envelope, epoch, snap, stale_until, cost)`, with a seventh, the partition, where
    /// there is one; `now` is in microseconds.
    ///
    /// Returns `(stored, superseded, refused)`. Evicts what is worth least to stay within the bound.
    fn put_many(
        &self,
        py: Python<'_>,
        records: Vec<Bound<'_, PyTuple>>,
        now: i64,
    ) -> PyResult<(u64, u64, u64)> {
        type Fields<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64, u64, i64, u64);
        let fields: Vec<(Fields<'_>, Option<Key>)> = records
            .iter()
            .map(|record| match record.len() {
                7 => Ok((
                    record.get_slice(0, 6).extract()?,
                    Some(to_key(&record.get_item(6)?.cast_into()?)?),
                )),
                _ => Ok((record.extract()?, None)),
            })
            .collect::<PyResult<_>>()?;
        let records = fields
            .iter()
            .map(
                |((key, envelope, epoch, snap, stale_until, cost), partition)| {
                    Ok(Record {
                        key: to_key(key)?,
                        envelope: envelope.as_bytes(),
                        epoch: *epoch,
                        snap: *snap,
                        stale_until: *stale_until,
                        cost: *cost,
                        partition: *partition,
                    })
                },
            )
            .collect::<PyResult<Vec<_>>>()?;
        let report = py
            .detach(|| self.inner.put_many(&records, now))
            .map_err(|error| to_python(py, "put_many", &error))?;
        Ok((report.stored, report.superseded, report.refused))
    }

    /// Delete keys; how many were there.
    fn delete_many(&self, py: Python<'_>, keys: Vec<Bound<'_, PyBytes>>) -> PyResult<u64> {
        let keys = to_keys(&keys)?;
        py.detach(|| self.inner.delete_many(&keys))
            .map_err(|error| to_python(py, "delete_many", &error))
    }

    /// Delete up to `limit` records whose `stale_until` has come; how many were.
    fn purge(&self, py: Python<'_>, now: i64, limit: u64) -> PyResult<u64> {
        py.detach(|| self.inner.purge(now, limit))
            .map_err(|error| to_python(py, "purge", &error))
    }

    /// Delete every record; clocks and markers stay. How many there were.
    fn clear(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.inner.clear())
            .map_err(|error| to_python(py, "clear", &error))
    }

    /// Give empty pages back to the file system; the bytes by which the files shrank.
    fn vacuum(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.inner.vacuum())
            .map_err(|error| to_python(py, "vacuum", &error))
    }

    /// Make what was deleted before unreadable in the files. What is left to be deleted by hand: the files
    /// that were set aside as damaged.
    fn scrub(&self, py: Python<'_>) -> PyResult<Vec<PathBuf>> {
        py.detach(|| self.inner.scrub())
            .map_err(|error| to_python(py, "scrub", &error))
    }

    /// Allocate the namespace's next seq and raise the markers of all targets, and the rules, to it, durably
    /// (fsync); the rules `forget` go. Then tell those who follow.
    ///
    /// Returns `(epoch, seq, the seq before)`.
    fn raise_markers(
        &self,
        py: Python<'_>,
        namespace: u64,
        targets: Vec<u64>,
        rules: Vec<Bound<'_, PyBytes>>,
        forget: Vec<Bound<'_, PyBytes>>,
        now: i64,
    ) -> PyResult<(u64, u64, u64)> {
        let rules: Vec<&[u8]> = rules.iter().map(PyBytesMethods::as_bytes).collect();
        let forget: Vec<&[u8]> = forget.iter().map(PyBytesMethods::as_bytes).collect();
        py.detach(|| {
            self.inner
                .raise_markers(namespace, &targets, &rules, &forget, now)
        })
        .map(|raised| (raised.epoch, raised.seq, raised.prev))
        .map_err(|error| to_python(py, "raise_markers", &error))
    }

    /// What changed since each `(namespace, epoch, seq)`: `(epoch, last seq, [(target, seq)], [(rule, seq)])`,
    /// oldest first. A clock that did not exist is made with a random epoch.
    fn changes<'py>(
        &self,
        py: Python<'py>,
        asked: Vec<(u64, u64, u64)>,
        now: i64,
    ) -> PyResult<Vec<Answer<'py>>> {
        let asked: Vec<Asked> = asked
            .into_iter()
            .map(|(namespace, epoch, seq)| Asked {
                namespace,
                epoch,
                seq,
            })
            .collect();
        let found = py
            .detach(|| self.inner.changes(&asked, now))
            .map_err(|error| to_python(py, "changes", &error))?;
        Ok(found
            .into_iter()
            .map(|each| {
                let rules = each
                    .rules
                    .iter()
                    .map(|(rule, seq)| (PyBytes::new(py, rule), *seq))
                    .collect();
                (each.epoch, each.seq, each.markers, rules)
            })
            .collect())
    }

    /// About `limit` records, `(key, envelope)`, after the place `after`, and the place to go on from or None.
    fn scan<'py>(
        &self,
        py: Python<'py>,
        after: Option<i64>,
        limit: usize,
    ) -> PyResult<(Bound<'py, PyList>, Option<i64>)> {
        let page = py
            .detach(|| self.inner.scan(after, limit))
            .map_err(|error| to_python(py, "scan", &error))?;
        let records = page
            .records
            .iter()
            .map(|(key, envelope)| (PyBytes::new(py, key), PyBytes::new(py, envelope)));
        Ok((PyList::new(py, records.collect::<Vec<_>>())?, page.next))
    }

    /// Delete each `(key, epoch, snap)` that still has this stamp; how many had.
    fn discard_many(
        &self,
        py: Python<'_>,
        stamped: Vec<(Bound<'_, PyBytes>, u64, u64)>,
    ) -> PyResult<u64> {
        let stamped = stamped
            .iter()
            .map(|(key, epoch, snap)| Ok((to_key(key)?, *epoch, *snap)))
            .collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.inner.discard_many(&stamped))
            .map_err(|error| to_python(py, "discard_many", &error))
    }

    /// Up to `limit` keys of a partition that arrived after `after` (`None`: all), in the order of their arrival,
    /// and when the last of them did.
    fn members<'py>(
        &self,
        py: Python<'py>,
        partition: Bound<'_, PyBytes>,
        after: Option<i64>,
        limit: usize,
    ) -> PyResult<(Bound<'py, PyList>, Option<i64>)> {
        let partition = to_key(&partition)?;
        let page = py
            .detach(|| {
                self.inner
                    .members(&partition, after.unwrap_or(i64::MIN), limit)
            })
            .map_err(|error| to_python(py, "members", &error))?;
        let keys = page.keys.iter().map(|key| PyBytes::new(py, key));
        Ok((PyList::new(py, keys.collect::<Vec<_>>())?, page.last))
    }

    /// Problems of the file, none if it is sound. Reads the whole file.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.inner.check())
            .map_err(|error| to_python(py, "check", &error))
    }

    /// Counts and sizes, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = py
            .detach(|| self.inner.stats())
            .map_err(|error| to_python(py, "stats", &error))?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("rows", stats.rows),
            ("bytes", stats.bytes),
            ("file_bytes", stats.file_bytes),
            ("log_bytes", stats.log_bytes),
            ("index_bytes", stats.index_bytes),
            ("max_bytes", stats.max_bytes),
            ("pages", stats.pages),
            ("free_pages", stats.free_pages),
            ("evicted", stats.evicted),
            ("evicted_cost", stats.evicted_cost),
            ("expired", stats.expired),
            ("refused", stats.refused),
            ("superseded", stats.superseded),
            ("reopened", stats.reopened),
            ("untold", stats.untold),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Close. Running calls end normally, later ones raise.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.close())
            .map_err(|error| to_python(py, "close", &error))
    }
}

fn to_key(key: &Bound<'_, PyBytes>) -> PyResult<Key> {
    let bytes = key.as_bytes();
    bytes.try_into().map_err(|_| {
        PyValueError::new_err(format!(
            "a key is a fingerprint of 32 bytes, this one has {}",
            bytes.len()
        ))
    })
}

fn to_keys(keys: &[Bound<'_, PyBytes>]) -> PyResult<Vec<Key>> {
    keys.iter().map(to_key).collect()
}

/// The exception of the Python tree for a failure of the store, with `reason` and `set_aside`.
fn to_python(py: Python<'_>, operation: &str, error: &DiskError) -> PyErr {
    build(py, operation, error).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, operation: &str, error: &DiskError) -> PyResult<PyErr> {
    if let DiskError::Option(message) = error {
        let class = py
            .import("llmcache_fast._errors")?
            .getattr("ConfigurationError")?;
        return Ok(PyErr::from_value(class.call1((message,))?));
    }
    let name = if error.is_unavailable() {
        "TierUnavailableError"
    } else {
        "TierError"
    };
    let class = py.import("llmcache_fast._errors")?.getattr(name)?;
    let keywords = PyDict::new(py);
    keywords.set_item("tier", "disk")?;
    keywords.set_item("operation", operation)?;
    keywords.set_item("reason", error.reason())?;
    let exception = class.call((error.to_string(),), Some(&keywords))?;
    if !exception.is_instance_of::<pyo3::exceptions::PyBaseException>() {
        return Err(PyTypeError::new_err(
            "llmcache_fast._errors is not the package's own",
        ));
    }
    Ok(PyErr::from_value(exception))
}
