//! The wire form of a stored record: fixed fields, the namespace, the facts, the payload, and a checksum or a
//! seal.
//!
//! What belongs here: bytes to fields and back, and the refusal of bytes that are not a record: `fields` the
//! fixed part, `compress` the payload, `seal` encryption, `refusal` the reasons. What does not: whether a
//! record is fresh or valid (that needs a clock and the markers), where keys come from.
//!
//! Specified byte by byte in `docs/reference/envelope.md`, with vectors in `tests/golden/envelope_v1.json`.
//! All integers are little-endian. The decoder reads every length before it trusts it and never panics,
//! whatever the bytes are. It allocates a copy of a sealed record, and of a compressed payload what the record
//! declares, up to [`MAX_UNPACKED`]; nothing else.

use std::borrow::Cow;

use ring::rand::{SecureRandom, SystemRandom};

use crate::keyring::{KEY_ID_LEN, Key, Keyring};

mod checksums;
mod compress;
pub mod facts;
mod fields;
mod refusal;
mod seal;

pub use checksums::intact;
pub use compress::{COMPRESS_FROM, MAX_UNPACKED, WORTH};
pub use fields::{ContentType, Header, Kind};
pub use refusal::{DecodeError, EncodeError};
pub use seal::{SALT_LEN, TAG_LEN};

use fields::{FIELDS_LEN, Lengths, Raw, Reader};

/// The first four bytes of every record.
pub const MAGIC: [u8; 4] = *b"LCFE";
/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Flag bit of a compressed payload.
pub const FLAG_COMPRESSED: u16 = 1 << 0;
/// Flag bit of an encrypted and authenticated record.
pub const FLAG_SEALED: u16 = 1 << 1;
/// The flags this build understands.
const KNOWN_FLAGS: u16 = FLAG_COMPRESSED | FLAG_SEALED;

/// Bytes that every record begins with: magic, version, flags, epoch.
pub const PREFIX_LEN: usize = 16;
/// Bytes before the namespace of a record that is not sealed.
pub const HEADER_LEN: usize = PREFIX_LEN + FIELDS_LEN;
/// Bytes of the truncated BLAKE3 at the end of a record that is not sealed.
pub const CHECKSUM_LEN: usize = 16;
/// Bytes a record takes beyond its namespace, facts and stored payload.
pub const OVERHEAD: usize = HEADER_LEN + CHECKSUM_LEN;
/// Bytes of a sealed record that stand in clear: the prefix, the key's id, the salt.
pub const CLEAR_LEN: usize = PREFIX_LEN + KEY_ID_LEN + SALT_LEN;
/// As [`OVERHEAD`], of a sealed record.
pub const SEALED_OVERHEAD: usize = CLEAR_LEN + FIELDS_LEN + TAG_LEN;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// The fixed-size facts.
    pub header: Header,
    /// The namespace of the record; equal to the expected one.
    pub namespace: &'a str,
    /// The variable facts (tags, label, model, usage), opaque here.
    pub facts: &'a [u8],
    /// The stored response; owned when it had to be unpacked.
    pub payload: Cow<'a, [u8]>,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form<'a> {
    /// Whether the payload is compressed where that pays.
    pub compress: bool,
    /// Seals the record with the ring's current key.
    pub keyring: Option<&'a Keyring>,
}

/// What a reader asks for, and what it can open.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The namespace the record must be of.
    pub namespace: &'a str,
    /// The request it must answer.
    pub fingerprint: &'a [u8; 32],
    /// With a ring, records must be sealed by one of its keys, unless it accepts plain ones.
    pub keyring: Option<&'a Keyring>,
}

/// The record's bytes.
///
/// Cost: one allocation of the size before compression, one copy; plain, one BLAKE3 pass; sealed, one pass of
/// AES-GCM and a system call for the salt; compressed, an allocation and zstd's work.
///
/// # Errors
/// `EncodeError` when a part does not fit its length field, or the system gives no random bytes.
pub fn encode(
    header: &Header,
    namespace: &str,
    facts: &[u8],
    payload: &[u8],
    form: Form<'_>,
) -> Result<Vec<u8>, EncodeError> {
    let mut salt = [0; SALT_LEN];
    if form.keyring.is_some() {
        // Asked each time: a buffer of randomness would be shared with a forked child.
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| EncodeError::Random)?;
    }
    encode_salted(header, namespace, facts, payload, form, &salt)
}

