//! The wire form of a stored record: a fixed header, the namespace, the facts, the payload, a checksum.
//!
//! What belongs here: bytes to fields and back, and the refusal of bytes that are not a record. What does
//! not: whether a record is fresh or valid (that needs a clock and the markers), compression, encryption.
//!
//! Specified byte by byte in `docs/reference/envelope.md`, with vectors in `tests/golden/envelope_v1.json`.
//! All integers are little-endian. The decoder works on a borrowed slice, allocates nothing, reads every
//! length before it trusts it, and never panics, whatever the bytes are.

use thiserror::Error;

/// The first four bytes of every record.
pub const MAGIC: [u8; 4] = *b"LCFE";
/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Flag bit reserved for a compressed payload. Not known to version 1.
pub const FLAG_COMPRESSED: u16 = 1 << 0;
/// Flag bit reserved for an encrypted and authenticated record. Not known to version 1.
pub const FLAG_SEALED: u16 = 1 << 1;
/// Bytes before the namespace.
pub const HEADER_LEN: usize = 112;
/// Bytes of the truncated BLAKE3 at the end.
pub const CHECKSUM_LEN: usize = 16;
/// Bytes a record takes beyond its namespace, facts and payload.
pub const OVERHEAD: usize = HEADER_LEN + CHECKSUM_LEN;

/// The flags this build understands: none yet.
const KNOWN_FLAGS: u16 = 0;

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

/// A record, borrowed from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// The fixed-size facts.
    pub header: Header,
    /// The namespace of the record; equal to the expected one.
    pub namespace: &'a str,
    /// The variable facts (tags, label, model, usage), opaque here.
    pub facts: &'a [u8],
    /// The stored response.
    pub payload: &'a [u8],
}

/// Why bytes are not a record that answers the question.
///
/// All variants mean the same to a reader, a miss, but are counted apart: `WrongNamespace` and
/// `WrongFingerprint` are incidents, `Version` and `Flags` a newer writer, the rest damage.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the record says it has, or than any record has.
    #[error("the record ends early")]
    Truncated,
    /// More bytes than the record says it has.
    #[error("bytes follow the end of the record")]
    Trailing,
    /// Not a record at all.
    #[error("not a record of this cache")]
    BadMagic,
    /// Written by another version of the format.
    #[error("record format version {0} is unknown")]
    Version(u16),
    /// Written with features this build does not have.
    #[error("record flags {0:#06x} are unknown")]
    Flags(u16),
    /// The bytes changed after they were written.
    #[error("the checksum does not match")]
    Checksum,
    /// A kind this version does not define.
    #[error("kind {0} is unknown")]
    Kind(u8),
    /// A content type this version does not define.
    #[error("content type {0} is unknown")]
    ContentType(u8),
    /// The namespace is not UTF-8.
    #[error("the namespace is not UTF-8")]
    NamespaceText,
    /// An intact record of another namespace.
    #[error("the record belongs to another namespace")]
    WrongNamespace,
    /// An intact record of another request.
    #[error("the record belongs to another fingerprint")]
    WrongFingerprint,
}

impl DecodeError {
    /// A short stable name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::BadMagic => "bad_magic",
            Self::Version(_) => "version",
            Self::Flags(_) => "flags",
            Self::Checksum => "checksum",
            Self::Kind(_) => "kind",
            Self::ContentType(_) => "content_type",
            Self::NamespaceText => "namespace_text",
            Self::WrongNamespace => "wrong_namespace",
            Self::WrongFingerprint => "wrong_fingerprint",
        }
    }
}

/// Why fields cannot be a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The namespace does not fit its 16-bit length.
    #[error(
        "the namespace takes {0} bytes of UTF-8; at most 65535 fit a record: use a shorter name"
    )]
    Namespace(usize),
    /// The facts do not fit their 32-bit length.
    #[error("the facts take {0} bytes; at most 4294967295 fit a record: store fewer tags")]
    Facts(usize),
}

