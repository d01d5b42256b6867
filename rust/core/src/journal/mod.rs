//! The write-behind journal: records that are acknowledged before the tiers have them survive a crash here.
//!
//! What belongs here: files, frames, groups, recovery, dead letters. What does not: tiers, when to sync, what is
//! worth keeping. All calls are synchronous; `append` and `done` touch memory alone, the others wait for the disk.
//!
//! **What is guaranteed.** When `sync` returned without an error, every record appended before the call is found
//! again by `adopt`, after SIGKILL or a power cut at any moment, until it was `done` in all its tiers. What is
//! found was appended, byte by byte: each frame has a keyed checksum. A write cut short is cut off; damage in
//! the middle is stepped over and counted, and costs what it hit. A record may be found again although it was
//! done: writing it once more is harmless, for tiers put conditionally.
//!
//! **How.** Each process has a lane, a folder it holds a lock on, with numbered segments. `sync` writes all that
//! has arrived as one group, one write and one `fdatasync`; while it runs the next group gathers, so groups grow
//! with the load and an idle journal adds no delay (group commit: `DeWitt` et al., SIGMOD 1984). The oldest
//! segments are deleted once all their records are done; a few long-lived ones are moved to the end.

mod error;
pub mod frame;
mod index;
mod lane;
mod letters;
mod recovery;
pub mod scan;
mod segment;
mod writer;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::error::JournalError;
pub use self::frame::Record;
pub use self::letters::{Letter, Letters};
pub use self::recovery::Recovery;
pub use self::writer::Synced;

use self::frame::{CheckKey, FRAME_HEAD, MAX_BODY};
use self::index::{Index, Live};
use self::lane::Lane;
use self::writer::{State, Writer};

/// The smallest segment.
pub const MIN_SEGMENT: u64 = 64 << 10;
/// Bytes between two records that are read along rather than skipped.
const NEAR: u64 = 64 << 10;

/// An owned record, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number in the lane, for `done`.
    pub sequence: u64,
    /// A bit for each of its tiers, in the order of their names, that does not have it.
    pub left: u64,
    /// What was read at once, and where in it the body of its frame is.
    bytes: Arc<Vec<u8>>,
    body: Range<usize>,
}

impl Found {
    /// The record.
    ///
    /// # Panics
    /// Never: only bodies that can be decoded are kept.
    pub fn record(&self) -> Record<'_> {
        match frame::decode_put(&self.bytes[self.body.clone()]) {
            Some((_, record)) => record,
            None => unreachable!("decoded before"),
        }
    }
}

/// Sizes and counts of a lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalStats {
    /// Records that are not done.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Files.
    pub segments: u64,
    /// Groups synced.
    pub syncs: u64,
    /// Records moved to the end so that an old segment could go.
    pub moved: u64,
    /// Records that were damaged when they were read back.
    pub damaged: u64,
    /// Times that deleting or moving what is old failed; it is tried again with the next group.
    pub untidy: u64,
}

/// One lane, open. Shared between threads by reference.
pub struct Journal {
    folder: PathBuf,
    lane: PathBuf,
    key: CheckKey,
    process: u32,
    segment_bytes: u64,
    recovery: Recovery,
    owner: Mutex<Option<File>>,
    state: Mutex<State>,
    writer: Mutex<Writer>,
}

impl Journal {
    /// A new lane for this process in `folder`, which is made if needed (mode 0700).
    ///
    /// `segment_bytes` is the size of a file, at least `MIN_SEGMENT`.
    ///
    /// # Errors
    /// `Full`, `ReadOnly`, `Permission`, `Busy` or `Io`.
    pub fn create(folder: &Path, segment_bytes: u64) -> Result<Self, JournalError> {
        let lane = lane::create(folder)?;
        Ok(Self::new(
            folder,
            lane,
            segment_bytes,
            Recovery::default(),
            State::new(Index::default(), 1),
            1,
        ))
    }