/// [`encode`] with a given salt: for published vectors. A salt that is used twice with one key gives both
/// records away.
///
/// # Errors
/// As [`encode`].
#[doc(hidden)]
pub fn encode_salted(
    header: &Header,
    namespace: &str,
    facts: &[u8],
    payload: &[u8],
    form: Form<'_>,
    salt: &[u8; SALT_LEN],
) -> Result<Vec<u8>, EncodeError> {
    let packed = if form.compress {
        compress::pack(payload)
    } else {
        None
    };
    let stored = packed.as_deref().unwrap_or(payload);
    let lengths = Lengths {
        namespace: u16::try_from(namespace.len())
            .map_err(|_| EncodeError::Namespace(namespace.len()))?,
        facts: u32::try_from(facts.len()).map_err(|_| EncodeError::Facts(facts.len()))?,
        payload: u32::try_from(stored.len()).map_err(|_| EncodeError::Payload(stored.len()))?,
        size: u32::try_from(payload.len()).map_err(|_| EncodeError::Payload(payload.len()))?,
    };
    let key = form.keyring.map(Keyring::current);
    let mut flags = 0;
    if packed.is_some() {
        flags |= FLAG_COMPRESSED;
    }
    if key.is_some() {
        flags |= FLAG_SEALED;
    }
    let variable = namespace.len() + facts.len() + stored.len();
    let mut out = Vec::with_capacity(SEALED_OVERHEAD + variable);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&header.epoch.to_le_bytes());
    if let Some(key) = key {
        out.extend_from_slice(&key.id());
        out.extend_from_slice(salt);
    }
    fields::write(&mut out, header, lengths);
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(facts);
    out.extend_from_slice(stored);
    if let Some(key) = key {
        let fingerprint = &header.fingerprint;
        seal::seal(&mut out, CLEAR_LEN, key, salt, fingerprint, namespace)
            .ok_or(EncodeError::Payload(payload.len()))?;
    } else {
        let checksum = blake3::hash(&out);
        out.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    }
    Ok(out)
}

/// Read a record back, if it is an intact one of what was asked for. `room` takes what had to be decrypted.
///
/// The epoch is returned, not compared: validity belongs to whoever knows the markers.
/// Cost: plain, one BLAKE3 pass over `bytes`; sealed, one copy and one pass of AES-GCM; compressed, an
/// allocation of the payload's size and zstd's work.
///
/// # Errors
/// The first [`DecodeError`] in the order of `docs/reference/envelope.md`.
pub fn decode<'a>(
    bytes: &'a [u8],
    asked: Asked<'_>,
    room: &'a mut Vec<u8>,
) -> Result<View<'a>, DecodeError> {
    decode_checked(bytes, asked, room, false)
}

/// As [`decode`]; of a record of which [`intact`] has said that it is, the checksum is not looked at again.
///
/// # Errors
/// As [`decode`].
pub fn decode_checked<'a>(
    bytes: &'a [u8],
    asked: Asked<'_>,
    room: &'a mut Vec<u8>,
    intact: bool,
) -> Result<View<'a>, DecodeError> {
    let mut reader = Reader(bytes);
    let (flags, epoch) = prefix(&mut reader)?;
    let sealed = flags & FLAG_SEALED != 0;
    let body = if sealed {
        let key = opener(&mut reader, asked.keyring)?;
        let salt = reader.take::<SALT_LEN>()?;
        let (fingerprint, namespace) = (asked.fingerprint, asked.namespace);
        seal::open(bytes, CLEAR_LEN, key, &salt, fingerprint, namespace, room)?
    } else {
        if asked.keyring.is_some_and(|ring| !ring.accepts_plain()) {
            return Err(DecodeError::Unsealed);
        }
        plain_body(bytes)?
    };
    let raw = Raw::read(body)?;
    raw.lengths.fit(body)?;
    // A seal has said it already.
    if !sealed && !intact {
        check(bytes)?;
    }
    view(body, &raw, epoch, flags & FLAG_COMPRESSED != 0, asked)
}

/// What a record says of itself, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The fixed-size facts.
    pub header: Header,
    /// The namespace it is of.
    pub namespace: &'a str,
    /// The variable facts.
    pub facts: &'a [u8],
}

