//! The keys that seal records: one that writes, any number that read.
//!
//! What belongs here: what is derived from a key, and finding it by its id. What does not: where keys come
//! from (that is the binding's caller), how a record is sealed (`envelope::seal`).

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

const SEALING: &str = "llmcache_fast 2026-11-24 sealing of stored records, version 1";
const KEY_ID: &str = "llmcache_fast 2026-11-24 id of a key, version 1";

/// Bytes of a key's id.
pub const KEY_ID_LEN: usize = 8;

/// One key: what is derived from it, never itself. Wiped when dropped; says nothing of itself but its id.
pub struct Key {
    id: [u8; KEY_ID_LEN],
    sealing: Zeroizing<[u8; 32]>,
}

impl Key {
    /// From 32 secret bytes of full entropy, not a password.
    pub fn new(master: &[u8; 32]) -> Self {
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&blake3::derive_key(KEY_ID, master)[..KEY_ID_LEN]);
        Self {
            id,
            sealing: Zeroizing::new(blake3::derive_key(SEALING, master)),
        }
    }

    /// What records say of the key that sealed them. Derived one way: it says nothing about the key.
    pub fn id(&self) -> [u8; KEY_ID_LEN] {
        self.id
    }

    pub(crate) fn sealing(&self) -> &[u8; 32] {
        &self.sealing
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", u64::from_be_bytes(self.id))
    }
}

/// Why keys are no ring.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyringError {
    /// No key at all.
    #[error("a ring needs at least one key")]
    Empty,
    /// Two of one id, which means twice the same.
    #[error("the same key is there twice")]
    Twice,
}

/// Keys to seal and to open with.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<Key>,
    accept_plain: bool,
}

impl Keyring {
    /// The first key seals; all of them open. With `accept_plain`, records that are not sealed are read too:
    /// for the time in which sealing is introduced, since whoever can write to the store can write such ones.
    ///
    /// # Errors
    /// [`KeyringError`] when there is no key, or one twice.
    pub fn new(keys: Vec<Key>, accept_plain: bool) -> Result<Self, KeyringError> {
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        if (1..keys.len()).any(|at| keys[..at].iter().any(|key| key.id == keys[at].id)) {
            return Err(KeyringError::Twice);
        }
        Ok(Self { keys, accept_plain })
    }

    /// The key that seals.
    pub fn current(&self) -> &Key {
        &self.keys[0]
    }

    /// The key of an id.
    pub fn find(&self, id: [u8; KEY_ID_LEN]) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Whether records that are not sealed are read.
    pub fn accepts_plain(&self) -> bool {
        self.accept_plain
    }
}