    /// The lanes in `folder` whose processes are gone; each is adopted by one caller. Reads all of them.
    ///
    /// # Errors
    /// As `create`. A lane that cannot be read is in the list as its error; one of a newer version is left alone.
    pub fn adopt(
        folder: &Path,
        segment_bytes: u64,
    ) -> Result<Vec<Result<Self, JournalError>>, JournalError> {
        let mut journals = Vec::new();
        for lane in lane::adopt(folder)? {
            let key = frame::check_key(&lane.salt);
            match recovery::recover(&lane.path, &key) {
                Ok(Some(found)) => journals.push(Ok(Self::new(
                    folder,
                    lane,
                    segment_bytes,
                    found.report,
                    State::new(found.index, found.next_sequence),
                    found.next_segment,
                ))),
                Ok(None) => {}
                Err(error) => journals.push(Err(error)),
            }
        }
        Ok(journals)
    }

    /// Every record that stands in the files of lanes somebody owns, done or not, handed to `found` with the
    /// lane's path: to say what another process holds. Frames that are being written or deleted meanwhile may be
    /// left out. Reads all of these files.
    ///
    /// # Errors
    /// As `create`.
    pub fn survey(
        folder: &Path,
        mut found: impl FnMut(&Path, &Record<'_>),
    ) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for (lane, salt) in lane::owned(folder)? {
            let key = frame::check_key(&salt);
            for (_, path) in lane::segments(&lane)? {
                if recovery::read(&path, &mut bytes).is_err() {
                    continue; // deleted meanwhile
                }
                scan::scan(&bytes, frame::FILE_HEAD.len(), &key, |_, _, frame| {
                    if let frame::Frame::Put { record, .. } = frame {
                        found(&lane, &record);
                    }
                });
            }
        }
        Ok(())
    }

