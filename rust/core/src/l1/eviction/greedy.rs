//! The queue of the `GreedyDual` family: a heap of priorities with lazy promotion.
//!
//! Source: Young, "On-line file caching" (`GreedyDual`, SODA 1998); Cao and Irani, "Cost-aware WWW
//! proxy caching algorithms" (USITS 1997). The priority of an entry is `L + worth x weight(hits)`
//! with `L`, the level, the priority of the last victim. A hit only notes the level and the count
//! in the entry; when an entry comes up as the minimum, its priority is computed from those notes
//! and it is queued again if it rose. Priorities only grow, so this evicts exactly what an eager
//! queue would, and a hit touches one cache line.

use super::super::heap::Heap;
use super::Nodes;
use crate::l1::Touch;

/// Per-entry data of the family: 8 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct GreedyNode {
    /// Bits of the priority under which the entry is queued; 0 = not queued.
    priority: u32,
    /// Worth of one expected use, before weighting by frequency.
    pub worth: f32,
}

/// Levels are rebased (O(n)) when the level exceeds this many typical gains: a gain then still has
/// 24 - 14 = 10 bits above the unit of the level's `f32`. The level rises by about one typical gain
/// per turnover of the cache, so the pass is rarer than one in 16,384 turnovers.
const REBASE: f32 = 16_384.0;

/// Weight of a victim's gain in the running average.
const TYPICAL_STEP: f32 = 1.0 / 64.0;

/// A rise below this share of the gain is not queued for: learned weights drift all the time, and
/// each small step up would requeue every entry that comes up.
const WORTHWHILE: f32 = 1.0 / 8.0;

#[derive(Debug, Default)]
pub(super) struct Greedy {
    heap: Heap,
    level: f32,
    typical: f32,
    /// 1 / typical, for the hit path.
    per_typical: f32,
}

impl Greedy {
    pub(super) fn bytes(&self) -> u64 {
        self.heap.bytes()
    }

    /// Priority of the last victim.
    pub(super) fn level(&self) -> f32 {
        self.level
    }

    /// Average gain of recent victims.
    pub(super) fn typical(&self) -> f32 {
        self.typical
    }

    /// How much the level rose since the entry was last used, in typical gains.
    #[inline]
    pub(super) fn idle(&self, touch: Touch) -> f32 {
        (self.level - f32::from_bits(touch.mark)) * self.per_typical
    }

    #[inline]
    pub(super) fn hit(&self, touch: &mut Touch) {
        touch.count();
        touch.mark = self.level.to_bits();
    }

    /// Queues an entry at the present level.
    pub(super) fn queue<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, gain: f32) {
        slots.touch_mut(slot).mark = self.level.to_bits();
        let bits = key(self.level + gain);
        slots.node_mut(slot).priority = bits;
        self.heap.push(bits, slot);
    }

    /// The entry is leaving; its item is left to be skipped.
    pub(super) fn forget<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32) {
        slots.node_mut(slot).priority = 0;
        let live = slots.len();
        if self.heap.is_littered(live) {
            self.heap.retain(live, |bits, slot| {
                is_queued(slots, slot, bits).then_some(bits)
            });
        }
    }

    /// The slot of least priority, and that priority, after requeueing what rose.
    pub(super) fn least<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        gain: impl Fn(&GreedyNode, Touch, u64) -> f32,
    ) -> Option<(u32, f32)> {
        while let Some((bits, slot)) = self.heap.peek() {
            if !is_queued(slots, slot, bits) {
                self.heap.pop();
                continue;
            }
            let touch = slots.touch(slot);
            let gain = gain(slots.node(slot), touch, slots.hash(slot));
            let rise = f32::from_bits(touch.mark) + gain - f32::from_bits(bits);
            if rise > gain * WORTHWHILE {
                let now = key(f32::from_bits(touch.mark) + gain);
                slots.node_mut(slot).priority = now;
                self.heap.raise_top(now);
                continue;
            }
            return Some((slot, f32::from_bits(bits)));
        }
        None
    }

    /// Raises the level to that of a victim.
    pub(super) fn sink<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, priority: f32) {
        let gain = priority - f32::from_bits(slots.touch(slot).mark);
        self.typical += (gain - self.typical) * TYPICAL_STEP;
        self.per_typical = 1.0 / self.typical.max(f32::MIN_POSITIVE);
        self.rise(priority);
        if self.level > REBASE * self.typical {
            self.rebase(slots);
        }
    }

    /// Raises the level.
    pub(super) fn rise(&mut self, level: f32) {
        self.level = self.level.max(level);
    }

    fn rebase<S: Nodes<GreedyNode>>(&mut self, slots: &mut S) {
        let level = self.level;
        self.heap.retain(slots.len(), |bits, slot| {
            if !is_queued(slots, slot, bits) {
                return None;
            }
            let touch = slots.touch_mut(slot);
            touch.mark = (f32::from_bits(touch.mark) - level).max(0.0).to_bits();
            let bits = key((f32::from_bits(bits) - level).max(0.0));
            slots.node_mut(slot).priority = bits;
            Some(bits)
        });
        self.level = 0.0;
    }
}

/// Positive floats order as their bits; 0 is kept for "not queued".
#[inline]
fn key(priority: f32) -> u32 {
    priority.clamp(f32::MIN_POSITIVE, f32::MAX).to_bits()
}

fn is_queued<S: Nodes<GreedyNode>>(slots: &S, slot: u32, bits: u32) -> bool {
    slots.live(slot) && slots.node(slot).priority == bits
}
