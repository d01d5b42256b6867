//! Where entries are: an open-addressing index over pages of slots.
//!
//! A key is a digest, so its bytes are its hash. An index cell packs 32 bits of the key with the
//! slot: eight cells to a cache line, and deletion and growth never touch an entry. Pages keep
//! slots where they are while the shard grows: no doubling, no copying spike, at most an eighth
//! of slack.

use super::ahead::fetch;
use super::entry::{Cold, Hot, Touch};
use super::eviction::Nodes;

const NIL: u32 = u32::MAX;
/// `stale_until` of a free slot.
const FREE: i64 = i64::MIN;
const PAGE: usize = 256;
const PAGE_SHIFT: u32 = 8;

/// Bits of the key that choose the cell. Shards are chosen by other bits.
#[inline]
pub(super) fn tag(key: &[u8; 32]) -> u32 {
    u32::from_le_bytes([key[0], key[1], key[2], key[3]])
}

/// Linear probing, at most 2/3 full: about two cells for a hit, four for a miss, in one or two lines.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// 0 = empty, else `tag << 32 | slot + 1`.
    cells: Vec<u64>,
    len: usize,
}

impl Index {
    pub(super) fn bytes(&self) -> u64 {
        (self.cells.capacity() * 8) as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the next insert needs more cells. At 4/5 an insert that evicts looks at three times as many cells.
    fn is_full(&self) -> bool {
        (self.len + 1) * 3 > self.cells.len() * 2
    }

    /// Asks for the cells where a key would be.
    #[inline]
    pub(super) fn foresee(&self, tag: u32) {
        if let Some(cell) = self.cells.get(home(tag, self.cells.len())) {
            fetch(cell);
        }
    }

    /// Cells the next insert would add, in bytes.
    pub(super) fn growth(&self) -> u64 {
        if self.is_full() {
            (grown(self.cells.len()) - self.cells.len()) as u64 * 8
        } else {
            0
        }
    }

    /// Cell and slot of the first candidate for which `is_it` holds.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves of a packed cell"
    )]
    pub(super) fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        let cells = &self.cells[..];
        if cells.is_empty() {
            return None;
        }
        let mut at = home(tag, cells.len());
        loop {
            let cell = *cells.get(at)?;
            if cell == 0 {
                return None;
            }
            if (cell >> 32) as u32 == tag {
                let slot = (cell as u32).wrapping_sub(1);
                if is_it(slot) {
                    return Some((at, slot));
                }
            }
            at += 1;
            if at == cells.len() {
                at = 0;
            }
        }
    }

    /// Adds a key known to be absent.
    pub(super) fn add(&mut self, tag: u32, slot: u32) {
        if self.is_full() {
            let size = grown(self.cells.len());
            let old = std::mem::replace(&mut self.cells, vec![0; size]);
            for cell in old.into_iter().filter(|&cell| cell != 0) {
                self.place(cell);
            }
        }
        self.place(u64::from(tag) << 32 | u64::from(slot + 1));
        self.len += 1;
    }

    fn place(&mut self, cell: u64) {
        let size = self.cells.len();
        let mut at = home((cell >> 32) as u32, size);
        while self.cells[at] != 0 {
            at += 1;
            if at == size {
                at = 0;
            }
        }
        self.cells[at] = cell;
    }

    /// Empties a cell and closes the gap, so that no tombstones build up.
    pub(super) fn remove(&mut self, mut hole: usize) {
        let size = self.cells.len();
        let mut at = hole;
        loop {
            at += 1;
            if at == size {
                at = 0;
            }
            let cell = self.cells[at];
            if cell == 0 {
                break;
            }
            let from = home((cell >> 32) as u32, size);
            // Movable if its home does not lie cyclically in (hole, at].
            if distance(from, at, size) >= distance(hole, at, size) {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole] = 0;
        self.len -= 1;
    }
}