/// The facts of a record that nobody asked for, as one meets it on a walk through a tier. Never for an answer:
/// that is [`decode`]'s, which knows the question (I9).
///
/// The record is intact, and a sealed one is bound to the namespace and the fingerprint it says; whether it
/// stands under the right name is for the caller to compare. With a ring or without, plain records are read.
/// Cost: as [`decode`], with two more blocks of AES and nothing unpacked.
///
/// # Errors
/// As [`decode`], but for the three that compare with what was asked for.
pub fn examine<'a>(
    bytes: &'a [u8],
    keyring: Option<&Keyring>,
    room: &'a mut Vec<u8>,
) -> Result<Seen<'a>, DecodeError> {
    let mut reader = Reader(bytes);
    let (flags, epoch) = prefix(&mut reader)?;
    let body = if flags & FLAG_SEALED != 0 {
        let key = opener(&mut reader, keyring)?;
        let salt = reader.take::<SALT_LEN>()?;
        // What it is bound to is inside. What is read there is believed when the seal, which covers it, holds.
        let fields = seal::peek(bytes, CLEAR_LEN, key, &salt, FIELDS_LEN)?;
        let raw = Raw::read(&fields)?;
        let length = FIELDS_LEN + usize::from(raw.lengths.namespace);
        let named = seal::peek(bytes, CLEAR_LEN, key, &salt, length)?;
        let namespace =
            std::str::from_utf8(&named[FIELDS_LEN..]).map_err(|_| DecodeError::Unauthentic)?;
        let fingerprint = raw.fingerprint();
        seal::open(bytes, CLEAR_LEN, key, &salt, fingerprint, namespace, room)?
    } else {
        check(bytes)?;
        plain_body(bytes)?
    };
    let raw = Raw::read(body)?;
    raw.lengths.fit(body)?;
    let (namespace, rest) = body[FIELDS_LEN..].split_at(usize::from(raw.lengths.namespace));
    Ok(Seen {
        header: raw.header(epoch)?,
        namespace: std::str::from_utf8(namespace).map_err(|_| DecodeError::NamespaceText)?,
        facts: &rest[..raw.lengths.facts as usize],
    })
}

/// Flags and epoch.
fn prefix(reader: &mut Reader<'_>) -> Result<(u16, u64), DecodeError> {
    // Bytes that are too short for a magic are called truncated, not foreign.
    if reader.take::<4>()? != MAGIC {
        return Err(DecodeError::BadMagic);
    }
    // Version and flags come first of all: another version may define another rest.
    let version = reader.u16()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let flags = reader.u16()?;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(DecodeError::Flags(flags));
    }
    Ok((flags, reader.u64()?))
}

fn plain_body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    bytes
        .get(PREFIX_LEN..bytes.len().saturating_sub(CHECKSUM_LEN))
        .ok_or(DecodeError::Truncated)
}

fn opener<'a>(
    reader: &mut Reader<'_>,
    keyring: Option<&'a Keyring>,
) -> Result<&'a Key, DecodeError> {
    let id = reader.take::<KEY_ID_LEN>()?;
    keyring
        .ok_or(DecodeError::NoKey)?
        .find(id)
        .ok_or(DecodeError::UnknownKey)
}

fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let (body, checksum) = bytes
        .split_at_checked(bytes.len().wrapping_sub(CHECKSUM_LEN))
        .ok_or(DecodeError::Truncated)?;
    if blake3::hash(body).as_bytes()[..CHECKSUM_LEN] == *checksum {
        Ok(())
    } else {
        Err(DecodeError::Checksum)
    }
}

/// The record of a body that is whole, as long as its lengths say.
fn view<'a>(
    body: &'a [u8],
    raw: &Raw,
    epoch: u64,
    compressed: bool,
    asked: Asked<'_>,
) -> Result<View<'a>, DecodeError> {
    let lengths = raw.lengths;
    let header = raw.header(epoch)?;
    let (namespace, rest) = body[FIELDS_LEN..].split_at(usize::from(lengths.namespace));
    let (facts, stored) = rest.split_at(lengths.facts as usize);
    let namespace = std::str::from_utf8(namespace).map_err(|_| DecodeError::NamespaceText)?;
    if namespace != asked.namespace {
        return Err(DecodeError::WrongNamespace);
    }
    if header.fingerprint != *asked.fingerprint {
        return Err(DecodeError::WrongFingerprint);
    }
    // Unpacked last: no work for records that answer another question.
    let payload = if compressed {
        Cow::Owned(compress::unpack(stored, lengths.size)?)
    } else if lengths.size == lengths.payload {
        Cow::Borrowed(stored)
    } else {
        return Err(DecodeError::Size);
    };
    Ok(View {
        header,
        namespace,
        facts,
        payload,
    })
}
