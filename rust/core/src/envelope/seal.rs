//! Sealing: the record behind its epoch, encrypted and bound to what it answers.
//!
//! AES-256-GCM (NIST SP 800-38D) with a key of its own for each record: BLAKE3 of a random salt of 24 bytes,
//! keyed with the ring's sealing key. That is the construction of DNDK-GCM and XAES-256-GCM, with BLAKE3 as the
//! derivation. A record's key encrypts once, so its nonce is all zeroes; GCM's bound of 2^32 messages with
//! random nonces becomes one on salts, of which 2^80 collide with a probability of 2^-33.
//!
//! The associated data is all that stands in clear (magic, version, flags, epoch, key id, salt), then the
//! fingerprint, then the namespace: all but the last of a fixed length.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::refusal::DecodeError;
use crate::keyring::Key;

/// Bytes of the random salt.
pub const SALT_LEN: usize = 24;
/// Bytes of the authentication tag at the end.
pub const TAG_LEN: usize = 16;

type AssociatedData = SmallVec<[u8; 256]>;

fn associated(clear: &[u8], fingerprint: &[u8; 32], namespace: &str) -> AssociatedData {
    let mut data = AssociatedData::new();
    data.extend_from_slice(clear);
    data.extend_from_slice(fingerprint);
    data.extend_from_slice(namespace.as_bytes());
    data
}

fn record_key(key: &Key, salt: &[u8; SALT_LEN]) -> Option<LessSafeKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(blake3::keyed_hash(key.sealing(), salt).as_bytes());
    let unbound = UnboundKey::new(&AES_256_GCM, &*bytes).ok()?;
    Some(LessSafeKey::new(unbound))
}

/// Encrypts what follows the first `clear` bytes of `record`, in place, and puts the tag behind it.
///
/// None only beyond the 64 GiB that GCM can encrypt, which the lengths of a record exclude.
pub(super) fn seal(
    record: &mut Vec<u8>,
    clear: usize,
    key: &Key,
    salt: &[u8; SALT_LEN],
    fingerprint: &[u8; 32],
    namespace: &str,
) -> Option<()> {
    let data = associated(&record[..clear], fingerprint, namespace);
    let tag = record_key(key, salt)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(&data[..]),
            &mut record[clear..],
        )
        .ok()?;
    record.extend_from_slice(tag.as_ref());
    Some(())
}

/// The opposite of [`seal`]: what was encrypted, in `room`. Costs one copy of the record.
pub(super) fn open<'a>(
    record: &[u8],
    clear: usize,
    key: &Key,
    salt: &[u8; SALT_LEN],
    fingerprint: &[u8; 32],
    namespace: &str,
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], DecodeError> {
    let (clear, sealed) = record
        .split_at_checked(clear)
        .ok_or(DecodeError::Truncated)?;
    if sealed.len() < TAG_LEN {
        return Err(DecodeError::Truncated);
    }
    let data = associated(clear, fingerprint, namespace);
    room.clear();
    room.extend_from_slice(sealed);
    record_key(key, salt)
        .ok_or(DecodeError::Unauthentic)?
        .open_in_place(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(&data[..]),
            room,
        )
        .map(|opened| &*opened)
        .map_err(|_| DecodeError::Unauthentic)
}

/// The first `length` bytes of what was encrypted, **not verified**: only what [`open`] is to be asked with.
///
/// Counter mode is its own opposite, so what encrypts shows them; the tag of that means nothing.
pub(super) fn peek(
    record: &[u8],
    clear: usize,
    key: &Key,
    salt: &[u8; SALT_LEN],
    length: usize,
) -> Result<Vec<u8>, DecodeError> {
    let end = record.len().saturating_sub(TAG_LEN);
    let sealed = record.get(clear..end).ok_or(DecodeError::Truncated)?;
    let mut shown = sealed.get(..length).ok_or(DecodeError::Truncated)?.to_vec();
    let _tag = record_key(key, salt)
        .ok_or(DecodeError::Unauthentic)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::empty(),
            &mut shown,
        )
        .map_err(|_| DecodeError::Unauthentic)?;
    Ok(shown)
}
