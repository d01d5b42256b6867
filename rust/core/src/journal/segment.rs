//! One file of a lane while it is written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::error::JournalError;
use super::frame::FILE_HEAD;
use super::lane::{segment_path, sync_folder};

/// The segment that groups are appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u64,
    /// Where the next group goes.
    pub(super) end: u64,
    path: PathBuf,
    file: File,
}

impl Active {
    /// A new file with room for `size` bytes, whose name is durable.
    ///
    /// Room is allocated at once, so that a full disk shows before records are appended, and growing the file
    /// is no part of each sync. File systems that cannot do that go without.
    pub(super) fn create(lane: &Path, number: u64, size: u64) -> Result<Self, JournalError> {
        let path = segment_path(lane, number);
        let failed = |error| JournalError::from_io(&path, error);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.write_all_at(&FILE_HEAD, 0),
            Err(error) => Err(error.into()),
        };
        // Its size too is to be durable before anything relies on it: `sync_all`.
        if let Err(error) = made.and_then(|()| file.sync_all()) {
            // Nothing is in it; were it left, it would take room of a disk that has none.
            let _ = std::fs::remove_file(&path);
            return Err(failed(error));
        }
        sync_folder(lane)?;
        Ok(Self {
            number,
            end: FILE_HEAD.len() as u64,
            path,
            file,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.file
            .write_all_at(bytes, self.end)
            .map_err(|error| JournalError::from_io(&self.path, error))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.file
            .sync_data()
            .map_err(|error| JournalError::from_io(&self.path, error))
    }
}
