//! The side of the journal that waits for the disk: groups, deletion of old segments, moving what stays long.

use std::fs;

use super::error::JournalError;
use super::frame;
use super::index::Index;
use super::lane;
use super::segment::Active;
use super::{Found, Journal};

/// `done` frames are written without records once there are so many.
const DONE_MAX: usize = 4096;
/// Bytes read and written at once while records are moved.
const MOVE_STEP: usize = 4 << 20;

/// What is known in memory; the lock on it is held for microseconds.
#[derive(Debug)]
pub(super) struct State {
    /// The frames of the next group, and where in it each record begins.
    pub(super) pending: Vec<u8>,
    pub(super) placed: Vec<(u64, u64)>,
    pub(super) done: Vec<(u64, u64)>,
    pub(super) next_sequence: u64,
    pub(super) index: Index,
    pub(super) closed: bool,
    pub(super) syncs: u64,
    pub(super) moved: u64,
    pub(super) damaged: u64,
    pub(super) untidy: u64,
}

impl State {
    pub(super) fn new(index: Index, next_sequence: u64) -> Self {
        Self {
            pending: Vec::new(),
            placed: Vec::new(),
            done: Vec::new(),
            next_sequence,
            index,
            closed: false,
            syncs: 0,
            moved: 0,
            damaged: 0,
            untidy: 0,
        }
    }
}

/// What only one thread at a time uses, for as long as the disk takes.
#[derive(Debug)]
pub(super) struct Writer {
    active: Option<Active>,
    next_segment: u64,
    /// The buffer of the last group, to be the next one's.
    spare: Vec<u8>,
}

impl Writer {
    pub(super) fn new(next_segment: u64) -> Self {
        Self {
            active: None,
            next_segment,
            spare: Vec::new(),
        }
    }
}

/// What became of a group.
#[derive(Debug)]
pub struct Synced {
    /// The last record of the group: all up to it that were not settled before are now.
    pub through: u64,
    /// Whether they are durable; if not, why. They are then not in the journal.
    pub result: Result<(), JournalError>,
}

impl Journal {
    /// Write and sync all that was appended until now as one group, then delete what is no longer needed.
    ///
    /// After an error the file is not written again: a sync that failed may have thrown away what it was to
    /// write, and a second one would say that all is well.
    ///
    /// # Errors
    /// `Closed`, `Forked`. What goes wrong with the disk is in the result, with the records it concerns.
    pub fn sync(&self) -> Result<Synced, JournalError> {
        // Before the lock: in a forked child another thread may hold it for ever.
        drop(self.usable()?);
        let mut writer = self.writer.lock();
        self.sync_with(&mut writer, false)
    }

    fn sync_with(&self, writer: &mut Writer, all: bool) -> Result<Synced, JournalError> {
        let spare = std::mem::take(&mut writer.spare);
        let (mut bytes, placed, done, through) = {
            let mut state = self.usable()?;
            let done = if all || !state.placed.is_empty() || state.done.len() >= DONE_MAX {
                std::mem::take(&mut state.done)
            } else {
                Vec::new()
            };
            (
                std::mem::replace(&mut state.pending, spare),
                std::mem::take(&mut state.placed),
                done,
                state.next_sequence - 1,
            )
        };
        let result = self.write_group(writer, &mut bytes, &placed, &done);
        // What is old and could not be deleted makes the group no less durable.
        if result.is_err() {
            self.state.lock().done.extend_from_slice(&done);
        } else if self.tidy(writer).is_err() {
            self.state.lock().untidy += 1;
        }
        bytes.clear();
        bytes.shrink_to(MOVE_STEP);
        writer.spare = bytes;
        Ok(Synced { through, result })
    }

