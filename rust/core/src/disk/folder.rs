//! The folder of a disk store: its files, their modes, who owns them, and setting damage aside.
//!
//! The database file itself is only ever opened by SQLite. POSIX locks belong to the process: had this
//! module opened and closed it too, it would have dropped the locks of every connection beside it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::DiskError;

/// The database's name inside the folder.
pub const DATABASE_NAME: &str = "cache.sqlite3";
const LOCK_NAME: &str = "cache.lock";
const OWNER_LINE: &[u8] = b"llmcache-fast disk tier\n";
/// The longest an opening waits for another process that is opening or moving the same files.
const OPENING_WAIT: Duration = Duration::from_secs(5);

/// Which file is at a path: device and inode.
pub(super) type FileIdentity = (u64, u64);

/// The paths of one store.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) database: PathBuf,
}

/// The right to create or move the files; ends when dropped, or with the process.
pub(super) struct OpeningLock {
    file: File,
    path: PathBuf,
    /// Whether a store of ours was opened here before.
    pub(super) owned: bool,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            database: path.join(DATABASE_NAME),
        }
    }

    pub(super) fn wal(&self) -> PathBuf {
        self.with_suffix("-wal")
    }

    pub(super) fn shm(&self) -> PathBuf {
        self.with_suffix("-shm")
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(self.database.as_os_str());
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Make the folder if needed (mode 0700, parents too) and take the opening lock.
    pub(super) fn lock(&self) -> Result<OpeningLock, DiskError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| DiskError::from_io(&self.path, error))?;
        let path = self.path.join(LOCK_NAME);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| DiskError::from_io(&path, error))?;
        let deadline = Instant::now() + OPENING_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(DiskError::Busy),
                Err(TryLockError::Error(error)) => return Err(DiskError::from_io(&path, error)),
            }
        }
        let owned = file
            .metadata()
            .map_err(|error| DiskError::from_io(&path, error))?
            .len()
            > 0;
        Ok(OpeningLock { file, path, owned })
    }

    /// The file at the database's place now, if any.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        fs::metadata(&self.database)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()))
    }

    /// Make sure there is a database file (mode 0600). Whether it was made now.
    ///
    /// A log without its database is left from a move that was cut short: were it kept, it would be
    /// taken for the new file's.
    pub(super) fn ensure_database(&self, _lock: &OpeningLock) -> Result<bool, DiskError> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.database)
        {
            Ok(_) => {
                let suffix = aside_suffix();
                self.move_away(&self.wal(), &suffix)?;
                self.move_away(&self.shm(), &suffix)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(DiskError::from_io(&self.database, error)),
        }
    }

    /// Rename the database and its log to `….corrupt-<microseconds>`. Nothing is deleted.
    pub(super) fn set_aside(&self, _lock: &OpeningLock) -> Result<Option<PathBuf>, DiskError> {
        let suffix = aside_suffix();
        let moved = self.move_away(&self.database, &suffix)?;
        self.move_away(&self.wal(), &suffix)?;
        self.move_away(&self.shm(), &suffix)?;
        Ok(moved)
    }

    /// What was set aside as damaged, and their logs.
    pub(super) fn damaged(&self) -> Result<Vec<PathBuf>, DiskError> {
        let failed = |error| DiskError::from_io(&self.path, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name
                .to_string_lossy()
                .starts_with(&format!("{DATABASE_NAME}.corrupt-"))
            {
                found.push(self.path.join(name));
            }
        }
        found.sort();
        Ok(found)
    }

    fn move_away(&self, from: &Path, suffix: &str) -> Result<Option<PathBuf>, DiskError> {
        // `cache.sqlite3-wal` becomes `cache.sqlite3.corrupt-T-wal`, so that tools still find the pair.
        let name = from
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let tail = name.strip_prefix(DATABASE_NAME).unwrap_or_default();
        let to = self.path.join(format!("{DATABASE_NAME}{suffix}{tail}"));
        match fs::rename(from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::from_io(from, error)),
        }
    }

    /// Bytes of the database, its log and the log's index, as the file system has them.
    pub(super) fn file_sizes(&self) -> (u64, u64, u64) {
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        (size(&self.database), size(&self.wal()), size(&self.shm()))
    }
}

impl OpeningLock {
    /// Remember that this folder holds a store of ours, once it does.
    pub(super) fn mark_owned(&mut self) -> Result<(), DiskError> {
        if !self.owned {
            self.file
                .write_all(OWNER_LINE)
                .map_err(|error| DiskError::from_io(&self.path, error))?;
            self.owned = true;
        }
        Ok(())
    }
}

fn aside_suffix() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    format!(".corrupt-{now}")
}
