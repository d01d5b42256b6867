//! Which entry goes when room is needed: one trait, one file per policy.
//!
//! What belongs here: decisions over slots, sizes, costs and times of access. What does not:
//! storage, locks, clocks; the shard owns those, and every policy is run by the same shard.

mod gdsf;
mod ghosts;
mod greedy;
mod idle;
mod lru;
mod ours;
mod queue;
mod s3fifo;
mod sieve;
mod sketch;
mod wtinylfu;

use super::entry::Touch;

pub use gdsf::Gdsf;
pub use lru::Lru;
pub use ours::Ours;
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;
pub use wtinylfu::WTinyLfu;

/// The slots of a shard as a policy sees them.
pub trait Nodes<N> {
    /// Data written on hits.
    fn touch(&self, slot: u32) -> Touch;
    /// Data written on hits.
    fn touch_mut(&mut self, slot: u32) -> &mut Touch;
    /// The policy's own data.
    fn node(&self, slot: u32) -> &N;
    /// The policy's own data.
    fn node_mut(&mut self, slot: u32) -> &mut N;
    /// 64 bits of the key.
    fn hash(&self, slot: u32) -> u64;
    /// Bytes that evicting the entry would free, its slot included.
    fn charge(&self, slot: u32) -> u64;
    /// Micro-USD, 0 = unknown.
    fn cost(&self, slot: u32) -> u64;
    /// Entries held.
    fn len(&self) -> usize;
    /// Whether no entry is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An entry about to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// 64 bits of the key.
    pub hash: u64,
    /// Bytes it will be charged with.
    pub charge: u64,
    /// Whether no victim was asked for on its behalf yet.
    pub first: bool,
    /// Micro-USD, 0 = unknown.
    pub cost: u64,
}

/// What to do for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Evict this slot.
    Evict(u32),
    /// Keep all and refuse the candidate.
    Refuse,
}

/// An eviction policy. All calls come under the shard's lock.
pub trait Policy: Sized + Send {
    /// Per-entry data; 12 bytes or less keep the cold half of a slot within a cache line.
    type Node: Copy + Default + Send;

    /// A policy for a shard of `capacity` bytes.
    fn new(capacity: u64) -> Self;
    /// A look-up found the entry. The hot path: touch nothing but the entry's [`Touch`].
    fn hit<S: Nodes<Self::Node>>(&mut self, slots: &mut S, slot: u32);
    /// An entry was stored in `slot`. `again`: over an older entry of its key (size and cost may differ).
    fn stored<S: Nodes<Self::Node>>(&mut self, slots: &mut S, slot: u32, again: bool);
    /// The entry in `slot` is about to leave, by eviction or otherwise.
    fn leaving<S: Nodes<Self::Node>>(&mut self, slots: &mut S, slot: u32, evicted: bool);
    /// Chooses a victim; `None` if nothing is held. `candidate` is what the room is for; absent if it
    /// is stored already.
    fn victim<S: Nodes<Self::Node>>(
        &mut self,
        slots: &mut S,
        candidate: Option<&Candidate>,
    ) -> Option<Verdict>;
    /// Asks for the memory that storing or evicting the key of this hash is going to need.
    fn foresee(&self, _hash: u64) {}
    /// The slots that are most likely the next two victims.
    fn coming<S: Nodes<Self::Node>>(&self, _slots: &S) -> [Option<u32>; 2] {
        [None; 2]
    }
    /// Bytes allocated by the policy.
    fn bytes(&self) -> u64;
}

/// 64 bits of a key, other than those that choose shard and cell.
#[must_use]
pub fn hash(key: &[u8; 32]) -> u64 {
    u64::from_le_bytes([
        key[8], key[9], key[10], key[11], key[12], key[13], key[14], key[15],
    ])
}