    fn write_group(
        &self,
        writer: &mut Writer,
        bytes: &mut Vec<u8>,
        placed: &[(u64, u64)],
        done: &[(u64, u64)],
    ) -> Result<(), JournalError> {
        if !done.is_empty() {
            // Behind the records: a crash in between leaves them to be written once more.
            frame::done(bytes, &self.key, done)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        match self.append_group(writer, bytes, !placed.is_empty()) {
            Ok((segment, start)) => {
                let mut state = self.state.lock();
                state.syncs += u64::from(!placed.is_empty());
                for &(sequence, offset) in placed {
                    state.index.place(sequence, segment, start + offset);
                }
                Ok(())
            }
            Err(error) => {
                writer.active = None;
                let mut state = self.state.lock();
                for &(sequence, _) in placed {
                    state.index.forget(sequence);
                }
                Err(error)
            }
        }
    }

    /// Where the group begins.
    fn append_group(
        &self,
        writer: &mut Writer,
        bytes: &[u8],
        sync: bool,
    ) -> Result<(u64, u64), JournalError> {
        let full = |active: &Active| active.end + bytes.len() as u64 > self.segment_bytes;
        if writer.active.as_ref().is_none_or(full) {
            self.begin_segment(writer, bytes.len() as u64)?;
        }
        let active = writer.active.as_mut().ok_or(JournalError::Closed)?;
        let start = active.end;
        active.write(bytes)?;
        if sync {
            active.sync()?;
        }
        Ok((active.number, start))
    }

    fn begin_segment(&self, writer: &mut Writer, room: u64) -> Result<(), JournalError> {
        if let Some(old) = writer.active.take() {
            // What says which records are done may still be on its way to the disk.
            old.sync()?;
        }
        let size = self.segment_bytes.max(room + 4096);
        let number = writer.next_segment;
        writer.next_segment += 1;
        writer.active = Some(Active::create(&self.lane, number, size)?);
        self.state.lock().index.grow(number, size);
        Ok(())
    }

    /// Delete segments whose records are all done, moving old records out of the way when they keep too many.
    fn tidy(&self, writer: &mut Writer) -> Result<(), JournalError> {
        let (held, needed) = {
            let state = self.state.lock();
            (state.index.bytes(), state.index.live_bytes)
        };
        if held > 2 * needed + 4 * self.segment_bytes {
            return self.compact_with(writer);
        }
        self.delete_unneeded(writer)
    }

    fn delete_unneeded(&self, writer: &Writer) -> Result<(), JournalError> {
        let active = writer.active.as_ref().map_or(0, |active| active.number);
        let unneeded = self.state.lock().index.take_unneeded(active);
        for number in unneeded {
            let path = lane::segment_path(&self.lane, number);
            fs::remove_file(&path).map_err(|error| JournalError::from_io(&path, error))?;
        }
        Ok(())
    }

    /// Move every record that is not done to a new segment and delete all others: what is done is gone from
    /// the disk when this returns. Cost: the bytes of the records that are not done, read and written once.
    ///
    /// # Errors
    /// As `create`, and `Closed`, `Forked`. What was moved until then stands twice, which is harmless.
    pub fn compact(&self) -> Result<(), JournalError> {
        drop(self.usable()?);
        let mut writer = self.writer.lock();
        self.sync_with(&mut writer, true)?.result?;
        self.compact_with(&mut writer)?;
        lane::sync_folder(&self.lane)
    }

    fn compact_with(&self, writer: &mut Writer) -> Result<(), JournalError> {
        if let Some(old) = writer.active.take() {
            old.sync()?;
        }
        let mut after = 0;
        loop {
            let places = self.places(after, usize::MAX, MOVE_STEP)?;
            let Some(&(last, _)) = places.last() else {
                break;
            };
            after = last;
            self.move_to_end(writer, &self.read_places(&places, true)?)?;
        }
        self.delete_unneeded(writer)
    }

    fn move_to_end(&self, writer: &mut Writer, found: &[Found]) -> Result<(), JournalError> {
        if found.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(MOVE_STEP + MOVE_STEP / 4);
        let mut placed = Vec::with_capacity(found.len());
        let mut done = Vec::new();
        for found in found {
            let record = found.record();
            placed.push((found.sequence, bytes.len() as u64));
            frame::put(&mut bytes, &self.key, found.sequence, &record)?;
            let had = record.all_tiers() & !found.left;
            if had != 0 {
                done.push((found.sequence, had));
            }
        }
        if !done.is_empty() {
            frame::done(&mut bytes, &self.key, &done)?;
        }
        let (segment, start) = match self.append_group(writer, &bytes, true) {
            Ok(place) => place,
            Err(error) => {
                writer.active = None;
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        state.moved += placed.len() as u64;
        for (sequence, offset) in placed {
            state.index.place(sequence, segment, start + offset);
        }
        Ok(())
    }

    /// Write what is pending, let go of the lane, and remove it if all its records are done.
    ///
    /// # Errors
    /// As `create`: what is pending may not be durable then. `Forked`. Closing twice is nothing.
    pub fn close(&self) -> Result<(), JournalError> {
        match self.usable() {
            Ok(state) => drop(state),
            Err(JournalError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut writer = self.writer.lock();
        let result = self.sync_with(&mut writer, true)?.result;
        writer.active = None;
        let empty = {
            let mut state = self.state.lock();
            state.closed = true;
            state.index.live.is_empty()
        };
        let result = result.and_then(|()| {
            if !empty {
                return Ok(());
            }
            self.delete_unneeded(&writer)?;
            lane::remove(&self.folder, &self.lane)
        });
        *self.owner.lock() = None;
        result
    }
}
