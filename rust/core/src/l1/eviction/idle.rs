//! How long entries lie idle before they are used again, and what follows from that.
//!
//! `GreedyDual` lets an entry lie idle until the level has risen by its gain, which is long for a
//! dear one. That is right where reuse is spread over time and wrong where it comes in bursts (an
//! agent's session: tight reuse, then silence for ever); there dear dead entries fill the cache.
//! So idle times, in multiples of the typical gain of a victim, are counted by how they end, in a
//! hit or in eviction, and two rules follow:
//! - *horizon*: the idle time from which on less than 1 in 32 endings is a hit caps every gain. One
//!   entry in 16, by key, is exempt and keeps the evidence coming;
//! - *patience*: if at least 1 in 16 idle times beyond one typical gain ends in a hit, reuse is
//!   spread over time, and a newcomer may be refused even after some victims have gone for it.

/// Idle times of `2^k` to `2^(k+1)` typical gains; shorter ones carry no evidence for either rule.
const BUCKETS: usize = 12;
/// Endings needed before anything is concluded: the least number that can show 1 in 32.
const ENOUGH: u32 = 32;
/// And one for so many entries held: while a cache fills nothing is hit after a long idle time yet, so
/// that its first evictions alone would say that nothing ever is.
const HELD_PER_ENDING: usize = 8;
/// Counts are halved after this many endings, or four per entry held if that is more.
const WINDOW: u32 = 1024;
/// Below 1 hit in this many endings an idle time is hopeless. Session traces show 0 to 2 %, others
/// 20 to 50 %: anything from 1 in 8 to 1 in 40 replays alike.
const HOPELESS: u32 = 32;
/// At least 1 hit in this many endings makes for patience; 1 in 5 is too strict, 1 in 20 the same.
const PATIENT: u32 = 16;
/// One key in this many is exempt from the horizon.
const EXEMPT: u64 = 16;

#[derive(Debug)]
pub(super) struct Idle {
    hits: [u32; BUCKETS],
    evictions: [u32; BUCKETS],
    endings: u32,
    /// In typical gains; infinite without evidence.
    pub(super) horizon: f32,
    pub(super) patient: bool,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            hits: [0; BUCKETS],
            evictions: [0; BUCKETS],
            endings: 0,
            horizon: f32::INFINITY,
            patient: false,
        }
    }
}

/// Whether the horizon does not apply to a key.
#[inline]
pub(super) fn is_exempt(hash: u64) -> bool {
    (hash >> 50).is_multiple_of(EXEMPT)
}

/// Bucket of an idle time of at least one typical gain: the exponent of a float.
#[inline]
fn bucket(idle: f32) -> usize {
    let exponent = (idle.to_bits() >> 23) as usize;
    exponent.saturating_sub(127).min(BUCKETS - 1)
}

impl Idle {
    /// An idle time, in typical gains, ended in a hit.
    #[inline]
    pub(super) fn hit(&mut self, idle: f32) {
        if idle >= 1.0 {
            self.hits[bucket(idle)] += 1;
        }
    }

    /// An idle time not cut short by the horizon ended in eviction.
    pub(super) fn evicted(&mut self, idle: f32, held: usize) {
        self.endings += 1;
        if self.endings as usize > (held * 4).max(WINDOW as usize) {
            self.endings = 0;
            for count in self.hits.iter_mut().chain(&mut self.evictions) {
                *count /= 2;
            }
        }
        if idle >= 1.0 {
            self.evictions[bucket(idle)] += 1;
            self.conclude(held);
        }
    }

    fn conclude(&mut self, held: usize) {
        self.horizon = f32::INFINITY;
        let enough = ENOUGH.max(u32::try_from(held / HELD_PER_ENDING).unwrap_or(u32::MAX));
        let (mut hits, mut all) = (0, 0);
        let mut edge = f32::from(1_u16 << BUCKETS);
        for k in (0..BUCKETS).rev() {
            edge /= 2.0;
            hits += self.hits[k];
            all += self.hits[k] + self.evictions[k];
            if all >= enough && hits * HOPELESS < all {
                self.horizon = edge;
            }
        }
        self.patient = all >= enough && hits * PATIENT >= all;
    }
}