/// The record's bytes.
///
/// Cost: one allocation of the exact size, one copy, one BLAKE3 pass.
///
/// # Errors
/// `EncodeError` when the namespace or the facts do not fit their length fields.
pub fn encode(
    header: &Header,
    namespace: &str,
    facts: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, EncodeError> {
    let namespace_len =
        u16::try_from(namespace.len()).map_err(|_| EncodeError::Namespace(namespace.len()))?;
    let facts_len = u32::try_from(facts.len()).map_err(|_| EncodeError::Facts(facts.len()))?;
    let mut out = Vec::with_capacity(OVERHEAD + namespace.len() + facts.len() + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&KNOWN_FLAGS.to_le_bytes());
    out.push(header.kind as u8);
    out.push(header.content_type as u8);
    out.extend_from_slice(&namespace_len.to_le_bytes());
    out.extend_from_slice(&facts_len.to_le_bytes());
    out.extend_from_slice(&header.epoch.to_le_bytes());
    out.extend_from_slice(&header.snap.to_le_bytes());
    out.extend_from_slice(&header.created.to_le_bytes());
    out.extend_from_slice(&header.fresh_until.to_le_bytes());
    out.extend_from_slice(&header.stale_until.to_le_bytes());
    out.extend_from_slice(&header.compute_micros.to_le_bytes());
    out.extend_from_slice(&header.cost.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(&header.fingerprint);
    debug_assert_eq!(out.len(), HEADER_LEN);
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(facts);
    out.extend_from_slice(payload);
    let checksum = blake3::hash(&out);
    out.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    Ok(out)
}

/// Read a record back, if it is an intact one of this namespace and fingerprint.
///
/// The epoch is returned, not compared: validity belongs to whoever knows the markers.
/// Cost: one BLAKE3 pass over `bytes`; nothing is allocated.
///
/// # Errors
/// The first [`DecodeError`] in the order of `docs/reference/envelope.md`.
pub fn decode<'a>(
    bytes: &'a [u8],
    expected_namespace: &str,
    expected_fingerprint: &[u8; 32],
) -> Result<View<'a>, DecodeError> {
    let view = inspect(bytes)?;
    if view.namespace != expected_namespace {
        return Err(DecodeError::WrongNamespace);
    }
    if view.header.fingerprint != *expected_fingerprint {
        return Err(DecodeError::WrongFingerprint);
    }
    Ok(view)
}

/// Read a record whoever it belongs to: for tools that list a store, never for an answer.
///
/// # Errors
/// As [`decode`], without the two about whom the record belongs to.
pub fn inspect(bytes: &[u8]) -> Result<View<'_>, DecodeError> {
    let mut fields = Fields { rest: bytes };
    // Bytes that are too short for a magic are called truncated, not foreign.
    if fields.take::<4>()? != MAGIC {
        return Err(DecodeError::BadMagic);
    }
    // Version and flags come before the checksum: another version may define another one.
    let version = fields.u16()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let flags = fields.u16()?;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(DecodeError::Flags(flags));
    }
    let [kind, content_type] = fields.take::<2>()?;
    let namespace_len = usize::from(fields.u16()?);
    let facts_len = u64::from(fields.u32()?);
    let epoch = fields.u64()?;
    let snap = fields.u64()?;
    let created = fields.u64()?.cast_signed();
    let fresh_until = fields.u64()?.cast_signed();
    let stale_until = fields.u64()?.cast_signed();
    let compute_micros = fields.u64()?;
    let cost = fields.u64()?;
    let payload_len = fields.u64()?;
    let fingerprint = fields.take::<32>()?;

    let total = (OVERHEAD as u64 + namespace_len as u64 + facts_len)
        .checked_add(payload_len)
        .ok_or(DecodeError::Truncated)?;
    match (bytes.len() as u64).cmp(&total) {
        std::cmp::Ordering::Less => return Err(DecodeError::Truncated),
        std::cmp::Ordering::Greater => return Err(DecodeError::Trailing),
        std::cmp::Ordering::Equal => {}
    }
    // From here on the lengths are known to fit the slice.
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
    if blake3::hash(body).as_bytes()[..CHECKSUM_LEN] != *checksum {
        return Err(DecodeError::Checksum);
    }
    let kind = Kind::from_code(kind).ok_or(DecodeError::Kind(kind))?;
    let content_type =
        ContentType::from_code(content_type).ok_or(DecodeError::ContentType(content_type))?;
    let (namespace, rest) = body[HEADER_LEN..].split_at(namespace_len);
    let facts_len = usize::try_from(facts_len).map_err(|_| DecodeError::Truncated)?;
    let (facts, payload) = rest.split_at(facts_len);
    let namespace = std::str::from_utf8(namespace).map_err(|_| DecodeError::NamespaceText)?;
    let header = Header {
        kind,
        content_type,
        epoch,
        snap,
        created,
        fresh_until,
        stale_until,
        compute_micros,
        cost,
        fingerprint,
    };
    Ok(View {
        header,
        namespace,
        facts,
        payload,
    })
}

/// Reads fixed-size fields off the front of a slice.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}
