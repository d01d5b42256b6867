//! GDSF, `GreedyDual`-Size-Frequency: priority = level + uses x cost / size.
//!
//! Source: Cherkasova, "Improving WWW proxies performance with GreedyDual-Size-Frequency caching
//! policy" (HPL-98-69, 1998).

use super::greedy::{Greedy, GreedyNode};
use super::{Candidate, Nodes, Policy, Verdict};
use crate::l1::Touch;

/// See the module; uses are counted while the entry is held.
#[derive(Debug)]
pub struct Gdsf(Greedy);

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn gain(node: &GreedyNode, touch: Touch, _hash: u64) -> f32 {
    node.worth * (touch.hits() + 1) as f32
}

impl Policy for Gdsf {
    type Node = GreedyNode;

    fn new(_capacity: u64) -> Self {
        Self(Greedy::default())
    }

    fn hit<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32) {
        self.0.hit(slots.touch_mut(slot));
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn stored<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, _again: bool) {
        slots.node_mut(slot).worth = slots.cost(slot).max(1) as f32 / slots.charge(slot) as f32;
        let gain = gain(slots.node(slot), slots.touch(slot), 0);
        self.0.queue(slots, slot, gain);
    }

    fn leaving<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, _evicted: bool) {
        self.0.forget(slots, slot, gain);
    }

    fn victim<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        _candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        let (slot, priority) = self.0.least(slots, gain)?;
        self.0.sink(slots, slot, priority);
        Some(Verdict::Evict(slot))
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}
