//! The guards and the verifier for Python.

use llmcache_core::guard;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A question taken apart once, so that it can be judged against many.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Question(guard::Question);

#[pymethods]
impl Question {
    #[new]
    fn new(text: &str) -> Self {
        Self(guard::Question::new(text))
    }

    #[expect(clippy::unused_self, reason = "Python calls it on an object")]
    fn __repr__(&self) -> &'static str {
        "<Question>"
    }
}

/// What the guards and the verifier think of a pair of questions.
#[pyclass(frozen, module = "llmcache_fast._core")]
pub(crate) struct Judgement(guard::Judgement);

#[pymethods]
impl Judgement {
    /// Names of the guards that object.
    #[getter]
    fn vetoes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let names = guard::VETOES.iter().filter(|(veto, _)| self.0.has(*veto));
        PyTuple::new(py, names.map(|&(_, name)| name).collect::<Vec<_>>())
    }

    /// How likely both ask the same, by the verifier: 0 to 1.
    #[getter]
    fn score(&self) -> f32 {
        self.0.score
    }

    /// As `FEATURES`.
    #[getter]
    fn features(&self) -> Vec<f32> {
        self.0.features.to_vec()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Judgement {:.3}, {} vetoes>",
            self.0.score,
            self.0.vetoes().count()
        )
    }
}

/// Judges whether `asked` may be answered with the answer to `stored`. Symmetric.
#[pyfunction]
fn judge(asked: &Question, stored: &Question, cosine: f32) -> Judgement {
    Judgement(guard::judge(&asked.0, &stored.0, cosine))
}

/// Adds the guards to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Question>()?;
    module.add_class::<Judgement>()?;
    module.add_function(wrap_pyfunction!(judge, module)?)?;
    module.add("COSINE_FLOOR", guard::COSINE_FLOOR)?;
    module.add("COLD_START_SCORE", guard::COLD_START_SCORE)?;
    module.add("FEATURES", PyTuple::new(module.py(), guard::FEATURES)?)?;
    module.add(
        "GUARDS",
        PyTuple::new(module.py(), guard::VETOES.map(|(_, name)| name))?,
    )
}
