//! Frames: how a record, or the news that records are done, stands in a file, and how it is told from damage.
//!
//! `docs/reference/journal.md` fixes every byte. The checksums are keyed with a random number of the file's
//! own, so neither bytes left of an older file nor an answer that happens to quote a journal pass for a frame.

use super::error::JournalError;

/// The first bytes of a segment and of a file of dead letters, with the format's version.
pub const FILE_HEAD: [u8; 16] = *b"llmcache-jrnl\0\x01\0";
/// Where the version stands in it: `u16`, little-endian.
pub(super) const VERSION_AT: usize = 14;
/// The first bytes of a frame, by which reading finds its place again after damage.
pub const MARK: [u8; 4] = *b"\xf7LJ\x01";
/// Bytes of a frame before its body: mark, length, check of the body, check of these.
pub const FRAME_HEAD: usize = 32;
/// The longest body: what is larger is refused when written and taken for damage when read.
pub const MAX_BODY: usize = 64 << 20;
/// The most tiers one record can be on its way to: each is a bit.
pub const MAX_TIERS: usize = 64;

const PUT: u8 = 1;
const DONE: u8 = 2;
const LETTER: u8 = 3;
const ABSENT: u32 = u32::MAX;

/// The key of a file's checksums.
pub type CheckKey = [u8; 32];

/// The key of the random number in a lane's name or a letter file's head.
pub fn check_key(salt: &[u8; 16]) -> CheckKey {
    blake3::derive_key("llmcache_fast journal, format 1", salt)
}

/// A record on its way to `tiers`, as it is handed in and read back. Times are microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The fingerprint.
    pub key: [u8; 32],
    /// With `snap` the stamp.
    pub epoch: u64,
    /// With `epoch` the stamp.
    pub snap: u64,
    /// When it may be deleted.
    pub stale_until: i64,
    /// What computing it again costs, in micro-USD.
    pub cost: u64,
    /// When it was computed.
    pub created: i64,
    /// Until when it is fresh.
    pub fresh_until: i64,
    /// The names of the tiers, one a line.
    pub tiers: &'a str,
    /// For tiers that can be searched.
    pub namespace: Option<&'a str>,
    /// The same, packed.
    pub facts: Option<&'a [u8]>,
    /// The record's wire form; never looked into.
    pub envelope: &'a [u8],
}

impl Record<'_> {
    /// A bit for each tier.
    pub fn all_tiers(&self) -> u64 {
        let count = self.tiers.split('\n').count();
        if count >= MAX_TIERS {
            u64::MAX
        } else {
            (1 << count) - 1
        }
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record that is to be written.
    Put {
        /// Its number in the lane.
        sequence: u64,
        /// The record.
        record: Record<'a>,
    },
    /// `(sequence, bits of the tiers that have it)`.
    Done(Vec<(u64, u64)>),
    /// A record that a tier did not take.
    Letter {
        /// When it was given up.
        at: i64,
        /// Why, as a short stable name.
        reason: &'a str,
        /// The record; `tiers` names the one tier.
        record: Record<'a>,
    },
}

/// Append the frame of a record.
///
/// # Errors
/// `TooLarge` when the body would be longer than `MAX_BODY`; `out` is then as it was.
pub fn put(
    out: &mut Vec<u8>,
    key: &CheckKey,
    sequence: u64,
    record: &Record<'_>,
) -> Result<(), JournalError> {
    framed(out, key, |out| {
        out.push(PUT);
        out.extend_from_slice(&sequence.to_le_bytes());
        write_record(out, record);
    })
}

/// Append the frame of records that are done.
///
/// # Errors
/// As `put`.
pub fn done(
    out: &mut Vec<u8>,
    key: &CheckKey,
    sequences: &[(u64, u64)],
) -> Result<(), JournalError> {
    framed(out, key, |out| {
        out.push(DONE);
        for (sequence, tiers) in sequences {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&tiers.to_le_bytes());
        }
    })
}

/// Append the frame of a dead letter.
///
/// # Errors
/// As `put`.
pub fn letter(
    out: &mut Vec<u8>,
    key: &CheckKey,
    at: i64,
    reason: &str,
    record: &Record<'_>,
) -> Result<(), JournalError> {
    framed(out, key, |out| {
        out.push(LETTER);
        out.extend_from_slice(&at.to_le_bytes());
        write_bytes(out, Some(reason.as_bytes()));
        write_record(out, record);
    })
}

