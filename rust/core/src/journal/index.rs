//! What a lane holds: where each record that is not done stands, and which segments are still needed.

use std::collections::BTreeMap;

/// Where a record stands, and who still waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    /// 0 while it waits for its group.
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// A bit for each tier that does not have it.
    pub(super) left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    live: u64,
    bytes: u64,
}

/// The records of a lane that are not done, by their number.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) live: BTreeMap<u64, Live>,
    segments: BTreeMap<u64, Segment>,
    pub(super) live_bytes: u64,
}

impl Index {
    pub(super) fn insert(&mut self, sequence: u64, live: Live) {
        self.live_bytes += u64::from(live.length);
        if live.segment != 0 {
            self.segments.entry(live.segment).or_default().live += 1;
        }
        self.live.insert(sequence, live);
    }

    /// The tiers of `bits` have the record. Whether that made it done.
    pub(super) fn done(&mut self, sequence: u64, bits: u64) -> bool {
        let Some(live) = self.live.get_mut(&sequence) else {
            return false;
        };
        live.left &= !bits;
        live.left == 0 && self.forget(sequence)
    }

    pub(super) fn forget(&mut self, sequence: u64) -> bool {
        let Some(live) = self.live.remove(&sequence) else {
            return false;
        };
        self.live_bytes -= u64::from(live.length);
        if let Some(segment) = self.segments.get_mut(&live.segment) {
            segment.live -= 1;
        }
        true
    }

    /// The record, if it is not done meanwhile, stands in `segment` now.
    pub(super) fn place(&mut self, sequence: u64, segment: u64, offset: u64) {
        let Some(live) = self.live.get_mut(&sequence) else {
            return;
        };
        if let Some(before) = self.segments.get_mut(&live.segment) {
            before.live -= 1;
        }
        (live.segment, live.offset) = (segment, offset);
        self.segments.entry(segment).or_default().live += 1;
    }

    pub(super) fn grow(&mut self, segment: u64, bytes: u64) {
        self.segments.entry(segment).or_default().bytes += bytes;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The oldest segments whose records are all done, without `active`; they are no longer known.
    ///
    /// Only the oldest: a newer one may say which records of an older one are done.
    pub(super) fn take_unneeded(&mut self, active: u64) -> Vec<u64> {
        let mut unneeded = Vec::new();
        while let Some(entry) = self.segments.first_entry() {
            if entry.get().live > 0 || *entry.key() == active {
                break;
            }
            unneeded.push(*entry.key());
            entry.remove();
        }
        unneeded
    }
}
