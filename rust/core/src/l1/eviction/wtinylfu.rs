//! Size-aware W-TinyLFU: a window LRU, a segmented LRU, and admission by a frequency sketch.
//!
//! Sources: Einziger, Friedman, Manes, "`TinyLFU`" (ACM `ToS` 2017); Einziger et al., "Lightweight
//! robust size aware cache management" (ACM `ToS` 2022), from which comes the rule used here: a
//! candidate must be used more often than all the victims its bytes would displace, together.

use super::queue::{NIL, Queue, QueueNode};
use super::sketch::Sketch;
use super::{Candidate, Nodes, Policy, Verdict};

const WINDOW: u32 = 0;
const PROBATION: u32 = 1;

/// See the module. Window 1 %, protected 80 % of the main region, as in Caffeine.
#[derive(Debug)]
pub struct WTinyLfu {
    sketch: Sketch,
    window: Queue,
    probation: Queue,
    protected: Queue,
    capacity: u64,
}

impl WTinyLfu {
    fn queue_of(&mut self, queue: u32) -> &mut Queue {
        match queue {
            WINDOW => &mut self.window,
            PROBATION => &mut self.probation,
            _ => &mut self.protected,
        }
    }

    /// Whether the window's oldest is used more than the main victims its bytes displace.
    fn deserves<S: Nodes<QueueNode>>(&self, slots: &S, slot: u32) -> bool {
        let uses = self.sketch.estimate(slots.hash(slot));
        let (need, mut freed, mut rivals) = (slots.charge(slot), 0, 0);
        let mut at = self.probation.tail;
        while at != NIL && freed < need {
            freed += slots.charge(at);
            rivals += self.sketch.estimate(slots.hash(at));
            if rivals >= uses {
                return false;
            }
            at = slots.node(at).newer;
        }
        true
    }
}

impl Policy for WTinyLfu {
    type Node = QueueNode;

    fn new(capacity: u64) -> Self {
        Self {
            sketch: Sketch::default(),
            window: Queue::new(WINDOW),
            probation: Queue::new(PROBATION),
            protected: Queue::new(2),
            capacity,
        }
    }

    fn hit<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        slots.touch_mut(slot).count();
        self.sketch.add(slots.hash(slot));
        let from = slots.node(slot).queue;
        self.queue_of(from).unlink(slots, slot);
        if from == WINDOW {
            return self.window.push(slots, slot);
        }
        self.protected.push(slots, slot);
        while self.protected.bytes > self.capacity / 5 * 4 {
            let Some(oldest) = self.protected.oldest() else {
                break;
            };
            self.protected.unlink(slots, oldest);
            self.probation.push(slots, oldest);
        }
    }

    fn stored<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, _again: bool) {
        self.sketch.fit(slots.len());
        self.sketch.add(slots.hash(slot));
        self.window.push(slots, slot);
    }

    fn leaving<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32, _evicted: bool) {
        let queue = slots.node(slot).queue;
        self.queue_of(queue).unlink(slots, slot);
    }

    fn victim<S: Nodes<QueueNode>>(
        &mut self,
        slots: &mut S,
        _candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        while self.window.bytes > self.capacity / 100 {
            let Some(slot) = self.window.oldest() else {
                break;
            };
            if !self.deserves(slots, slot) {
                return Some(Verdict::Evict(slot));
            }
            self.window.unlink(slots, slot);
            self.probation.push(slots, slot);
            // The one admitted is the newest of its queue: the victim below is another.
        }
        let oldest = self
            .probation
            .oldest()
            .or(self.protected.oldest())
            .or(self.window.oldest());
        oldest.map(Verdict::Evict)
    }

    fn bytes(&self) -> u64 {
        self.sketch.bytes()
    }
}
