//! The queue of the `GreedyDual` family: one list per class of gain, oldest first.
//!
//! Source: Young, "On-line file caching" (`GreedyDual`, SODA 1998); Cao and Irani, "Cost-aware WWW
//! proxy caching algorithms" (USITS 1997); the lists: Ghandeharizadeh et al., "CAMP: a cost adaptive
//! multi-queue eviction policy for key-value stores" (Middleware 2014).
//!
//! The priority of an entry is `L + worth x weight(uses)`, with `L`, the level, the priority of the
//! last victim. The level never falls, so entries of one gain are in order of priority as they come:
//! a list serves where a heap would touch a path of its items, and only the first of each list are
//! compared. Gains are put into classes of a quarter of an octave; among the first of the lists their
//! exact priorities decide, so that an entry waits at most for those of its own class.
//!
//! A hit only notes level and count in the entry. When a used entry comes to the front of its list
//! it is queued again, by what is left of its priority: the order is that of an eager queue, and a
//! hit touches one cache line.

use super::Nodes;
use crate::l1::Touch;

const NIL: u32 = u32::MAX;

/// Per-entry data of the family: 12 bytes.
#[derive(Debug, Clone, Copy)]
pub struct GreedyNode {
    /// Neighbours in the list.
    newer: u32,
    older: u32,
    /// Worth of one expected use, before weighting by frequency.
    pub worth: f32,
}

impl Default for GreedyNode {
    fn default() -> Self {
        Self {
            newer: NIL,
            older: NIL,
            worth: 0.0,
        }
    }
}

/// The entries of one class.
#[derive(Debug, Clone, Copy)]
struct List {
    /// Priority of the oldest; infinite if there is none.
    priority: f32,
    class: u32,
    oldest: u32,
    newest: u32,
}

/// Bits of a float that are not of its class: four classes an octave. Two to
/// thirty-two replay alike.
const CLASS_SHIFT: u32 = 21;

/// Levels are rebased (O(n)) when the level exceeds this many typical gains: a gain then still has
/// 24 - 14 = 10 bits above the unit of the level's `f32`. The level rises by about one typical gain
/// per turnover of the cache, so the pass is rarer than one in 16,384 turnovers.
const REBASE: f32 = 16_384.0;

/// Weight of a victim's gain in the running average.
const TYPICAL_STEP: f32 = 1.0 / 64.0;

/// The last bit of a mark, whose other bits are those of the level at the last use: whether the entry
/// was used since it was queued.
const USED: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct Greedy {
    /// As many as classes were occupied at once, at most; found by looking through them.
    lists: Vec<List>,
    /// Where the last entry left that was the oldest of its list.
    last: usize,
    level: f32,
    typical: f32,
    /// 1 / typical, for the hit path.
    per_typical: f32,
}

/// The level at an entry's last use.
#[inline]
pub(super) fn mark(touch: Touch) -> f32 {
    f32::from_bits(touch.mark & !USED)
}

#[inline]
fn is_used(touch: Touch) -> bool {
    touch.mark & USED != 0
}

#[inline]
fn class(gain: f32) -> u32 {
    (gain.max(0.0).to_bits() + (1 << (CLASS_SHIFT - 1))) >> CLASS_SHIFT
}

/// The middle of a class.
#[inline]
fn value(class: u32) -> f32 {
    f32::from_bits(class << CLASS_SHIFT)
}

impl Greedy {
    pub(super) fn bytes(&self) -> u64 {
        (self.lists.capacity() * size_of::<List>()) as u64
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
        (self.level - mark(touch)) * self.per_typical
    }

    #[inline]
    pub(super) fn hit(&self, touch: &mut Touch) {
        touch.count();
        touch.mark = self.level.to_bits() | USED;
    }

