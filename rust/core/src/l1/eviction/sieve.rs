//! SIEVE: a FIFO with a visited bit and a moving hand.
//!
//! Source: Zhang et al., "SIEVE is simpler than LRU" (NSDI 2024). Blind to cost and size.

use super::queue::{NIL, Queue, QueueNode};
use super::{Candidate, Nodes, Policy, Verdict};

/// See the module.
#[derive(Debug)]
pub struct Sieve {
    queue: Queue,
    hand: u32,
}

impl Policy for Sieve {
    type Node = QueueNode;

    fn new(_capacity: u64) -> Self {
        Self {
            queue: Queue::new(0),
            hand: NIL,
        }
    }

    fn hit<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        let touch = slots.touch_mut(slot);
        touch.count();
        touch.mark = 1;
    }

    fn stored<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, again: bool) {
        slots.touch_mut(slot).mark = u32::from(again);
        self.queue.push(slots, slot);
    }

    fn leaving<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, _evicted: bool) {
        if self.hand == slot {
            self.hand = slots.node(slot).newer;
        }
        self.queue.unlink(slots, slot);
    }

    fn victim<S: Nodes<QueueNode>>(
        &mut self,
        slots: &mut S,
        _candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        let mut at = if self.hand == NIL {
            self.queue.oldest()?
        } else {
            self.hand
        };
        while slots.touch(at).mark != 0 {
            slots.touch_mut(at).mark = 0;
            let newer = slots.node(at).newer;
            at = if newer == NIL {
                self.queue.oldest()?
            } else {
                newer
            };
        }
        self.hand = at;
        Some(Verdict::Evict(at))
    }

    fn bytes(&self) -> u64 {
        0
    }
}
