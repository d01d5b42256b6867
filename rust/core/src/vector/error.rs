//! What can be wrong with a vector, a setting or a snapshot, as facts a caller can act on.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a call of the index failed. No variant carries a vector's numbers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VectorError {
    /// A setting that cannot work.
    #[error("{0}")]
    Option(String),
    /// A vector of another length.
    #[error(
        "vector: {got} bytes were given; {dimension} numbers are {} bytes as float32 or {} as float16",
        .dimension * 4, .dimension * 2
    )]
    Length {
        /// Its bytes.
        got: usize,
        /// Numbers in a vector of this index.
        dimension: usize,
    },
    /// A vector with a NaN or an infinity.
    #[error("vector: number {0} is NaN or infinite; what made it has failed")]
    NotFinite(usize),
    /// A vector of zeros, which points nowhere.
    #[error("vector: all numbers are zero, so it has no direction; what made it has failed")]
    Zero,
    /// The graph could not take or give an entry, for want of memory.
    #[error("vector index: {0}")]
    Graph(String),
    /// The file is no snapshot this version reads, or is damaged. Build the index anew.
    #[error("{}: not a usable snapshot of a vector index: {reason}; delete it, the index is built anew", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operating system refused a file operation.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl VectorError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn graph(error: impl std::fmt::Display) -> Self {
        Self::Graph(error.to_string())
    }
}
