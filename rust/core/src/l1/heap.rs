//! A 4-ary min-heap of `(u32 key, u32 slot)` packed into one `u64`, with lazy deletion.
//!
//! Expiry's (key = time). Four children lie in 32 bytes, mostly one cache line, and nothing in the
//! entries points back into the heap: a sift moves eight bytes and touches no entry. The price is
//! that removed entries leave dead items behind; the owner recognises them on pop and calls
//! [`Heap::refill`] when they are many.

/// Rebuild once more than `live + live * 3 / 4 + SLACK` items are held: amortised O(1) per removal,
/// and at most 10 bytes per entry. Larger fractions save rebuilds but cost memory per entry.
const SLACK: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Heap {
    items: Vec<u64>,
}

#[inline]
fn pack(key: u32, slot: u32) -> u64 {
    u64::from(key) << 32 | u64::from(slot)
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of a packed item"
)]
fn unpack(item: u64) -> (u32, u32) {
    ((item >> 32) as u32, item as u32)
}

impl Heap {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        (self.items.capacity() * size_of::<u64>()) as u64
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<(u32, u32)> {
        self.items.first().map(|&item| unpack(item))
    }

    /// O(1) on average, O(log4 n) at worst.
    pub(super) fn push(&mut self, key: u32, slot: u32) {
        if self.items.len() == self.items.capacity() {
            // An eighth at a time: doubling would waste up to eight bytes per entry.
            self.items.reserve_exact(self.items.len() / 8 + 1);
        }
        let mut at = self.items.len();
        let item = pack(key, slot);
        self.items.push(item);
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.items[parent] <= item {
                break;
            }
            self.items[at] = self.items[parent];
            at = parent;
        }
        self.items[at] = item;
    }

    pub(super) fn pop(&mut self) -> Option<(u32, u32)> {
        let last = self.items.pop()?;
        let Some(&first) = self.items.first() else {
            return Some(unpack(last));
        };
        self.sink(0, last);
        Some(unpack(first))
    }

    /// Whether dead items are many enough for a [`refill`](Self::refill).
    pub(super) fn is_littered(&self, live: usize) -> bool {
        self.items.len() > live + live * 3 / 4 + SLACK
    }

    /// Starts over with these items; O(n).
    pub(super) fn refill(&mut self, items: impl Iterator<Item = (u32, u32)>) {
        self.items.clear();
        // Never more than were there: items are those of live entries.
        self.items.extend(items.map(|(key, slot)| pack(key, slot)));
        self.order();
    }

    fn order(&mut self) {
        let kept = self.items.len();
        if self.items.capacity() > kept + kept / 2 + SLACK {
            self.items.shrink_to(kept + kept / 4);
        }
        for at in (0..kept.div_ceil(4)).rev() {
            let item = self.items[at];
            self.sink(at, item);
        }
    }

    fn sink(&mut self, mut at: usize, item: u64) {
        let items = &mut self.items[..];
        loop {
            let child = at * 4 + 1;
            let Some(children) = items.get(child..items.len().min(child + 4)) else {
                break;
            };
            let Some((offset, &least)) = children.iter().enumerate().min_by_key(|(_, item)| **item)
            else {
                break;
            };
            if least >= item {
                break;
            }
            items[at] = least;
            at = child + offset;
        }
        items[at] = item;
    }
}
