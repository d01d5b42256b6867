//! Finding out what a lane holds after its owner has gone.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::error::JournalError;
use super::frame::{CheckKey, FILE_HEAD, Frame, MAX_BODY};
use super::index::{Index, Live};
use super::lane;
use super::scan::{self, Damage};

/// The longest file that is read; own segments are shorter.
const MAX_FILE: u64 = 4 * MAX_BODY as u64;

/// What was found in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that some tier does not have.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What they cost to compute again, in micro-USD.
    pub cost: u64,
    /// Places where sound frames follow bytes that are none: acknowledged records may be lost there.
    pub damaged: u64,
    /// Bytes of these places.
    pub damaged_bytes: u64,
    /// Bytes of the last write, cut off; it was never acknowledged.
    pub torn_bytes: u64,
    /// Files that somebody took out of the middle of the lane.
    pub missing_files: u64,
}

pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) report: Recovery,
    pub(super) next_sequence: u64,
    pub(super) next_segment: u64,
}

/// Read all segments of a lane. `None` when one was written by a newer version: the lane is left alone.
pub(super) fn recover(path: &Path, key: &CheckKey) -> Result<Option<Recovered>, JournalError> {
    let segments = lane::segments(path)?;
    let mut report = Recovery::default();
    let mut puts: Vec<(u64, Live, u64)> = Vec::new();
    let mut done: HashMap<u64, u64> = HashMap::new();
    let mut next_sequence = 1;
    let mut index = Index::default();
    let mut before: Option<u64> = None;
    let mut bytes = Vec::new();
    for (position, (number, file)) in segments.iter().enumerate() {
        read(file, &mut bytes)?;
        if scan::is_newer(&bytes) {
            return Ok(None);
        }
        report.missing_files += before.map_or(0, |before| number - before - 1);
        before = Some(*number);
        index.grow(*number, bytes.len() as u64);
        let damage = scan::scan(
            &bytes,
            FILE_HEAD.len(),
            key,
            |offset, length, frame| match frame {
                Frame::Put { sequence, record } => {
                    next_sequence = next_sequence.max(sequence + 1);
                    let live = Live {
                        segment: *number,
                        offset: offset as u64,
                        length: u32::try_from(length).unwrap_or(u32::MAX),
                        left: record.all_tiers(),
                    };
                    puts.push((sequence, live, record.cost));
                }
                Frame::Done(sequences) => {
                    for (sequence, tiers) in sequences {
                        *done.entry(sequence).or_default() |= tiers;
                    }
                }
                Frame::Letter { .. } => {}
            },
        );
        add(&mut report, damage, position + 1 == segments.len());
    }
    // A record that was moved stands twice if the move was cut short: either copy will do.
    puts.sort_by_key(|(sequence, ..)| *sequence);
    puts.dedup_by_key(|(sequence, ..)| *sequence);
    for (sequence, mut live, cost) in puts {
        live.left &= !done.get(&sequence).copied().unwrap_or(0);
        if live.left != 0 {
            report.records += 1;
            report.bytes += u64::from(live.length);
            report.cost = report.cost.saturating_add(cost);
            index.insert(sequence, live);
        }
    }
    Ok(Some(Recovered {
        index,
        report,
        next_sequence,
        next_segment: segments.last().map_or(1, |(number, _)| number + 1),
    }))
}

/// Only the last file can end in a write that was cut short: before a new one is begun, the old one is synced.
fn add(report: &mut Recovery, damage: Damage, last: bool) {
    report.damaged += damage.places;
    report.damaged_bytes += damage.bytes;
    if last {
        report.torn_bytes += damage.torn;
    } else if damage.torn > 0 {
        report.damaged += 1;
        report.damaged_bytes += damage.torn;
    }
}

pub(super) fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
    bytes.clear();
    let failed = |error| JournalError::from_io(path, error);
    let file = File::open(path).map_err(failed)?;
    let size = fs::metadata(path).map_err(failed)?.len().min(MAX_FILE);
    bytes.reserve(usize::try_from(size).unwrap_or(0));
    file.take(MAX_FILE).read_to_end(bytes).map_err(failed)?;
    Ok(())
}
