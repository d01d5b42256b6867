//! How a walk fails: the reason, and the path to what is at fault.

use llmcache_core::canonical::{MAX_DEPTH, MAX_VALUES};
use pyo3::PyErr;

/// Why a walk ended, and where: innermost path segment first.
pub(crate) struct Fail {
    /// `None`: the walk must be repeated with every item held.
    reason: Option<String>,
    /// What is no error of the request, a `KeyboardInterrupt` say, and passes through as it is.
    pub(crate) raised: Option<PyErr>,
    path: Vec<Segment>,
}

/// What a failed walk comes to.
pub(crate) enum Why {
    /// The walk must be repeated with every item held.
    Foreign,
    /// The request is at fault: the reason, and the path.
    Request(String, String),
    /// To be raised as it is.
    Raised(PyErr),
}

pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

pub(crate) type Walked<T> = Result<T, Box<Fail>>;

impl Fail {
    #[cold]
    pub(crate) fn request(reason: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            reason: Some(reason.into()),
            raised: None,
            path: Vec::new(),
        })
    }

    #[cold]
    pub(crate) fn foreign() -> Box<Self> {
        Box::new(Self {
            reason: None,
            raised: None,
            path: Vec::new(),
        })
    }

    #[cold]
    pub(crate) fn under(mut self: Box<Self>, segment: Segment) -> Box<Self> {
        self.path.push(segment);
        self
    }

    pub(crate) fn why(mut self) -> Why {
        if let Some(raised) = self.raised.take() {
            return Why::Raised(raised);
        }
        match &self.reason {
            None => Why::Foreign,
            Some(reason) => Why::Request(reason.clone(), self.path()),
        }
    }

    /// `messages[3].content`; long and strange field names are cut.
    fn path(&self) -> String {
        use std::fmt::Write as _;
        let mut path = String::new();
        for segment in self.path.iter().rev().take(32) {
            let _ = match segment {
                Segment::Index(index) => write!(path, "[{index}]"),
                Segment::Key(key) if path.is_empty() => write!(path, "{key}"),
                Segment::Key(key) => write!(path, ".{key}"),
            };
        }
        if self.path.len() > 32 {
            path.push_str(" ...");
        }
        path
    }
}

#[cold]
pub(crate) fn segment(key: &[u8]) -> Segment {
    let text = String::from_utf8_lossy(key);
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || "_-$/ ".contains(c));
    let cut: String = text.chars().take(48).collect();
    Segment::Key(if plain && cut.len() == text.len() {
        cut
    } else {
        format!("{cut:?}...")
    })
}

#[cold]
pub(crate) fn too_much(depth: u32, values: u32) -> Box<Fail> {
    Fail::request(if values > MAX_VALUES {
        format!("more than {MAX_VALUES} values; give a shorter request")
    } else if depth < MAX_DEPTH {
        format!(
            "nested deeper ({depth} levels) than this thread's stack has room for; raise threading.stack_size()"
        )
    } else {
        format!("nested deeper than {MAX_DEPTH} levels, or a cycle; flatten it")
    })
}
