//! `VectorIndex`: the core's vector index for Python. Every call that looks at vectors detaches from the
//! interpreter.

use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;

use llmcache_core::vector::{self as core, Id, VectorError};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<VectorIndex>()?;
    module.add_class::<VectorStatistics>()?;
    module.add_function(wrap_pyfunction!(to_half, module)?)
}

/// What an index holds and did.
#[pyclass(frozen, get_all, module = "llmcache_fast._core")]
pub(crate) struct VectorStatistics {
    vectors: u64,
    partitions: u64,
    /// Partitions that are a graph, or on the way to one.
    graphs: u64,
    bytes: u64,
    max_bytes: u64,
    /// Vectors dropped for room.
    evicted: u64,
}

/// The index of one process. Another thread of the parent may have held a lock when a child was forked, so the
/// child leaves the parent's alone and begins with an empty one of its own.
struct Owned {
    process: u32,
    index: Box<core::VectorIndex>,
    child: OnceLock<Box<Self>>,
}

impl Owned {
    fn new(index: core::VectorIndex) -> Self {
        Self {
            process: process::id(),
            index: Box::new(index),
            child: OnceLock::new(),
        }
    }

    fn index(&self) -> &core::VectorIndex {
        let mut owned = self;
        while owned.process != process::id() {
            let renewed = || Box::new(Self::new(owned.index.renewed()));
            owned = owned.child.get_or_init(renewed);
        }
        &owned.index
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.process != process::id() {
            // The parent's, as it was in the middle of whatever its threads were doing.
            let settings = self.index.renewed();
            std::mem::forget(std::mem::replace(&mut self.index, Box::new(settings)));
        }
    }
}

/// Vectors of `dimension` numbers by partition and key, nearest first, in at most `max_bytes` of memory.
///
/// A forked child finds it empty. Vectors are buffers of little-endian float32 or float16, told apart by their
/// length in bytes.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct VectorIndex(Owned);

#[pymethods]
impl VectorIndex {
    #[new]
    fn new(dimension: usize, max_bytes: u64) -> PyResult<Self> {
        core::VectorIndex::new(dimension, max_bytes)
            .map(|index| Self(Owned::new(index)))
            .map_err(to_python)
    }

    /// Numbers in a vector.
    #[getter]
    fn dimension(&self) -> usize {
        self.0.index().dimension()
    }

    /// Bytes of memory that it takes.
    #[getter]
    fn used(&self) -> u64 {
        self.0.index().bytes()
    }

    /// Put a vector, in place of one of the same key; whether there was one. What is used least makes room.
    fn add(
        &self,
        py: Python<'_>,
        partition: &[u8],
        key: &[u8],
        vector: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let (partition, key) = (id("partition", partition)?, id("key", key)?);
        let vector = Numbers::new(vector)?;
        let index = self.0.index();
        let bytes = vector.bytes();
        py.detach(|| index.add(&partition, key, bytes))
            .map_err(to_python)
    }

    /// Take a vector out; whether it was there.
    fn remove(&self, py: Python<'_>, partition: &[u8], key: &[u8]) -> PyResult<bool> {
        let (partition, key) = (id("partition", partition)?, id("key", key)?);
        let index = self.0.index();
        py.detach(|| index.remove(&partition, &key))
            .map_err(to_python)
    }

    /// Take a partition out; how many vectors it had.
    fn drop_partition(&self, py: Python<'_>, partition: &[u8]) -> PyResult<u64> {
        let partition = id("partition", partition)?;
        let index = self.0.index();
        Ok(py.detach(|| index.drop_partition(&partition)))
    }

