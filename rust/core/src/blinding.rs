//! Names that tiers see, from which nothing can be learnt without a secret.
//!
//! A fingerprint names a request to whoever can guess it: one who reads a store could ask whether a given prompt
//! is in it. Blinded, the name is BLAKE3 of the fingerprint, keyed with the secret. The 64-bit targets of
//! invalidations have to be found again from what an authority tells, so they go through a keyed permutation.
//! This happens at the edge of the tiers; memory, flights and markers in the process know the true names.

use std::fmt;

use zeroize::Zeroizing;

const NAMES: &str = "llmcache_fast 2026-11-24 blinded names of entries, version 1";
const TARGETS: &str = "llmcache_fast 2026-11-24 blinded invalidation targets, version 1";

/// A Feistel network with independent random round functions cannot be told from a random permutation, even
/// when asked in both directions, by far fewer than 2^32 questions from six rounds on (Luby and Rackoff, SIAM
/// J. Comput. 1988, for four and 2^16; Patarin, CRYPTO 2004, for six). Two more for good measure.
const ROUNDS: u8 = 8;

/// What is derived from a blinding secret. Wiped when dropped.
pub struct Blinding {
    names: Zeroizing<[u8; 32]>,
    targets: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinding")
    }
}

impl Blinding {
    /// From 32 secret bytes of full entropy.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            names: Zeroizing::new(blake3::derive_key(NAMES, secret)),
            targets: Zeroizing::new(blake3::derive_key(TARGETS, secret)),
        }
    }

    /// What tiers call the entry of a fingerprint. One compression of BLAKE3.
    pub fn tier_key(&self, fingerprint: &[u8; 32]) -> [u8; 32] {
        *blake3::keyed_hash(&self.names, fingerprint).as_bytes()
    }

    /// What authorities call an invalidation target or a namespace. Eight compressions of BLAKE3.
    pub fn tier_target(&self, target: u64) -> u64 {
        let (left, right) = halves(target);
        let (left, right) = (0..ROUNDS).fold((left, right), |(left, right), round| {
            (right, left ^ self.round(round, right))
        });
        joined(left, right)
    }

    /// The opposite of [`Blinding::tier_target`].
    pub fn target(&self, blinded: u64) -> u64 {
        let (left, right) = halves(blinded);
        let (left, right) = (0..ROUNDS)
            .rev()
            .fold((left, right), |(left, right), round| {
                (right ^ self.round(round, left), left)
            });
        joined(left, right)
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        let [a, b, c, d] = half.to_le_bytes();
        let hash = blake3::keyed_hash(&self.targets, &[round, a, b, c, d]);
        let mut first = [0; 4];
        first.copy_from_slice(&hash.as_bytes()[..4]);
        u32::from_le_bytes(first)
    }
}

fn halves(number: u64) -> (u32, u32) {
    let bytes = number.to_le_bytes();
    let ([low, high], []) = bytes.as_chunks() else {
        unreachable!("eight bytes are two halves")
    };
    (u32::from_le_bytes(*low), u32::from_le_bytes(*high))
}

fn joined(left: u32, right: u32) -> u64 {
    u64::from(left) | u64::from(right) << 32
}