    /// Queues an entry at the present level.
    pub(super) fn queue<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, gain: f32) {
        slots.touch_mut(slot).mark = self.level.to_bits() & !USED;
        self.push(slots, slot, self.level + gain);
    }

    /// The entry is leaving.
    pub(super) fn forget<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        slot: u32,
        gain: impl Fn(&GreedyNode, Touch, u64) -> f32,
    ) {
        if let Some(list) = self.unlink(slots, slot) {
            self.last = list;
            self.advance(slots, list, gain);
        }
    }

    /// The slot of least priority, and that priority, after requeueing what was used.
    pub(super) fn least<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        gain: impl Fn(&GreedyNode, Touch, u64) -> f32,
    ) -> Option<(u32, f32)> {
        loop {
            let (at, list) = (0..).zip(&self.lists).reduce(|least, one| {
                if one.1.priority < least.1.priority {
                    one
                } else {
                    least
                }
            })?;
            let List {
                oldest, priority, ..
            } = *list;
            if oldest == NIL {
                return None;
            }
            if !is_used(slots.touch(oldest)) {
                return Some((oldest, priority));
            }
            self.advance(slots, at, &gain);
        }
    }

    /// The oldest two of the list that the last victim came from.
    #[inline]
    pub(super) fn coming<S: Nodes<GreedyNode>>(&self, slots: &S) -> [Option<u32>; 2] {
        let some = |slot: u32| (slot != NIL).then_some(slot);
        let next = self.lists.get(self.last).and_then(|list| some(list.oldest));
        [next, next.and_then(|slot| some(slots.node(slot).newer))]
    }

    /// Raises the level to that of a victim.
    pub(super) fn sink<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, priority: f32) {
        let gain = priority - mark(slots.touch(slot));
        if self.typical == 0.0 {
            self.typical = gain;
        }
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

    /// Appends an entry to the list of what its priority is above the level.
    fn push<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, priority: f32) {
        let class = class(priority - self.level);
        let list = self.list(class);
        let older = std::mem::replace(&mut list.newest, slot);
        if older == NIL {
            list.oldest = slot;
            list.priority = priority.min(f32::MAX);
        } else {
            slots.node_mut(older).newer = slot;
        }
        let node = slots.node_mut(slot);
        (node.older, node.newer) = (older, NIL);
    }

    /// The list of a class, new if need be, in place of an empty one if there is one.
    fn list(&mut self, class: u32) -> &mut List {
        let empty = List {
            priority: f32::INFINITY,
            class,
            oldest: NIL,
            newest: NIL,
        };
        let mut at = self.lists.iter().position(|list| list.class == class);
        if at.is_none() {
            at = self.lists.iter().position(|list| list.oldest == NIL);
            if let Some(at) = at {
                self.lists[at] = empty;
            }
        }
        let at = at.unwrap_or_else(|| {
            if self.lists.len() == self.lists.capacity() {
                self.lists.reserve_exact(1 + self.lists.len() / 8);
            }
            self.lists.push(empty);
            self.lists.len() - 1
        });
        &mut self.lists[at]
    }

    /// Takes an entry out of its list; the list, if it was the oldest there.
    fn unlink<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32) -> Option<usize> {
        let GreedyNode { newer, older, .. } = *slots.node(slot);
        if newer != NIL {
            slots.node_mut(newer).older = older;
        } else if let Some(list) = self.lists.iter_mut().find(|list| list.newest == slot) {
            list.newest = older;
        }
        if older != NIL {
            slots.node_mut(older).newer = newer;
            return None;
        }
        let at = self.lists.iter().position(|list| list.oldest == slot)?;
        self.lists[at].oldest = newer;
        Some(at)
    }

    /// Settles which entry of a list is its oldest: used ones are queued again. Reads what the next
    /// eviction is going to need, early enough that it need not wait for it.
    fn advance<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        at: usize,
        gain: impl Fn(&GreedyNode, Touch, u64) -> f32,
    ) {
        loop {
            let slot = self.lists[at].oldest;
            if slot == NIL {
                self.lists[at].priority = f32::INFINITY;
                return;
            }
            let touch = slots.touch(slot);
            let gain = gain(slots.node(slot), touch, slots.hash(slot));
            if !is_used(touch) {
                // What it was queued for stands: learned weights may have fallen since for a while.
                let list = &mut self.lists[at];
                list.priority = (mark(touch) + gain.max(value(list.class))).min(f32::MAX);
                return;
            }
            let priority = mark(touch) + gain;
            self.unlink(slots, slot);
            slots.touch_mut(slot).mark &= !USED;
            self.push(slots, slot, priority);
        }
    }

    fn rebase<S: Nodes<GreedyNode>>(&mut self, slots: &mut S) {
        let level = self.level;
        for list in &mut self.lists {
            list.priority = (list.priority - level).max(0.0);
            let mut slot = list.oldest;
            while slot != NIL {
                let touch = slots.touch_mut(slot);
                let lower = (mark(*touch) - level).max(0.0);
                touch.mark = lower.to_bits() & !USED | touch.mark & USED;
                slot = slots.node(slot).newer;
            }
        }
        self.level = 0.0;
    }
}
