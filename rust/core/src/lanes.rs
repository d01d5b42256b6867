//! What calls of BLAKE3's vector code need: the hash of several inputs of one size, side by side.
//!
//! The `blake3` crate offers that code (`blake3::platform`) without the constants it is called with, which are
//! those of section 2 of the paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020). The tests of the
//! fingerprint and of the envelope compare what comes of them with `blake3::hash`.

/// Bytes of a digest.
pub(crate) const DIGEST: usize = 32;
/// Inputs hashed at once: lanes of the widest instruction set BLAKE3 knows.
pub(crate) const LANES: usize = 16;
/// Bytes that the vector code reads, and does not use, beyond an input: up to 48 with AVX-512, 16 with AVX2 (it
/// loads a register of the first of two or four inputs, and then overwrites what is not of that input). In BLAKE3
/// the next chunk follows; who hashes an input that may be the last thing in its allocation leaves that much room.
pub(crate) const BEYOND: usize = 48;
/// The chaining value that a hash without a key begins with.
pub(crate) const IV: [u32; 8] = [
    0x6A09_E667,
    0xBB67_AE85,
    0x3C6E_F372,
    0xA54F_F53A,
    0x510E_527F,
    0x9B05_688C,
    0x1F83_D9AB,
    0x5BE0_CD19,
];
/// Flags of a block: the first of its chunk, the last, and of the root of the tree.
pub(crate) const CHUNK_START: u8 = 1;
pub(crate) const CHUNK_END: u8 = 1 << 1;
pub(crate) const ROOT: u8 = 1 << 3;
