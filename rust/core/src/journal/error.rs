//! What can go wrong with the journal, as facts a caller can act on.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why an operation of the journal failed. No variant carries stored text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk, or the user's share of it, is full.
    #[error("the disk of {} is full: make room or choose another folder", .0.display())]
    Full(PathBuf),
    /// The file system does not accept writes.
    #[error("{} is on a read-only file system: choose a folder this user can write to", .0.display())]
    ReadOnly(PathBuf),
    /// The process may not use the folder.
    #[error("no permission to use {}: give this user read and write access or choose another folder", .0.display())]
    Permission(PathBuf),
    /// Another process held the folder for too long. Trying again later can work.
    #[error("{} stayed locked by another process; try again later", .0.display())]
    Busy(PathBuf),
    /// The record is larger than a journal takes.
    #[error("a record of {0} bytes is larger than the journal's limit of 64 MiB")]
    TooLarge(usize),
    /// More is waiting to be written than a group may hold.
    #[error("the disk is too slow: 64 MiB are waiting to be written to the journal")]
    Behind,
    /// The journal was closed.
    #[error("the journal is closed: open it again")]
    Closed,
    /// The journal was opened by the parent of this process.
    #[error("the journal was opened before this process was forked: open it again in the child")]
    Forked,
    /// The operating system refused a file operation.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    /// A short stable name, for counters and for code that decides.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::ReadOnly(_) => "read_only",
            Self::Permission(_) => "permission",
            Self::Busy(_) => "busy",
            Self::TooLarge(_) => "too_large",
            Self::Behind => "behind",
            Self::Closed => "closed",
            Self::Forked => "forked",
            Self::Io { .. } => "io",
        }
    }

    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(path.to_owned()),
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path.to_owned()),
            // A limit on the size of files is a kind of fullness.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(path.to_owned()),
            _ => Self::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}
