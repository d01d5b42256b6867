//! The few best of many, as a search goes.

use super::Id;
use super::flat::Head;

/// A found entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Its key.
    pub key: Id,
    /// The cosine between it and what was asked.
    pub cosine: f32,
    /// Of two equals the older comes first.
    pub(super) age: u32,
}

/// Rough estimates, of which the best are looked at again.
pub(super) struct Rough {
    limit: usize,
    best: Vec<(f32, usize)>,
    least: f32,
}

impl Rough {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            best: Vec::with_capacity(limit + 1),
            least: f32::NEG_INFINITY,
        }
    }

    #[inline]
    pub(super) fn offer(&mut self, estimate: f32, at: usize) {
        if estimate > self.least {
            self.keep(estimate, at);
        }
    }

    #[cold]
    fn keep(&mut self, estimate: f32, at: usize) {
        let place = self.best.partition_point(|&(other, _)| other >= estimate);
        self.best.insert(place, (estimate, at));
        if self.best.len() > self.limit {
            self.best.pop();
        }
        if self.best.len() == self.limit
            && let Some(&(least, _)) = self.best.last()
        {
            self.least = least;
        }
    }

    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.best.iter().map(|&(_, at)| at)
    }
}

/// Matches at or above a floor.
pub(super) struct Best {
    /// How many are wanted.
    pub(super) limit: usize,
    floor: f32,
    found: Vec<Match>,
}

impl Best {
    pub(super) fn new(limit: usize, floor: f32) -> Self {
        Self {
            limit,
            floor,
            found: Vec::new(),
        }
    }

    pub(super) fn offer(&mut self, head: &Head, cosine: f32) {
        if cosine >= self.floor {
            self.found.push(Match {
                key: head.key,
                cosine,
                age: head.age,
            });
        }
    }

    /// Best first.
    pub(super) fn into_matches(mut self) -> Vec<Match> {
        self.found
            .sort_unstable_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.age.cmp(&b.age)));
        self.found.truncate(self.limit);
        self.found
    }
}