/// Multiply-shift instead of a mask, so that any size will do and growth need not double.
#[inline]
fn home(tag: u32, size: usize) -> usize {
    ((u64::from(tag) * size as u64) >> 32) as usize
}

/// Cells from one to another, going up and round. Without a division, which would be the dearest part of a removal.
#[inline]
fn distance(from: usize, to: usize, size: usize) -> usize {
    if to >= from {
        to - from
    } else {
        to + size - from
    }
}

fn grown(size: usize) -> usize {
    // A quarter at a time keeps the load between 0.53 and 0.67: 12 to 15 bytes an entry.
    size + (size / 4).max(8)
}

/// The slots of a shard.
pub(super) struct Slots<V, F, N> {
    hot: Vec<Vec<Hot<V>>>,
    cold: Vec<Vec<Cold<F, N>>>,
    free: u32,
    used: usize,
}

impl<V, F, N> Default for Slots<V, F, N> {
    fn default() -> Self {
        Self {
            hot: Vec::new(),
            cold: Vec::new(),
            free: NIL,
            used: 0,
        }
    }
}

#[inline]
const fn split(slot: u32) -> (usize, usize) {
    ((slot >> PAGE_SHIFT) as usize, slot as usize & (PAGE - 1))
}

impl<V, F, N> Slots<V, F, N> {
    /// Bytes of one slot.
    pub(super) const SLOT: u64 = (size_of::<Hot<V>>() + size_of::<Cold<F, N>>()) as u64;
    const DIRECTORY: u64 = (size_of::<Vec<Hot<V>>>() + size_of::<Vec<Cold<F, N>>>()) as u64;

    /// Slots that exist, used or free.
    pub(super) fn count(&self) -> usize {
        match self.hot.last() {
            Some(last) => (self.hot.len() - 1) * PAGE + last.len(),
            None => 0,
        }
    }

    fn allocated(&self) -> usize {
        match self.hot.last() {
            Some(last) => (self.hot.len() - 1) * PAGE + last.capacity(),
            None => 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.allocated() as u64 * Self::SLOT + self.hot.capacity() as u64 * Self::DIRECTORY
    }

    /// Bytes the next insert would add.
    pub(super) fn growth(&self) -> u64 {
        if self.free != NIL || self.count() < self.allocated() {
            return 0;
        }
        self.step() as u64 * Self::SLOT
            + if self.hot.len() == self.hot.capacity() {
                (1 + self.hot.len() as u64 / 8) * Self::DIRECTORY
            } else {
                0
            }
    }

    /// Slots to add at once: an eighth of what is there, within the page.
    fn step(&self) -> usize {
        let count = self.count();
        (count / 8).clamp(1, PAGE).min(PAGE - count % PAGE)
    }

    #[inline]
    pub(super) fn hot(&self, slot: u32) -> &Hot<V> {
        let (page, at) = split(slot);
        &self.hot[page][at]
    }

    #[inline]
    pub(super) fn hot_mut(&mut self, slot: u32) -> &mut Hot<V> {
        let (page, at) = split(slot);
        &mut self.hot[page][at]
    }

    #[inline]
    pub(super) fn cold(&self, slot: u32) -> &Cold<F, N> {
        let (page, at) = split(slot);
        &self.cold[page][at]
    }

    #[inline]
    pub(super) fn cold_mut(&mut self, slot: u32) -> &mut Cold<F, N> {
        let (page, at) = split(slot);
        &mut self.cold[page][at]
    }

    /// Asks for both halves of a slot.
    #[inline]
    pub(super) fn foresee(&self, slot: u32) {
        fetch(self.hot(slot));
        fetch(self.cold(slot));
    }

    /// Deadline of the entry in a slot, `None` for a free one.
    pub(super) fn deadline(&self, slot: u32) -> Option<i64> {
        let deadline = self.cold(slot).stale_until;
        (deadline != FREE).then_some(deadline)
    }

    /// What the hits of an entry would have cost, in micro-USD.
    pub(super) fn hit_cost_of(&self, slot: u32) -> u64 {
        match self.hot(slot).touch.hits() {
            0 => 0,
            hits => u64::from(hits) * u64::from(self.cold(slot).cost),
        }
    }

    /// The same of all entries; reads one line of each, and a second of those with hits.
    pub(super) fn hit_cost(&self) -> u64 {
        (0..)
            .zip(self.hot.iter().flatten())
            .filter(|(_, hot)| hot.value.is_some())
            .map(|(slot, _)| self.hit_cost_of(slot))
            .fold(0, u64::wrapping_add)
    }

    /// Slots and deadlines of all entries, from the cold pages alone.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (u32, i64)> {
        (0..)
            .zip(self.cold.iter().flatten())
            .filter_map(|(slot, cold)| {
                (cold.stale_until != FREE).then_some((slot, cold.stale_until))
            })
    }