    fn new(
        folder: &Path,
        lane: Lane,
        segment_bytes: u64,
        recovery: Recovery,
        state: State,
        next_segment: u64,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            lane: lane.path,
            key: frame::check_key(&lane.salt),
            process: std::process::id(),
            segment_bytes: segment_bytes.max(MIN_SEGMENT),
            recovery,
            owner: Mutex::new(Some(lane.owner)),
            state: Mutex::new(state),
            writer: Mutex::new(Writer::new(next_segment)),
        }
    }

    /// What was found when the lane was adopted.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The lane's folder.
    pub fn path(&self) -> &Path {
        &self.lane
    }

    /// Take a record into the next group; its number. It is durable once a `sync` called later has returned.
    ///
    /// # Errors
    /// `TooLarge`; `Behind` when 64 MiB wait for the disk; `Closed`, `Forked`.
    pub fn append(&self, record: &Record<'_>) -> Result<u64, JournalError> {
        let mut state = self.usable()?;
        if state.pending.len() > MAX_BODY {
            return Err(JournalError::Behind);
        }
        let sequence = state.next_sequence;
        let start = state.pending.len();
        frame::put(&mut state.pending, &self.key, sequence, record)?;
        state.next_sequence += 1;
        let length = u32::try_from(state.pending.len() - start).unwrap_or(u32::MAX);
        state.placed.push((sequence, start as u64));
        state.index.insert(
            sequence,
            Live {
                segment: 0,
                offset: 0,
                length,
                left: record.all_tiers(),
            },
        );
        Ok(sequence)
    }

    /// The tiers of the bits have these records, or will never. What is done is not found again after a later
    /// `sync`; before it, it may be.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub fn done(&self, sequences: &[(u64, u64)]) -> Result<(), JournalError> {
        let mut state = self.usable()?;
        for &(sequence, tiers) in sequences {
            state.index.done(sequence, tiers);
        }
        state.done.extend_from_slice(sequences);
        Ok(())
    }

    /// Records that are not done, from the one after `after` on; an empty list says that there are no more.
    ///
    /// At most `max_items`, and no more once they have `max_bytes`. Their checksums were verified when the lane
    /// was adopted and are not again (an envelope has one of its own); one whose frame was damaged since is left
    /// out, and forgotten.
    ///
    /// # Errors
    /// `Permission` or `Io`; `Closed`, `Forked`.
    pub fn read(
        &self,
        after: u64,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<Vec<Found>, JournalError> {
        let mut after = after;
        loop {
            let places = self.places(after, max_items, max_bytes)?;
            let Some(&(last, _)) = places.last() else {
                return Ok(Vec::new());
            };
            let found = self.read_places(&places, false)?;
            if !found.is_empty() {
                return Ok(found);
            }
            after = last; // all of them damaged: an empty list would say that there are no more
        }
    }

    fn places(
        &self,
        after: u64,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Live)>, JournalError> {
        let state = self.usable()?;
        let mut size = 0;
        let later = state.index.live.range(after.saturating_add(1)..);
        Ok(later
            .filter(|(_, live)| live.segment != 0)
            .take(max_items)
            .take_while(|(_, live)| {
                let within = size < max_bytes;
                size += live.length as usize;
                within
            })
            .map(|(&sequence, &live)| (sequence, live))
            .collect())
    }

    fn read_places(
        &self,
        places: &[(u64, Live)],
        verify: bool,
    ) -> Result<Vec<Found>, JournalError> {
        let mut found = Vec::with_capacity(places.len());
        for run in places.chunk_by(|(_, one), (_, next)| {
            // Neighbours, or nearly, are read at once.
            let end = one.offset + u64::from(one.length);
            one.segment == next.segment && (end..end + NEAR).contains(&next.offset)
        }) {
            let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
                continue;
            };
            let path = lane::segment_path(&self.lane, first.segment);
            let failed = |error| JournalError::from_io(&path, error);
            let length = last.offset + u64::from(last.length) - first.offset;
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            File::open(&path)
                .and_then(|file| file.read_exact_at(&mut bytes, first.offset))
                .map_err(failed)?;
            let bytes = Arc::new(bytes);
            for &(sequence, live) in run {
                let start = usize::try_from(live.offset - first.offset).unwrap_or(0);
                let frame = &bytes[start..start + live.length as usize];
                let body = if verify {
                    frame::body(frame, &self.key)
                } else {
                    frame::body_len(frame, &self.key)
                        .and_then(|length| frame.get(FRAME_HEAD..FRAME_HEAD + length))
                };
                let sound = body
                    .and_then(frame::decode_put)
                    .is_some_and(|(there, _)| there == sequence);
                if sound {
                    found.push(Found {
                        sequence,
                        left: live.left,
                        bytes: Arc::clone(&bytes),
                        body: start + FRAME_HEAD..start + live.length as usize,
                    });
                } else {
                    let mut state = self.state.lock();
                    state.index.forget(sequence);
                    state.damaged += 1;
                }
            }
        }
        Ok(found)
    }

    /// Counts now.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub fn stats(&self) -> Result<JournalStats, JournalError> {
        let state = self.usable()?;
        Ok(JournalStats {
            records: state.index.live.len() as u64,
            bytes: state.index.live_bytes,
            file_bytes: state.index.bytes(),
            segments: state.index.segment_count() as u64,
            syncs: state.syncs,
            moved: state.moved,
            damaged: state.damaged,
            untidy: state.untidy,
        })
    }

    /// In a forked child: let go of the parent's lock, which would otherwise outlive the parent here.
    ///
    /// Closing a descriptor that the parent still has does not unlock. Never waits.
    pub fn leave(&self) {
        if std::process::id() != self.process
            && let Some(mut owner) = self.owner.try_lock()
        {
            *owner = None;
        }
    }

    fn usable(&self) -> Result<parking_lot::MutexGuard<'_, State>, JournalError> {
        if std::process::id() != self.process {
            return Err(JournalError::Forked);
        }
        let state = self.state.lock();
        if state.closed {
            return Err(JournalError::Closed);
        }
        Ok(state)
    }
}