fn framed(
    out: &mut Vec<u8>,
    key: &CheckKey,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), JournalError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    body(out);
    let length = out.len() - start - FRAME_HEAD;
    if length > MAX_BODY {
        out.truncate(start);
        return Err(JournalError::TooLarge(length));
    }
    let check = blake3::keyed_hash(key, &out[start + FRAME_HEAD..]);
    let head = &mut out[start..start + FRAME_HEAD];
    head[..4].copy_from_slice(&MARK);
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_BODY")]
    head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    head[8..24].copy_from_slice(&check.as_bytes()[..16]);
    let check = blake3::keyed_hash(key, &head[..24]);
    head[24..].copy_from_slice(&check.as_bytes()[..8]);
    Ok(())
}

/// The length of the body whose head stands at the start of `bytes`, if it is a head.
///
/// The head has a check of its own, so that bytes which only look like a head make nobody hash what follows.
pub fn body_len(bytes: &[u8], key: &CheckKey) -> Option<usize> {
    let head = bytes.get(..FRAME_HEAD)?;
    if head[..4] != MARK {
        return None;
    }
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let check = blake3::keyed_hash(key, &head[..24]);
    (length <= MAX_BODY && head[24..] == check.as_bytes()[..8]).then_some(length)
}

/// The body of the frame at the start of `bytes`, if both its checks hold.
pub fn body<'a>(bytes: &'a [u8], key: &CheckKey) -> Option<&'a [u8]> {
    let length = body_len(bytes, key)?;
    let body = bytes.get(FRAME_HEAD..FRAME_HEAD + length)?;
    (bytes[8..24] == blake3::keyed_hash(key, body).as_bytes()[..16]).then_some(body)
}

/// What a body says; `None` for one of no kind that is known.
pub fn decode(body: &[u8]) -> Option<Frame<'_>> {
    let (&kind, rest) = body.split_first()?;
    let mut rest = Reader(rest);
    match kind {
        PUT => Some(Frame::Put {
            sequence: rest.u64()?,
            record: rest.record()?,
        }),
        DONE => {
            if !rest.0.len().is_multiple_of(16) {
                return None;
            }
            let mut done = Vec::with_capacity(rest.0.len() / 16);
            while !rest.0.is_empty() {
                done.push((rest.u64()?, rest.u64()?));
            }
            Some(Frame::Done(done))
        }
        LETTER => Some(Frame::Letter {
            at: rest.i64()?,
            reason: rest.text()??,
            record: rest.record()?,
        }),
        _ => None,
    }
}

/// The number of the record and the record, of the body of a `Put`.
pub(super) fn decode_put(body: &[u8]) -> Option<(u64, Record<'_>)> {
    match decode(body)? {
        Frame::Put { sequence, record } => Some((sequence, record)),
        _ => None,
    }
}

fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    out.reserve(128 + record.envelope.len());
    out.extend_from_slice(&record.key);
    out.extend_from_slice(&record.epoch.to_le_bytes());
    out.extend_from_slice(&record.snap.to_le_bytes());
    out.extend_from_slice(&record.stale_until.to_le_bytes());
    out.extend_from_slice(&record.cost.to_le_bytes());
    out.extend_from_slice(&record.created.to_le_bytes());
    out.extend_from_slice(&record.fresh_until.to_le_bytes());
    write_bytes(out, Some(record.tiers.as_bytes()));
    write_bytes(out, record.namespace.map(str::as_bytes));
    write_bytes(out, record.facts);
    out.extend_from_slice(record.envelope);
}

/// A length that does not fit makes the body longer than `MAX_BODY`, which is refused.
fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(ABSENT, |bytes| {
        u32::try_from(bytes.len()).unwrap_or(ABSENT - 1)
    });
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// The outer `None` is a body that ends too soon, the inner one a field that is absent.
    #[expect(clippy::option_option, reason = "two things that can be missing")]
    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        if length == ABSENT {
            return Some(None);
        }
        self.take(length as usize).map(Some)
    }

    #[expect(clippy::option_option, reason = "two things that can be missing")]
    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.bytes()? {
            Some(bytes) => std::str::from_utf8(bytes).ok().map(Some),
            None => Some(None),
        }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let key = self.take(32)?.try_into().ok()?;
        let (epoch, snap) = (self.u64()?, self.u64()?);
        let (stale_until, cost) = (self.i64()?, self.u64()?);
        let (created, fresh_until) = (self.i64()?, self.i64()?);
        let tiers = self.text()??;
        let (namespace, facts) = (self.text()?, self.bytes()?);
        Some(Record {
            key,
            epoch,
            snap,
            stale_until,
            cost,
            created,
            fresh_until,
            tiers,
            namespace,
            facts,
            envelope: std::mem::take(&mut self.0),
        })
    }
}
