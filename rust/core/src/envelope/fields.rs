//! The fixed-size fields of a record: what they are, and where they stand.

use std::cmp::Ordering;

use super::refusal::DecodeError;

/// Bytes of the fields that are sealed with the rest, from `kind` to `fingerprint`.
pub(super) const FIELDS_LEN: usize = 96;

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A stored response.
    Value = 0,
    /// A remembered refusal of the provider.
    Negative = 1,
    /// The trace of a removed key.
    Tombstone = 2,
}

impl Kind {
    /// The kind of a wire code, if it is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Value),
            1 => Some(Self::Negative),
            2 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// How the payload's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    /// Bytes, as given.
    Bytes = 0,
    /// UTF-8 text.
    Text = 1,
    /// JSON.
    Json = 2,
    /// `MessagePack`.
    Msgpack = 3,
    /// The recorded events of a stream.
    Stream = 4,
}

impl ContentType {
    /// The content type of a wire code, if it is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Bytes),
            1 => Some(Self::Text),
            2 => Some(Self::Json),
            3 => Some(Self::Msgpack),
            4 => Some(Self::Stream),
            _ => None,
        }
    }
}

/// The fixed-size facts of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the entry stands for.
    pub kind: Kind,
    /// How to read the payload.
    pub content_type: ContentType,
    /// First half of the stamp: the life of the invalidation clock the snap was read from.
    pub epoch: u64,
    /// Second half of the stamp: the seq known when the computation started.
    pub snap: u64,
    /// When the entry was made, in microseconds since 1970.
    pub created: i64,
    /// Fresh before this time; `i64::MAX` is never.
    pub fresh_until: i64,
    /// Usable as a stale answer before this time; `i64::MAX` is never.
    pub stale_until: i64,
    /// What the computation took, in microseconds.
    pub compute_micros: u64,
    /// What the computation cost, in micro-USD; 0 when unknown.
    pub cost: u64,
    /// The request's fingerprint.
    pub fingerprint: [u8; 32],
}

/// Lengths of what follows the fields, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    pub(super) namespace: u16,
    pub(super) facts: u32,
    /// As stored.
    pub(super) payload: u32,
    /// Of the payload before compression.
    pub(super) size: u32,
}

impl Lengths {
    /// Whether a body is as long as its parts are together; the sum of three 32-bit numbers fits.
    pub(super) fn fit(self, body: &[u8]) -> Result<(), DecodeError> {
        let whole = FIELDS_LEN as u64
            + u64::from(self.namespace)
            + u64::from(self.facts)
            + u64::from(self.payload);
        match (body.len() as u64).cmp(&whole) {
            Ordering::Less => Err(DecodeError::Truncated),
            Ordering::Greater => Err(DecodeError::Trailing),
            Ordering::Equal => Ok(()),
        }
    }
}

pub(super) fn write(out: &mut Vec<u8>, header: &Header, lengths: Lengths) {
    let start = out.len();
    out.push(header.kind as u8);
    out.push(header.content_type as u8);
    out.extend_from_slice(&lengths.namespace.to_le_bytes());
    out.extend_from_slice(&lengths.facts.to_le_bytes());
    out.extend_from_slice(&header.snap.to_le_bytes());
    out.extend_from_slice(&header.created.to_le_bytes());
    out.extend_from_slice(&header.fresh_until.to_le_bytes());
    out.extend_from_slice(&header.stale_until.to_le_bytes());
    out.extend_from_slice(&header.compute_micros.to_le_bytes());
    out.extend_from_slice(&header.cost.to_le_bytes());
    out.extend_from_slice(&lengths.payload.to_le_bytes());
    out.extend_from_slice(&lengths.size.to_le_bytes());
    out.extend_from_slice(&header.fingerprint);
    debug_assert_eq!(out.len(), start + FIELDS_LEN);
}

/// The fields as they stand there: lengths are not checked, codes not known.
pub(super) struct Raw {
    kind: u8,
    content_type: u8,
    pub(super) lengths: Lengths,
    snap: u64,
    created: i64,
    fresh_until: i64,
    stale_until: i64,
    compute_micros: u64,
    cost: u64,
    fingerprint: [u8; 32],
}

impl Raw {
    pub(super) fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(body);
        let [kind, content_type] = reader.take()?;
        let namespace = reader.u16()?;
        let facts = reader.u32()?;
        Ok(Self {
            kind,
            content_type,
            snap: reader.u64()?,
            created: reader.u64()?.cast_signed(),
            fresh_until: reader.u64()?.cast_signed(),
            stale_until: reader.u64()?.cast_signed(),
            compute_micros: reader.u64()?,
            cost: reader.u64()?,
            lengths: Lengths {
                namespace,
                facts,
                payload: reader.u32()?,
                size: reader.u32()?,
            },
            fingerprint: reader.take()?,
        })
    }

    pub(super) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(super) fn header(&self, epoch: u64) -> Result<Header, DecodeError> {
        Ok(Header {
            kind: Kind::from_code(self.kind).ok_or(DecodeError::Kind(self.kind))?,
            content_type: ContentType::from_code(self.content_type)
                .ok_or(DecodeError::ContentType(self.content_type))?,
            epoch,
            snap: self.snap,
            created: self.created,
            fresh_until: self.fresh_until,
            stale_until: self.stale_until,
            compute_micros: self.compute_micros,
            cost: self.cost,
            fingerprint: self.fingerprint,
        })
    }
}

/// Reads fixed-size fields off the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}
