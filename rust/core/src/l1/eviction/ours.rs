//! The default policy (first version: GreedyDual over dollars per byte).

use super::greedy::{Greedy, GreedyNode};
use super::{Candidate, Nodes, Policy, Verdict};

/// See the module.
#[derive(Debug)]
pub struct Ours {
    queue: Greedy,
    mean_cost: f32,
}

impl Ours {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn worth(&self, cost: u64, charge: u64) -> f32 {
        let cost = if cost == 0 { self.mean_cost } else { cost as f32 };
        (cost / charge as f32).powf(1.3)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn gain(node: &GreedyNode, hits: u32) -> f32 {
    node.worth * ((hits + 1) as f32).powf(0.85)
}

impl Policy for Ours {
    type Node = GreedyNode;

    fn new(_capacity: u64) -> Self {
        Self { queue: Greedy::default(), mean_cost: 1.0 }
    }

    #[inline]
    fn hit<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32) {
        self.queue.hit(slots, slot);
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn stored<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, _again: bool) {
        let cost = slots.cost(slot);
        if cost > 0 {
            self.mean_cost += (cost as f32 - self.mean_cost) / 64.0;
        }
        let worth = self.worth(cost, slots.charge(slot));
        slots.node_mut(slot).worth = worth;
        let hits = slots.touch(slot).hits;
        let gain = gain(slots.node(slot), hits);
        self.queue.queue(slots, slot, gain);
    }

    fn leaving<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, _evicted: bool) {
        self.queue.forget(slots, slot);
    }

    fn victim<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, _candidate: Option<&Candidate>) -> Option<Verdict> {
        let (slot, priority) = self.queue.least(slots, gain)?;
        self.queue.sink(slots, slot, priority);
        Some(Verdict::Evict(slot))
    }

    fn bytes(&self) -> u64 {
        self.queue.bytes()
    }
}
