//! Which entries are past their `stale_until`: a heap of coarse deadlines, no thread, no timer.
//!
//! Only entries with a finite life are in it. The key is the deadline in ticks of 65,536 us
//! counted from the shard's first insert and rounded *up*, so an item that is due is certainly
//! expired; the exact time is checked in the entry on each access. 32 bits of ticks last nine
//! years; a later deadline is treated as never and found on access or by eviction.

use super::{NEVER, heap::Heap};

/// 2^16 us: eight bytes per item hold nine years; a finer tick would need twelve or sixteen.
const TICK_SHIFT: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Expiry {
    heap: Heap,
    base: Option<i64>,
}

impl Expiry {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        self.heap.bytes()
    }

    pub(super) fn add(&mut self, slot: u32, deadline: i64, now: i64) {
        if deadline != NEVER {
            let base = *self.base.get_or_insert(now);
            if let Some(tick) = ticks(base, deadline) {
                self.heap.push(tick, slot);
            }
        }
    }

    /// Next slot whose entry is past its deadline at `now`. `deadline_of` gives the deadline of
    /// the entry now living in a slot, `None` if it is empty.
    pub(super) fn due(
        &mut self,
        now: i64,
        deadline_of: impl Fn(u32) -> Option<i64>,
    ) -> Option<u32> {
        let base = self.base?;
        while let Some((tick, slot)) = self.heap.peek() {
            let at = base.saturating_add(i64::from(tick) << TICK_SHIFT);
            if at > now {
                return None;
            }
            self.heap.pop();
            if deadline_of(slot).is_some_and(|deadline| deadline <= now) {
                return Some(slot);
            }
        }
        None
    }

    /// Drops the items of removed entries once they are many, by starting over from `entries`, the
    /// slots and deadlines of those held: one pass in memory order instead of a cache miss an item.
    pub(super) fn tidy(&mut self, live: usize, entries: impl Iterator<Item = (u32, i64)>) {
        if let (Some(base), true) = (self.base, self.heap.is_littered(live)) {
            let items = entries.filter_map(|(slot, deadline)| Some((ticks(base, deadline)?, slot)));
            self.heap.refill(items);
        }
    }
}

/// Ticks from `base` to `deadline`, rounded up; 0 for a deadline before the base (a clock set
/// back), which makes it due at the base: late, never early.
fn ticks(base: i64, deadline: i64) -> Option<u32> {
    if deadline == NEVER {
        return None;
    }
    let delta = deadline.saturating_sub(base).max(0);
    u32::try_from((delta >> TICK_SHIFT) + i64::from(delta & ((1 << TICK_SHIFT) - 1) != 0)).ok()
}