    /// The `limit` (at most 256) nearest of a partition whose cosine is `floor` at least, as `(key, cosine)`,
    /// best first.
    #[pyo3(signature = (partition, vector, limit=8, floor=-1.0))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        partition: &[u8],
        vector: &Bound<'py, PyAny>,
        limit: usize,
        floor: f32,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, f32)>> {
        let partition = id("partition", partition)?;
        let vector = Numbers::new(vector)?;
        let index = self.0.index();
        let bytes = vector.bytes();
        let matches = py
            .detach(|| index.search(&partition, bytes, limit, floor))
            .map_err(to_python)?;
        Ok(matches
            .iter()
            .map(|found| (PyBytes::new(py, &found.key), found.cosine))
            .collect())
    }

    /// Whether a vector is held.
    fn contains(&self, py: Python<'_>, partition: &[u8], key: &[u8]) -> PyResult<bool> {
        let (partition, key) = (id("partition", partition)?, id("key", key)?);
        let index = self.0.index();
        Ok(py.detach(|| index.contains(&partition, &key)))
    }

    /// Vectors of a partition.
    fn size(&self, py: Python<'_>, partition: &[u8]) -> PyResult<u64> {
        let partition = id("partition", partition)?;
        let index = self.0.index();
        Ok(py.detach(|| index.size(&partition)))
    }

    /// The keys of a partition, in no order.
    fn keys<'py>(&self, py: Python<'py>, partition: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let partition = id("partition", partition)?;
        let index = self.0.index();
        let keys = py.detach(|| index.keys(&partition));
        Ok(keys.iter().map(|key| PyBytes::new(py, key)).collect())
    }

    #[expect(clippy::cast_possible_truncation, reason = "64-bit systems alone")]
    fn __len__(&self) -> usize {
        self.0.index().len() as usize
    }

    /// Take everything out; how many vectors.
    fn clear(&self, py: Python<'_>) -> u64 {
        let index = self.0.index();
        py.detach(|| index.clear())
    }

    /// Write a snapshot to a file, whole or not at all, with mode 0600. Changes wait, searches do not.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let index = self.0.index();
        py.detach(|| index.save(&path)).map_err(to_python)
    }

    /// The index of a snapshot, in at most `max_bytes`.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, max_bytes: u64) -> PyResult<Self> {
        py.detach(|| core::VectorIndex::load(&path, max_bytes))
            .map(|index| Self(Owned::new(index)))
            .map_err(to_python)
    }

    /// What is held, and what was dropped for room.
    fn statistics(&self, py: Python<'_>) -> VectorStatistics {
        let index = self.0.index();
        let found = py.detach(|| index.statistics());
        VectorStatistics {
            vectors: found.vectors,
            partitions: found.partitions,
            graphs: found.graphs,
            bytes: found.bytes,
            max_bytes: found.max_bytes,
            evicted: found.evicted,
        }
    }
}

/// The vector as float16 of length one, little-endian: how records keep it.
#[pyfunction]
fn to_half<'py>(py: Python<'py>, vector: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let vector = Numbers::new(vector)?;
    let bytes = vector.bytes();
    if bytes.is_empty() || bytes.len() % 4 != 0 {
        return Err(PyValueError::new_err(format!(
            "vector: {} bytes are no float32 numbers",
            bytes.len()
        )));
    }
    let half = core::to_half(bytes, bytes.len() / 4).map_err(to_python)?;
    Ok(PyBytes::new(py, &half))
}

/// The bytes of a vector, as they are or copied out of a buffer.
enum Numbers<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'a, 'py> Numbers<'a, 'py> {
    fn new(vector: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = vector.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes));
        }
        let py = vector.py();
        let view = PyMemoryView::from(vector).map_err(|_| wrong(vector))?;
        let format = view.getattr(intern!(py, "format"))?;
        let format: &str = format.extract()?;
        if !matches!(
            format.trim_start_matches(['<', '=', '@']),
            "f" | "e" | "B" | "b" | "c"
        ) {
            return Err(wrong(vector));
        }
        let bytes = view
            .call_method1(intern!(py, "cast"), (intern!(py, "B"),))
            .map_err(|_| wrong(vector))?;
        Ok(Self::Copied(PyBuffer::<u8>::get(&bytes)?.to_vec(py)?))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

#[cold]
fn wrong(vector: &Bound<'_, PyAny>) -> PyErr {
    let class = vector
        .get_type()
        .name()
        .map_or_else(|_| "object".into(), |name| name.to_string());
    PyTypeError::new_err(format!(
        "vector: give contiguous float32 or float16 numbers, such as bytes, a numpy array or an array.array('f'); \
         this is a {class} that has none"
    ))
}

fn id(what: &str, bytes: &[u8]) -> PyResult<Id> {
    bytes.try_into().map_err(|_| {
        PyValueError::new_err(format!(
            "{what}: 32 bytes are needed, {} were given",
            bytes.len()
        ))
    })
}

fn to_python(error: VectorError) -> PyErr {
    let message = error.to_string();
    match error {
        VectorError::Graph(_) => PyMemoryError::new_err(message),
        VectorError::Io { source, .. } => PyErr::from(std::io::Error::new(source.kind(), message)),
        _ => PyValueError::new_err(message),
    }
}
