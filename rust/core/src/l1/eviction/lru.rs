//! Least recently used: the baseline of locality. Blind to cost and size.

use super::queue::{Queue, QueueNode};
use super::{Candidate, Nodes, Policy, Verdict};

/// Exact LRU; a hit relinks its neighbours, which is what the default policy avoids.
#[derive(Debug)]
pub struct Lru(Queue);

impl Policy for Lru {
    type Node = QueueNode;

    fn new(_capacity: u64) -> Self {
        Self(Queue::new(0))
    }

    fn hit<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        slots.touch_mut(slot).count();
        self.0.unlink(slots, slot);
        self.0.push(slots, slot);
    }

    fn stored<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, _again: bool) {
        self.0.push(slots, slot);
    }

    fn leaving<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, _evicted: bool) {
        self.0.unlink(slots, slot);
    }

    fn victim<S: Nodes<QueueNode>>(
        &mut self,
        _slots: &mut S,
        _candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        self.0.oldest().map(Verdict::Evict)
    }

    fn bytes(&self) -> u64 {
        0
    }
}
