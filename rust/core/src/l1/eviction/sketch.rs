//! A count-min sketch of four-bit counters that halves itself: how often keys were used lately.
//!
//! Source: Einziger, Friedman, Manes, "`TinyLFU`: a highly efficient cache admission policy" (ACM
//! `ToS` 2017). Four counters per key lie in one 64-byte line. The table doubles by copying itself
//! (an estimate never falls because of growth), so that its size follows the number of entries.

/// Counters (half bytes) per tracked key.
const COUNTERS_PER_KEY: usize = 8;
/// Uses per tracked key after which all counters are halved.
const SAMPLE: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Sketch {
    /// Lines of eight words of sixteen counters.
    lines: Vec<[u64; 8]>,
    added: usize,
}

impl Sketch {
    pub(super) fn bytes(&self) -> u64 {
        (self.lines.capacity() * 64) as u64
    }

    /// Makes room for `keys` keys.
    pub(super) fn fit(&mut self, keys: usize) {
        let needed = (keys * COUNTERS_PER_KEY).div_ceil(128).next_power_of_two();
        while self.lines.len() < needed {
            if self.lines.is_empty() {
                self.lines.push([0; 8]);
            } else {
                self.lines.reserve_exact(self.lines.len());
                self.lines.extend_from_within(..);
            }
        }
    }

    /// Word and shift of the four counters of a key.
    #[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
    fn counters(&self, hash: u64) -> Option<(usize, [(usize, u32); 4])> {
        let line = (hash as usize) & self.lines.len().checked_sub(1)?;
        let bits = (hash >> 32) as u32;
        Some((
            line,
            std::array::from_fn(|row| {
                let part = bits >> (row * 5);
                (row * 2 + (part & 1) as usize, (part >> 1 & 15) * 4)
            }),
        ))
    }

    pub(super) fn estimate(&self, hash: u64) -> u32 {
        let Some((line, counters)) = self.counters(hash) else {
            return 0;
        };
        counters
            .iter()
            .map(|&(word, shift)| (self.lines[line][word] >> shift & 15) as u32)
            .min()
            .unwrap_or(0)
    }

    /// Counts a use; conservative update: only the smallest counters grow.
    pub(super) fn add(&mut self, hash: u64) {
        let Some((line, counters)) = self.counters(hash) else {
            return;
        };
        let least = self.estimate(hash);
        if least < 15 {
            for (word, shift) in counters {
                let word = &mut self.lines[line][word];
                if *word >> shift & 15 == u64::from(least) {
                    *word += 1 << shift;
                }
            }
        }
        self.added += 1;
        if self.added > self.lines.len() * 128 / COUNTERS_PER_KEY * SAMPLE {
            self.added /= 2;
            for word in self.lines.iter_mut().flatten() {
                *word = *word >> 1 & 0x7777_7777_7777_7777;
            }
        }
    }
}
