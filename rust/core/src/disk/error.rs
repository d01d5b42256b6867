//! What can go wrong with the disk store, as facts a caller can act on.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

/// Why an operation of the disk store failed.
///
/// No variant carries stored text; paths are the store's own.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another writer held the database for longer than the budget. Trying again later can work.
    #[error("the database stayed locked by another writer for the whole budget; try again later")]
    Busy,
    /// No room: the disk is full, or the log cannot shrink below the bound.
    #[error("no room for the write: {0}")]
    Full(String),
    /// The file system or the folder does not accept writes.
    #[error("{} cannot be written, a read-only file system or file: choose a folder this user can write to", .0.display())]
    ReadOnly(PathBuf),
    /// The process may not use the folder or the file.
    #[error("no permission to use {}: give this user read and write access or choose another folder", .0.display())]
    Permission(PathBuf),
    /// The file at the store's place is something else. It was not touched.
    #[error("{} is not a database of this cache ({what}): it was left as it is; choose another folder or move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        what: String,
    },
    /// The file was written by a newer version of this package. It was not touched.
    #[error("{} has schema version {found}, this build knows up to {supported}: upgrade the package or choose another folder", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest this build reads.
        supported: i64,
    },
    /// The file is damaged. It was renamed (`set_aside`) and the next operation finds a fresh one.
    #[error("the database was damaged{}", set_aside_text(.set_aside.as_deref()))]
    Corrupt {
        /// Where the damaged file is now; `None` if another process had already moved it.
        set_aside: Option<PathBuf>,
    },
    /// The store was closed.
    #[error("the disk store is closed: open it again")]
    Closed,
    /// The store was opened by the parent of this process; a connection must not cross a fork.
    #[error("the disk store was opened before this process was forked: open it again in the child")]
    Forked,
    /// An option that cannot work.
    #[error("{0}")]
    Option(String),
    /// The operating system refused a file operation.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the database engine.
    #[error("the database engine failed: {0}")]
    Engine(#[source] rusqlite::Error),
}

fn set_aside_text(path: Option<&Path>) -> String {
    match path {
        Some(path) => format!(
            ", is kept as {} and was replaced by an empty one",
            path.display()
        ),
        None => " and was already replaced by an empty one".to_owned(),
    }
}

impl DiskError {
    /// A short stable name, for counters and for code that decides.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Full(_) => "full",
            Self::ReadOnly(_) => "read_only",
            Self::Permission(_) => "permission",
            Self::Foreign { .. } => "foreign",
            Self::Newer { .. } => "newer",
            Self::Corrupt { .. } => "corrupt",
            Self::Closed => "closed",
            Self::Forked => "forked",
            Self::Option(_) => "option",
            Self::Io { .. } => "io",
            Self::Engine(_) => "engine",
        }
    }

    /// Whether the store as a whole is unusable, as opposed to this one operation.
    pub fn is_unavailable(&self) -> bool {
        !matches!(self, Self::Busy | Self::Corrupt { .. } | Self::Option(_))
    }

    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(path.to_owned()),
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path.to_owned()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(format!("the disk of {} is full", path.display()))
            }
            _ => Self::Io {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// The engine's answer in the vocabulary of this store; damage is left to the caller, who can move it.
    pub(super) fn from_engine(path: &Path, error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Busy,
            // What SQLite calls growing the log's index, which fails for lack of room.
            Some(ErrorCode::SystemIoFailure)
                if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) =>
            {
                Self::Full(format!("the disk of {} is full", path.display()))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io {
                path: path.to_owned(),
                source: io::Error::other(error),
            },
            Some(ErrorCode::DiskFull) => {
                Self::Full("the disk or the store's bound is full".to_owned())
            }
            Some(ErrorCode::ReadOnly) => Self::ReadOnly(path.to_owned()),
            Some(ErrorCode::PermissionDenied) => Self::Permission(path.to_owned()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { set_aside: None }
            }
            _ => Self::Engine(error),
        }
    }
}
