//! Dead letters: records that a tier did not take, kept for a person to look at.
//!
//! Two files of frames in one folder, the older replaced when the newer is full. Every call takes the folder's
//! lock for as long as it lasts, so processes and the command line share them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::frame::{self, CheckKey, FILE_HEAD, Frame, Record};
use super::lane::{lock_folder, salt, sync_folder};
use super::recovery::read;
use super::scan::{self, Damage};

const LOCK: &str = "letters.lock";
const NEWER: &str = "letters.0";
const OLDER: &str = "letters.1";
const REWRITTEN: &str = "letters.new";
const HEAD: usize = FILE_HEAD.len() + 16;

/// The dead letters in a folder. Holds no file open.
#[derive(Debug)]
pub struct Letters {
    folder: PathBuf,
    max_bytes: u64,
}

/// One dead letter, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Names it: the same as long as it is there.
    pub id: [u8; 16],
    body: Vec<u8>,
}

impl Letter {
    /// When it was given up, why, and the record; `tiers` names the one tier.
    ///
    /// # Panics
    /// Never: only bodies that can be decoded are kept.
    pub fn parts(&self) -> (i64, &str, Record<'_>) {
        match frame::decode(&self.body) {
            Some(Frame::Letter { at, reason, record }) => (at, reason, record),
            _ => unreachable!("decoded before"),
        }
    }
}

impl Letters {
    /// The letters of `folder`, at most `max_bytes` of them; nothing is made before the first is added.
    pub fn new(folder: &Path, max_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            max_bytes,
        }
    }

    /// Add letters `(at, reason, record)`, durably; how many older ones were given up for room.
    ///
    /// # Errors
    /// As `Journal::create`, and `TooLarge`.
    pub fn add(&self, letters: &[(i64, &str, Record<'_>)]) -> Result<u64, JournalError> {
        let _lock = lock_folder(&self.folder, LOCK)?;
        let path = self.folder.join(NEWER);
        let mut lost = 0;
        let full = fs::metadata(&path).is_ok_and(|there| there.len() > self.max_bytes / 2);
        if full {
            lost = self.letters_of(OLDER)?.0.len() as u64;
            self.rename(NEWER, OLDER)?;
        }
        let failed = |error| JournalError::from_io(&path, error);
        let key = if let Some(key) = self.key_of(NEWER)? {
            key
        } else {
            if path.exists() {
                // Its head is damaged, and without it nothing in it can be told from noise: set aside.
                self.rename(NEWER, "letters.damaged")?;
            }
            self.begin(NEWER)?
        };
        let mut bytes = Vec::new();
        for (at, reason, record) in letters {
            frame::letter(&mut bytes, &key, *at, reason, record)?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(failed)?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        Ok(lost)
    }

    /// All letters, oldest first, and what was damaged.
    ///
    /// # Errors
    /// `Permission`, `Busy` or `Io`. A folder that does not exist has none.
    pub fn all(&self) -> Result<(Vec<Letter>, Damage), JournalError> {
        if !self.folder.is_dir() {
            return Ok((Vec::new(), Damage::default()));
        }
        let _lock = lock_folder(&self.folder, LOCK)?;
        let (mut letters, mut damage) = self.letters_of(OLDER)?;
        let (newer, more) = self.letters_of(NEWER)?;
        letters.extend(newer);
        damage.places += more.places;
        damage.bytes += more.bytes;
        damage.torn += more.torn;
        Ok((letters, damage))
    }

    /// Remove letters by id; how many were there. The files are written anew without them.
    ///
    /// # Errors
    /// As `Journal::create`; the letters are then all still there.
    pub fn remove(&self, ids: &[[u8; 16]]) -> Result<u64, JournalError> {
        if !self.folder.is_dir() {
            return Ok(0);
        }
        let _lock = lock_folder(&self.folder, LOCK)?;
        let mut removed = 0;
        for name in [OLDER, NEWER] {
            let (letters, _) = self.letters_of(name)?;
            let before = letters.len();
            let kept: Vec<Letter> = letters
                .into_iter()
                .filter(|letter| !ids.contains(&letter.id))
                .collect();
            if kept.len() == before {
                continue;
            }
            removed += (before - kept.len()) as u64;
            if kept.is_empty() {
                let path = self.folder.join(name);
                fs::remove_file(&path).map_err(|error| JournalError::from_io(&path, error))?;
                sync_folder(&self.folder)?;
                continue;
            }
            let key = self.begin(REWRITTEN)?;
            let mut bytes = Vec::new();
            for letter in &kept {
                let (at, reason, record) = letter.parts();
                frame::letter(&mut bytes, &key, at, reason, &record)?;
            }
            let path = self.folder.join(REWRITTEN);
            let failed = |error| JournalError::from_io(&path, error);
            let mut file = OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(failed)?;
            file.write_all(&bytes)
                .and_then(|()| file.sync_data())
                .map_err(failed)?;
            self.rename(REWRITTEN, name)?;
        }
        Ok(removed)
    }

    fn begin(&self, name: &str) -> Result<CheckKey, JournalError> {
        let path = self.folder.join(name);
        let salt = salt()?;
        let failed = |error| JournalError::from_io(&path, error);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(&[&FILE_HEAD[..], &salt].concat())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        sync_folder(&self.folder)?;
        Ok(frame::check_key(&salt))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), JournalError> {
        let path = self.folder.join(from);
        fs::rename(&path, self.folder.join(to))
            .map_err(|error| JournalError::from_io(&path, error))?;
        sync_folder(&self.folder)
    }

    fn key_of(&self, name: &str) -> Result<Option<CheckKey>, JournalError> {
        use std::io::Read;
        let path = self.folder.join(name);
        let mut head = Vec::with_capacity(HEAD);
        match File::open(&path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head)) {
            Ok(_) => Ok(head_key(&head)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::from_io(&path, error)),
        }
    }

    fn letters_of(&self, name: &str) -> Result<(Vec<Letter>, Damage), JournalError> {
        let path = self.folder.join(name);
        let mut letters = Vec::new();
        if !path.exists() {
            return Ok((letters, Damage::default()));
        }
        let mut bytes = Vec::new();
        read(&path, &mut bytes)?;
        let Some(key) = head_key(&bytes) else {
            let damage = Damage {
                places: 1,
                bytes: bytes.len() as u64,
                torn: 0,
            };
            return Ok((letters, damage));
        };
        let damage = scan::scan(&bytes, HEAD, &key, |offset, length, found| {
            if matches!(found, Frame::Letter { .. }) {
                let body = bytes[offset + frame::FRAME_HEAD..offset + length].to_vec();
                // Of the body alone: the same after the file was written anew.
                let mut id = [0; 16];
                id.copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
                letters.push(Letter { id, body });
            }
        });
        Ok((letters, damage))
    }
}

fn head_key(head: &[u8]) -> Option<CheckKey> {
    let salt = head.get(FILE_HEAD.len()..HEAD)?.try_into().ok()?;
    (head[..FILE_HEAD.len()] == FILE_HEAD).then(|| frame::check_key(salt))
}
