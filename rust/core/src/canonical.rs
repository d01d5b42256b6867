//! The bytes of the canonical form, format version 1.
//!
//! What belongs here: tags, lengths, numbers, order; `docs/reference/fingerprint.md` is the specification.
//! What does not: walking a request (the binding does that straight over the Python objects) and the rules
//! of a profile (`profile`).

#![expect(
    clippy::cast_possible_truncation,
    reason = "bytes are cut out of wider numbers; each is below its bound"
)]

use crate::fingerprint::NODE;

/// Text or bytes of at least this length enter the form as their tree digest.
///
/// One node of the tree: below it a digest of its own saves nothing, above it a remembered digest saves
/// about 0.3 ns a byte (`benches/test_fingerprint.py`).
pub const LONG: usize = NODE;

/// Deepest nesting of arrays, mappings and sets.
pub const MAX_DEPTH: u32 = 128;
/// Most values in one request.
pub const MAX_VALUES: u32 = 1_000_000;
/// Most bytes of text and blobs in one request.
pub const MAX_BYTES: usize = 256 << 20;

/// First bytes of a document: magic and format version.
pub const MAGIC: [u8; 4] = *b"LCF\x01";

const NULL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const INTEGER: u8 = 0x03;
const BIG_INTEGER: u8 = 0x04;
const FLOAT: u8 = 0x05;
const STRING: u8 = 0x06;
const LONG_STRING: u8 = 0x07;
const BYTES: u8 = 0x08;
const LONG_BYTES: u8 = 0x09;
const ARRAY: u8 = 0x0a;
const MAPPING: u8 = 0x0b;
const ORDERED_MAPPING: u8 = 0x0c;
const SET: u8 = 0x0d;

/// What a long value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blob {
    /// UTF-8 text.
    Text,
    /// Raw bytes.
    Bytes,
}

/// A number that is not finite has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// Copies a piece, most of which are shorter than a call to `memcpy` takes: two overlapping words.
#[expect(clippy::inline_always, reason = "a call costs more than the copy")]
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    let n = from.len();
    if n > 32 {
        to.copy_from_slice(from);
    } else if n >= 16 {
        to[..16].copy_from_slice(&from[..16]);
        to[n - 16..].copy_from_slice(&from[n - 16..]);
    } else if n >= 8 {
        to[..8].copy_from_slice(&from[..8]);
        to[n - 8..].copy_from_slice(&from[n - 8..]);
    } else if n >= 4 {
        to[..4].copy_from_slice(&from[..4]);
        to[n - 4..].copy_from_slice(&from[n - 4..]);
    } else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    }
}

/// Appends canonical forms to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    /// All of it is initialised, so that short pieces are stored as whole words; `len` bytes are written.
    buffer: Vec<u8>,
    len: usize,
}

