//! Keys that left lately and how often they had been used: two bytes each.
//!
//! A set-associative table of 16-bit cells, 12 bits of the key's hash and a count of uses up to
//! 15; a set is one cache line. A full set ages at insertion: a random cell loses one use, and the
//! first found with none left to lose is replaced. So often used keys are remembered longer, and
//! the table forgets at the rate at which it learns. A false match (about 1 in 130 look-ups of
//! unknown keys) makes an entry look used before; no answer depends on it.

use crate::l1::ahead::fetch;

/// Cells per set: one line of 64 bytes.
const WAYS: usize = 32;

/// Cells per entry held, before rounding the number of sets up to a power of two: 4 to 8 bytes an
/// entry. Twice as many gains 0.001 to 0.003 of the optimum, half as many loses as much.
const PER_ENTRY: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Ghosts {
    sets: Vec<[u16; WAYS]>,
    random: u32,
}

impl Ghosts {
    pub(super) fn bytes(&self) -> u64 {
        (self.sets.capacity() * size_of::<[u16; WAYS]>()) as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a hash")]
    fn place(&self, hash: u64) -> (usize, u16) {
        let set = (u64::from(hash as u32) * self.sets.len() as u64) >> 32;
        (set as usize, ((hash >> 32) as u16) << 4)
    }

    fn cell(&self, hash: u64) -> Option<(usize, usize)> {
        let (at, tag) = self.place(hash);
        let set = self.sets.get(at)?;
        // The tag bits cancel out, so that the count is left: 1 to 15 if it is the key's.
        let is_it = |cell: &u16| (cell ^ tag).wrapping_sub(1) < 15;
        // Mostly there is none, which shows without a branch per cell.
        if set
            .iter()
            .fold(0, |found, cell| found | u16::from(is_it(cell)))
            == 0
        {
            return None;
        }
        Some((at, set.iter().position(is_it)?))
    }

    /// Asks for the set of a key.
    #[inline]
    pub(super) fn foresee(&self, hash: u64) {
        if let Some(set) = self.sets.get(self.place(hash).0) {
            fetch(set);
        }
    }

    /// Uses remembered, 0 if none.
    pub(super) fn uses(&self, hash: u64) -> u32 {
        self.cell(hash)
            .map_or(0, |(set, way)| u32::from(self.sets[set][way] & 15))
    }

    /// Uses remembered; the key is forgotten.
    pub(super) fn take(&mut self, hash: u64) -> u32 {
        self.cell(hash).map_or(0, |(set, way)| {
            u32::from(std::mem::take(&mut self.sets[set][way]) & 15)
        })
    }

    /// Sizes the table for so many entries. Apart from `put`, because bytes may be allocated only
    /// where the shard can evict for them.
    pub(super) fn fit(&mut self, held: usize) {
        if self.sets.is_empty() {
            self.sets.reserve_exact(1);
            self.sets.push([0; WAYS]);
        }
        if self.sets.len() * WAYS < held * PER_ENTRY {
            // Each set becomes two equal ones; the wrong copy of a cell ages out.
            let old = std::mem::take(&mut self.sets);
            self.sets.reserve_exact(old.len() * 2);
            self.sets.extend(old.into_iter().flat_map(|set| [set, set]));
        }
    }

    /// Remembers a key not in the table.
    pub(super) fn put(&mut self, hash: u64, uses: u32) {
        if self.sets.is_empty() {
            return;
        }
        let (at, tag) = self.place(hash);
        let set = &mut self.sets[at];
        let new = tag | uses.clamp(1, 15) as u16;
        // Mostly all are taken, which shows without a branch per cell.
        if set
            .iter()
            .fold(0, |free, cell| free | u16::from(cell % 16 == 0))
            != 0
        {
            if let Some(cell) = set.iter_mut().find(|cell| **cell % 16 == 0) {
                *cell = new;
            }
            return;
        }
        loop {
            self.random = self
                .random
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let cell = &mut set[(self.random >> 27) as usize];
            if *cell & 15 == 1 {
                *cell = new;
                return;
            }
            *cell -= 1;
        }
    }
}
