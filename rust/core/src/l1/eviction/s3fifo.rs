//! S3-FIFO: a small probationary FIFO, a main FIFO and a ghost FIFO.
//!
//! Source: Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), with the
//! paper's constants: a tenth of the bytes for the small queue, two-bit counters, two uses to pass.

use std::collections::{HashSet, VecDeque};

use super::queue::{Queue, QueueNode};
use super::{Candidate, Nodes, Policy, Verdict};

const SMALL: u32 = 0;

/// See the module.
#[derive(Debug)]
pub struct S3Fifo {
    small: Queue,
    main: Queue,
    ghosts: VecDeque<u64>,
    remembered: HashSet<u64>,
}

impl Policy for S3Fifo {
    type Node = QueueNode;

    fn new(_capacity: u64) -> Self {
        Self {
            small: Queue::new(SMALL),
            main: Queue::new(1),
            ghosts: VecDeque::new(),
            remembered: HashSet::new(),
        }
    }

    fn hit<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        let touch = slots.touch_mut(slot);
        touch.count();
        touch.mark = (touch.mark + 1).min(3);
    }

    fn stored<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, again: bool) {
        let known = self.remembered.remove(&slots.hash(slot));
        slots.touch_mut(slot).mark = 0;
        if known || again {
            self.main.push(slots, slot);
        } else {
            self.small.push(slots, slot);
        }
    }

    fn leaving<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, evicted: bool) {
        if slots.node(slot).queue != SMALL {
            return self.main.unlink(slots, slot);
        }
        self.small.unlink(slots, slot);
        if evicted {
            let hash = slots.hash(slot);
            self.ghosts.push_back(hash);
            self.remembered.insert(hash);
            while self.ghosts.len() > slots.len() {
                if let Some(oldest) = self.ghosts.pop_front() {
                    self.remembered.remove(&oldest);
                }
            }
        }
    }

    fn victim<S: Nodes<QueueNode>>(
        &mut self,
        slots: &mut S,
        _candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        loop {
            let small = self.small.oldest();
            let from_small = self.main.oldest().is_none() || self.small.bytes * 9 > self.main.bytes;
            if let (Some(slot), true) = (small, from_small) {
                if slots.touch(slot).mark < 2 {
                    return Some(Verdict::Evict(slot));
                }
                self.small.unlink(slots, slot);
                slots.touch_mut(slot).mark = 0;
                self.main.push(slots, slot);
                continue;
            }
            let slot = self.main.oldest()?;
            let mark = slots.touch(slot).mark;
            if mark == 0 {
                return Some(Verdict::Evict(slot));
            }
            slots.touch_mut(slot).mark = mark - 1;
            self.main.unlink(slots, slot);
            self.main.push(slots, slot);
        }
    }

    fn bytes(&self) -> u64 {
        // A hash table of 8-byte keys at 7/8 load with a control byte each.
        self.ghosts.capacity() as u64 * 8 + self.remembered.capacity() as u64 * 9 * 8 / 7
    }
}
