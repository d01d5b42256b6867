//! Doubly linked lists threaded through the slots, for the queue-based policies.

use super::Nodes;

pub(super) const NIL: u32 = u32::MAX;

/// Per-entry data of a queue-based policy: 12 bytes.
#[derive(Debug, Clone, Copy)]
pub struct QueueNode {
    /// Towards the head (newest).
    pub newer: u32,
    /// Towards the tail (oldest).
    pub older: u32,
    /// Which of the policy's queues the entry is in.
    pub queue: u32,
}

impl Default for QueueNode {
    fn default() -> Self {
        Self {
            newer: NIL,
            older: NIL,
            queue: 0,
        }
    }
}

/// A list with its byte count.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) bytes: u64,
    name: u32,
}

impl Queue {
    pub(super) fn new(name: u32) -> Self {
        Self {
            head: NIL,
            tail: NIL,
            bytes: 0,
            name,
        }
    }

    pub(super) fn push<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        *slots.node_mut(slot) = QueueNode {
            newer: NIL,
            older: self.head,
            queue: self.name,
        };
        if self.head == NIL {
            self.tail = slot;
        } else {
            slots.node_mut(self.head).newer = slot;
        }
        self.head = slot;
        self.bytes += slots.charge(slot);
    }

    pub(super) fn unlink<S: Nodes<QueueNode>>(&mut self, slots: &mut S, slot: u32) {
        let QueueNode { newer, older, .. } = *slots.node(slot);
        if newer == NIL {
            self.head = older;
        } else {
            slots.node_mut(newer).older = older;
        }
        if older == NIL {
            self.tail = newer;
        } else {
            slots.node_mut(older).newer = newer;
        }
        self.bytes -= slots.charge(slot);
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }
}
