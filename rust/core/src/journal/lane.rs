//! Lanes: the folder of one process inside the journal's folder, and who owns it.
//!
//! An owner holds a lock (flock) that the system takes away when the process ends, however it ends. A lane
//! whose lock is free is adopted by whoever takes it first.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::JournalError;

const FOLDER_LOCK: &str = "journal.lock";
const OWNER_LOCK: &str = "owner.lock";
const PREFIX: &str = "lane-";
const SEGMENT: &str = ".log";
/// The longest one waits for another process that is making, adopting or removing a lane.
const WAIT: Duration = Duration::from_secs(5);

/// A lane that this process owns.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) path: PathBuf,
    pub(super) salt: [u8; 16],
    /// Held open for the lock.
    pub(super) owner: File,
}

/// 16 bytes that nobody can foresee.
pub(super) fn salt() -> Result<[u8; 16], JournalError> {
    let path = Path::new("/dev/urandom");
    let mut salt = [0; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut salt))
        .map_err(|error| JournalError::from_io(path, error))?;
    Ok(salt)
}

/// Make `folder` (mode 0700, parents too) and hold its lock until the file is dropped.
pub(super) fn lock_folder(folder: &Path, name: &str) -> Result<File, JournalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| JournalError::from_io(folder, error))?;
    let path = folder.join(name);
    let file = open_lock(&path)?;
    let deadline = Instant::now() + WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(JournalError::from_io(&path, error)),
        }
    }
}

fn open_lock(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| JournalError::from_io(path, error))
}

/// A new lane of this process.
pub(super) fn create(folder: &Path) -> Result<Lane, JournalError> {
    let _lock = lock_folder(folder, FOLDER_LOCK)?;
    let salt = salt()?;
    let path = folder.join(format!("{PREFIX}{}", hex(&salt)));
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(|error| JournalError::from_io(&path, error))?;
    let owner = open_lock(&path.join(OWNER_LOCK))?;
    // Nobody else can have it: adopters hold the folder's lock.
    owner
        .try_lock()
        .map_err(|error| JournalError::from_io(&path, error.into()))?;
    sync_folder(folder)?;
    Ok(Lane { path, salt, owner })
}

/// All lanes whose owners are gone; they belong to this process from now on.
pub(super) fn adopt(folder: &Path) -> Result<Vec<Lane>, JournalError> {
    let _lock = lock_folder(folder, FOLDER_LOCK)?;
    let mut lanes = Vec::new();
    for (path, salt) in lanes_in(folder)? {
        let owner = open_lock(&path.join(OWNER_LOCK))?;
        match owner.try_lock() {
            Ok(()) => lanes.push(Lane { path, salt, owner }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(JournalError::from_io(&path, error)),
        }
    }
    Ok(lanes)
}

/// All lanes that somebody owns, this process for one: path and salt.
pub(super) fn owned(folder: &Path) -> Result<Vec<(PathBuf, [u8; 16])>, JournalError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let _lock = lock_folder(folder, FOLDER_LOCK)?;
    let mut lanes = lanes_in(folder)?;
    lanes.retain(|(path, _)| {
        // The lock is let go of at once; adopters wait for the folder's.
        File::open(path.join(OWNER_LOCK))
            .is_ok_and(|owner| matches!(owner.try_lock(), Err(TryLockError::WouldBlock)))
    });
    Ok(lanes)
}

fn lanes_in(folder: &Path) -> Result<Vec<(PathBuf, [u8; 16])>, JournalError> {
    let entries = fs::read_dir(folder).map_err(|error| JournalError::from_io(folder, error))?;
    let mut lanes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| JournalError::from_io(folder, error))?;
        let name = entry.file_name();
        let salt = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(unhex);
        if let Some(salt) = salt {
            lanes.push((entry.path(), salt));
        }
    }
    lanes.sort();
    Ok(lanes)
}

/// Remove the lane's folder; what is no longer needed was deleted before.
pub(super) fn remove(folder: &Path, lane: &Path) -> Result<(), JournalError> {
    let _lock = lock_folder(folder, FOLDER_LOCK)?;
    let failed = |error| JournalError::from_io(lane, error);
    fs::remove_file(lane.join(OWNER_LOCK)).map_err(failed)?;
    fs::remove_dir(lane).map_err(failed)
}

/// The segments of a lane by number.
pub(super) fn segments(lane: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let entries = fs::read_dir(lane).map_err(|error| JournalError::from_io(lane, error))?;
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| JournalError::from_io(lane, error))?
            .path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(SEGMENT))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

pub(super) fn segment_path(lane: &Path, number: u64) -> PathBuf {
    lane.join(format!("{number:012}{SEGMENT}"))
}

/// Make names that were created, renamed or removed in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| JournalError::from_io(folder, error))
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok()?;
    is_hex.then(|| number.to_be_bytes())
}