    pub(super) fn take_slot(&mut self, hot: Hot<V>, cold: Cold<F, N>) -> u32 {
        self.used += 1;
        if self.free != NIL {
            let slot = self.free;
            self.free = self.cold(slot).payload_bytes;
            *self.hot_mut(slot) = hot;
            *self.cold_mut(slot) = cold;
            return slot;
        }
        let count = self.count();
        if count == self.allocated() {
            let step = self.step();
            if count.is_multiple_of(PAGE) {
                if self.hot.len() == self.hot.capacity() {
                    self.hot.reserve_exact(1 + self.hot.len() / 8);
                    self.cold.reserve_exact(1 + self.cold.len() / 8);
                }
                self.hot.push(Vec::new());
                self.cold.push(Vec::new());
            }
            if let (Some(hot), Some(cold)) = (self.hot.last_mut(), self.cold.last_mut()) {
                hot.reserve_exact(step);
                cold.reserve_exact(step);
            }
        }
        if let (Some(hot_page), Some(cold_page)) = (self.hot.last_mut(), self.cold.last_mut()) {
            hot_page.push(hot);
            cold_page.push(cold);
        }
        u32::try_from(count).unwrap_or(NIL)
    }

    /// Empties a slot and hands back what it held.
    pub(super) fn give_back(&mut self, slot: u32) -> Option<(V, Option<Box<F>>)> {
        let value = self.hot_mut(slot).value.take()?;
        let free = self.free;
        let cold = self.cold_mut(slot);
        let facts = cold.facts.take();
        cold.payload_bytes = free;
        cold.stale_until = FREE;
        self.free = slot;
        self.used -= 1;
        Some((value, facts))
    }

    /// Everything held, slot by slot.
    pub(super) fn into_values(self) -> impl Iterator<Item = (V, Option<Box<F>>)> {
        let hot = self.hot.into_iter().flatten();
        let cold = self.cold.into_iter().flatten();
        hot.zip(cold)
            .filter_map(|(hot, cold)| Some((hot.value?, cold.facts)))
    }
}

impl<V, F, N> Nodes<N> for Slots<V, F, N> {
    #[inline]
    fn touch(&self, slot: u32) -> Touch {
        self.hot(slot).touch
    }
    #[inline]
    fn touch_mut(&mut self, slot: u32) -> &mut Touch {
        &mut self.hot_mut(slot).touch
    }
    #[inline]
    fn node(&self, slot: u32) -> &N {
        &self.cold(slot).node
    }
    #[inline]
    fn node_mut(&mut self, slot: u32) -> &mut N {
        &mut self.cold_mut(slot).node
    }
    fn hash(&self, slot: u32) -> u64 {
        super::eviction::hash(&self.hot(slot).key)
    }
    fn charge(&self, slot: u32) -> u64 {
        self.cold(slot).outside() + super::ENTRY_BYTES
    }
    fn cost(&self, slot: u32) -> u64 {
        u64::from(self.cold(slot).cost)
    }
    fn len(&self) -> usize {
        self.used
    }
}
