//! What is stored: the two halves of a slot, and the faces an entry shows to callers.
//!
//! A slot is split by use. [`Hot`] is one aligned cache line with all that a fresh hit needs;
//! [`Cold`] is a second line read only for stale hits, validity checks, inspection and eviction.

use smallvec::SmallVec;

/// Policy data written on every hit, in the hot line so that a hit dirties one line only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Touch {
    /// 28 bits of hits, 4 bits of uses in earlier stays.
    uses: u32,
    /// What the policy notes at an access: the level of a `GreedyDual`, the mark of a queue.
    pub mark: u32,
}

const HITS: u32 = (1 << 28) - 1;

impl Touch {
    /// Hits since the entry was stored, up to 2^28 - 1.
    #[inline]
    #[must_use]
    pub fn hits(self) -> u32 {
        self.uses & HITS
    }

    /// Uses known from before the entry was stored, up to 15.
    #[inline]
    #[must_use]
    pub fn prior(self) -> u32 {
        self.uses >> 28
    }

    /// Counts a hit.
    #[inline]
    pub fn count(&mut self) {
        if self.hits() < HITS {
            self.uses += 1;
        }
    }

    /// Notes the uses of earlier stays.
    pub fn set_prior(&mut self, prior: u32) {
        self.uses = self.hits() | prior.min(15) << 28;
    }
}

/// 64 bytes for a pointer-sized `V`.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Hot<V> {
    pub(super) key: [u8; 32],
    /// `None` marks a free slot.
    pub(super) value: Option<V>,
    pub(super) fresh_until: i64,
    pub(super) checked: u64,
    pub(super) touch: Touch,
}

/// 64 bytes for policy nodes up to 12 bytes; in one line, as evictions wait for it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Cold<F, N> {
    pub(super) created: i64,
    pub(super) stale_until: i64,
    pub(super) epoch: u64,
    pub(super) snap: u64,
    pub(super) facts: Option<Box<F>>,
    /// Micro-USD, saturating at 4,294 dollars: no single call costs that.
    pub(super) cost: u32,
    /// In a free slot: the next free slot.
    pub(super) payload_bytes: u32,
    pub(super) facts_bytes: u32,
    pub(super) node: N,
}

/// An entry to store. Times are absolute microseconds, [`NEVER`](super::NEVER) for no end.
#[derive(Debug)]
pub struct NewEntry<V, F> {
    /// The fingerprint; used as its own hash, so it must be uniformly distributed.
    pub key: [u8; 32],
    /// What a hit hands out, by clone.
    pub value: V,
    /// Bytes the payload object occupies outside this tier (at most 4 GiB - 1).
    pub payload_bytes: u64,
    /// Whatever the validity check needs, e.g. tags; boxed, so that an entry without costs 8 bytes.
    pub facts: Option<Box<F>>,
    /// Bytes the facts occupy, box included.
    pub facts_bytes: u32,
    /// When the value was computed.
    pub created: i64,
    /// End of freshness.
    pub fresh_until: i64,
    /// End of the stale window; raised to `fresh_until` if below.
    pub stale_until: i64,
    /// What computing it cost, micro-USD; 0 = unknown (taken as the shard's running average).
    pub cost: u64,
    /// Epoch of the clock the stamp belongs to.
    pub epoch: u64,
    /// The invalidation seq known when the computation started.
    pub snap: u64,
    /// Last seq against which validity was checked; usually `snap`.
    pub checked: u64,
}

/// Read access to a stored entry without its value, valid inside a closure.
#[derive(Debug)]
pub struct EntryView<'a, F> {
    pub(super) fresh_until: i64,
    pub(super) checked: u64,
    pub(super) hits: u32,
    pub(super) fields: Fields<'a, F>,
}

/// The cold half seen through [`EntryView`], free of the policy's type.
#[derive(Debug)]
pub(super) struct Fields<'a, F> {
    pub(super) created: &'a i64,
    pub(super) stale_until: &'a i64,
    pub(super) epoch: &'a u64,
    pub(super) snap: &'a u64,
    pub(super) facts: &'a Option<Box<F>>,
    pub(super) cost: &'a u32,
    pub(super) payload_bytes: &'a u32,
}

impl<F> EntryView<'_, F> {
    /// When the value was computed, us.
    pub fn created(&self) -> i64 {
        *self.fields.created
    }
    /// End of freshness, us.
    pub fn fresh_until(&self) -> i64 {
        self.fresh_until
    }
    /// End of the stale window, us.
    pub fn stale_until(&self) -> i64 {
        *self.fields.stale_until
    }
    /// Micro-USD, 0 = unknown.
    pub fn cost(&self) -> u64 {
        u64::from(*self.fields.cost)
    }
    /// Bytes of the payload object.
    pub fn payload_bytes(&self) -> u64 {
        u64::from(*self.fields.payload_bytes)
    }
    /// Epoch of the stamp.
    pub fn epoch(&self) -> u64 {
        *self.fields.epoch
    }
    /// Snap of the stamp.
    pub fn snap(&self) -> u64 {
        *self.fields.snap
    }
    /// Last seq against which validity was checked.
    pub fn checked(&self) -> u64 {
        self.checked
    }
    /// Hits so far, the running one not included.
    pub fn hits(&self) -> u32 {
        self.hits
    }
    /// The facts given at insert.
    pub fn facts(&self) -> Option<&F> {
        self.fields.facts.as_deref()
    }
}

impl<F, N> Cold<F, N> {
    pub(super) fn fields(&self) -> Fields<'_, F> {
        Fields {
            created: &self.created,
            stale_until: &self.stale_until,
            epoch: &self.epoch,
            snap: &self.snap,
            facts: &self.facts,
            cost: &self.cost,
            payload_bytes: &self.payload_bytes,
        }
    }

    /// Bytes outside the slot.
    pub(super) fn outside(&self) -> u64 {
        u64::from(self.payload_bytes) + u64::from(self.facts_bytes)
    }
}

/// Result of a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<V> {
    /// `now < fresh_until`.
    Fresh(V),
    /// `fresh_until <= now < stale_until`.
    Stale(V),
    /// Absent, past `stale_until`, or found invalid (and removed).
    Miss,
}

/// A value that left the tier, for the caller to drop outside every lock.
pub type Parted<V, F> = (V, Option<Box<F>>);

/// Values that left the tier; nothing is dropped while a shard is locked.
pub type Dropped<V, F> = SmallVec<[Parted<V, F>; 2]>;

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new key.
    Stored,
    /// The key was there with an older or equal stamp, another epoch, or past its life.
    Replaced,
    /// An entry of the same epoch with a newer snap stands.
    Older,
    /// Larger than a shard can hold; an older entry of that key is removed all the same.
    TooLarge,
    /// The policy prefers what it holds; an older entry of that key is removed all the same.
    NotAdmitted,
}

/// Outcome of an insert with everything that left because of it, the given value included where
/// it was not stored.
#[derive(Debug)]
#[must_use = "the dropped values are the caller's to drop"]
pub struct Inserted<V, F> {
    /// What happened.
    pub outcome: Outcome,
    /// Evicted, expired, replaced or refused values.
    pub dropped: Dropped<V, F>,
}
