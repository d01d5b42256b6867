//! Entries in rows, searched by looking at every one of them.
//!
//! What belongs here: rows that grow by little, so that ten thousand small partitions cost little more than
//! their codes. What does not: when a partition is too large for this (`partition`).

use super::best::{Best, Rough};
use super::code::{Code, low_bytes};
use super::{ALLOCATION, Id};

/// Looked at again for each match that is wanted, and eight more: the upper bits put the best entry first but for
/// those within a thousandth of it.
const AGAIN: usize = 1;

/// What is kept of an entry beside its code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) key: Id,
    /// One over the length of its code.
    pub(super) inverse: f32,
    /// A number that grows with each entry of a partition.
    pub(super) age: u32,
}

impl Head {
    /// Whether nothing is at its place.
    pub(super) fn is_vacant(&self) -> bool {
        self.inverse <= 0.0
    }
}

/// An entry on its way from one place to another.
pub(super) struct Row {
    pub(super) head: Head,
    pub(super) high: Vec<i8>,
    pub(super) low: Vec<u8>,
}

/// Rows, in no order.
#[derive(Default)]
pub(super) struct Flat {
    pub(super) heads: Vec<Head>,
    pub(super) high: Vec<i8>,
    pub(super) low: Vec<u8>,
}

impl Flat {
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn find(&self, key: &Id) -> Option<usize> {
        self.heads.iter().position(|head| head.key == *key)
    }

    pub(super) fn put(&mut self, row: &Row) {
        if self.heads.len() == self.heads.capacity() {
            let more = headroom(self.len());
            self.heads.reserve_exact(more);
            self.high.reserve_exact(more * row.high.len());
            self.low.reserve_exact(more * row.low.len());
        }
        self.heads.push(row.head);
        self.high.extend_from_slice(&row.high);
        self.low.extend_from_slice(&row.low);
    }

    /// Takes a row out; the last one takes its place.
    pub(super) fn take(&mut self, at: usize, dimension: usize) -> Row {
        let low = low_bytes(dimension);
        let row = Row {
            head: self.heads.swap_remove(at),
            high: swap_out(&mut self.high, at, dimension),
            low: swap_out(&mut self.low, at, low),
        };
        let kept = self.len() + 2 * headroom(self.len());
        if self.heads.capacity() > kept {
            let kept = self.len() + headroom(self.len());
            self.heads.shrink_to(kept);
            self.high.shrink_to(kept * dimension);
            self.low.shrink_to(kept * low);
        }
        row
    }

    pub(super) fn search(&self, query: &Code, best: &mut Best) {
        let dimension = query.high.len();
        let low = low_bytes(dimension);
        let mut rough = Rough::new(AGAIN * best.limit + 8);
        for (at, (high, head)) in self
            .high
            .chunks_exact(dimension)
            .zip(&self.heads)
            .enumerate()
        {
            rough.offer(query.rough(high, head.inverse), at);
        }
        for at in rough.places() {
            let head = &self.heads[at];
            let high = &self.high[at * dimension..][..dimension];
            let low = &self.low[at * low..][..low];
            best.offer(head, query.cosine(high, low, head.inverse));
        }
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        let allocations = if self.heads.capacity() == 0 { 0 } else { 3 };
        (self.heads.capacity() * size_of::<Head>() + self.high.capacity() + self.low.capacity())
            as u64
            + allocations * ALLOCATION
    }

    /// Bytes by which the next [`put`](Self::put) grows them.
    pub(super) fn growth(&self, dimension: usize) -> u64 {
        if self.len() < self.heads.capacity() {
            return 0;
        }
        let allocations = if self.heads.capacity() == 0 { 3 } else { 0 };
        (headroom(self.len()) * row_bytes(dimension)) as u64 + allocations * ALLOCATION
    }
}

/// Bytes of a row.
pub(super) fn row_bytes(dimension: usize) -> usize {
    size_of::<Head>() + dimension + low_bytes(dimension)
}

/// Rows to make room for at a time: one for the small, an eighth for the large.
fn headroom(len: usize) -> usize {
    1 + len / 8
}

fn swap_out<T: Copy>(values: &mut Vec<T>, at: usize, width: usize) -> Vec<T> {
    let taken = values[at * width..][..width].to_vec();
    let last = values.len() - width;
    values.copy_within(last.., at * width);
    values.truncate(last);
    taken
}