impl Writer {
    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets what was written after `len` bytes; keeps the allocation.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        self.buffer
            .resize((self.len + more).next_power_of_two().max(4096), 0);
    }

    #[inline]
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.buffer.len() - self.len < bytes {
            self.grow(bytes);
        }
        let start = self.len;
        self.len += bytes;
        &mut self.buffer[start..start + bytes]
    }

    /// Appends bytes that already are canonical.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        copy(self.room(bytes.len()), bytes);
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.room(1)[0] = byte;
    }

    #[cold]
    fn long_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.byte((n as u8) | 0x80);
            n >>= 7;
        }
        self.byte(n as u8);
    }

    #[inline]
    fn varint(&mut self, n: u64) {
        if n < 0x80 {
            self.byte(n as u8);
        } else {
            self.long_varint(n);
        }
    }

    #[inline]
    fn tagged(&mut self, tag: u8, n: u64) {
        if n < 0x80 {
            let room = self.room(2);
            room[0] = tag;
            room[1] = n as u8;
        } else {
            self.byte(tag);
            self.long_varint(n);
        }
    }

    /// `None`.
    pub fn null(&mut self) {
        self.byte(NULL);
    }

    /// A bool, which is not a number.
    pub fn boolean(&mut self, value: bool) {
        self.byte(if value { TRUE } else { FALSE });
    }

    /// An integer of 64 bits.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        self.tagged(
            INTEGER,
            (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned(),
        );
    }

    /// An integer beyond 64 bits: its sign and big-endian magnitude (leading zeros are dropped).
    pub fn big_integer(&mut self, negative: bool, magnitude: &[u8]) {
        let start = magnitude
            .iter()
            .position(|&byte| byte != 0)
            .unwrap_or(magnitude.len());
        let digits = &magnitude[start..];
        self.raw(&[BIG_INTEGER, u8::from(negative)]);
        self.varint(digits.len() as u64);
        self.raw(digits);
    }

    /// Any finite float; one with an integral value is that integer.
    ///
    /// # Errors
    /// `NotFinite` for NaN and the infinities.
    pub fn float(&mut self, value: f64) -> Result<(), NotFinite> {
        const TWO_63: f64 = 9_223_372_036_854_775_808.0;
        if !value.is_finite() {
            return Err(NotFinite);
        }
        if value.fract() != 0.0 {
            self.byte(FLOAT);
            self.raw(&value.to_be_bytes());
        } else if (-TWO_63..TWO_63).contains(&value) {
            self.integer(value as i64);
        } else {
            // A double of at least 2^63 is its 53-bit mantissa shifted left.
            let bits = value.to_bits();
            let shift = ((bits >> 52) & 0x7ff) as usize - 1075;
            let mantissa = u128::from((bits & ((1 << 52) - 1)) | (1 << 52)) << (shift % 8);
            let mut magnitude = mantissa.to_be_bytes().to_vec();
            magnitude.resize(magnitude.len() + shift / 8, 0);
            self.big_integer(value < 0.0, &magnitude);
        }
        Ok(())
    }

    /// A short string, `text.len() < LONG`.
    #[inline]
    pub fn short_text(&mut self, text: &[u8]) {
        debug_assert!(text.len() < LONG);
        if text.len() < 0x80 {
            let room = self.room(2 + text.len());
            room[0] = STRING;
            room[1] = text.len() as u8;
            copy(&mut room[2..], text);
        } else {
            self.tagged(STRING, text.len() as u64);
            self.raw(text);
        }
    }

    /// Short bytes, `bytes.len() < LONG`.
    pub fn short_bytes(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() < LONG);
        self.tagged(BYTES, bytes.len() as u64);
        self.raw(bytes);
    }

    /// A long value of `len` bytes by its digest. Returns where the digest stands, for `patch`.
    #[inline]
    pub fn long(&mut self, kind: Blob, len: usize, digest: &[u8; 32]) -> usize {
        debug_assert!(len >= LONG);
        self.tagged(
            if kind == Blob::Text {
                LONG_STRING
            } else {
                LONG_BYTES
            },
            len as u64,
        );
        let at = self.len;
        self.raw(digest);
        at
    }

    /// Puts the digest of a long value where `long` left room.
    pub fn patch(&mut self, at: usize, digest: &[u8; 32]) {
        self.buffer[at..at + 32].copy_from_slice(digest);
    }

    /// Begins an array; its items follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.tagged(ARRAY, count as u64);
    }

    /// Begins a mapping; key and value follow, `count` times, in ascending or (`ordered`) given order.
    #[inline]
    pub fn mapping(&mut self, count: usize, ordered: bool) {
        self.tagged(
            if ordered { ORDERED_MAPPING } else { MAPPING },
            count as u64,
        );
    }

    /// A key of a mapping.
    #[inline]
    pub fn key(&mut self, text: &[u8]) {
        if text.len() < 0x80 {
            let room = self.room(1 + text.len());
            room[0] = text.len() as u8;
            copy(&mut room[1..], text);
        } else {
            self.long_varint(text.len() as u64);
            self.raw(text);
        }
    }

    /// Begins a set; its items' forms follow in ascending order.
    pub fn set(&mut self, count: usize) {
        self.tagged(SET, count as u64);
    }

    /// A whole string of any length, hashed at once.
    pub fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        if bytes.len() < LONG {
            self.short_text(bytes);
        } else {
            self.long(
                Blob::Text,
                bytes.len(),
                &crate::fingerprint::tree_digests(&[bytes])[0],
            );
        }
    }
}
