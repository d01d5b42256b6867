//! The invalidation clock and the markers of each namespace, as this process knows them.
//!
//! An entry carries the stamp `(epoch, snap)`: the clock as it was known *before* its computation started. It
//! is valid while the epoch stands and no marker of its targets (namespace, key, tags, label prefixes) is
//! above its snap. So an invalidation costs as much as the targets it names, however many entries they
//! cover, and a value that was being computed meanwhile is invalid wherever it lands.
//!
//! The clocks here follow an authority (`adopt`), or are their own (`raise_here`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Markers kept per namespace. Beyond it the older half goes, and entries older than those are invalid
/// (the floor): too strict, never too lax.
pub const MAX_MARKERS: usize = 1 << 16;

/// What an invalidation can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// All of the namespace.
    Namespace,
    /// One entry.
    Key(&'a [u8; 32]),
    /// Entries with this tag.
    Tag(&'a str),
    /// Entries with this label, or with a label below it if it ends with a slash.
    Label(&'a str),
    /// Entries that depend on this name's version.
    Version(&'a str),
}

/// The number that stands for a target, so that tiers and markers hold no text.
///
/// 64 bits of BLAKE3; of a key, whose digest is one already, 64 of its bits. A collision invalidates too much,
/// never too little.
pub fn target(namespace: &str, target: Target<'_>) -> u64 {
    let (kind, name): (u8, &[u8]) = match target {
        Target::Key(key) => return key_target(key),
        Target::Namespace => (0, &[]),
        Target::Tag(tag) => (2, tag.as_bytes()),
        Target::Label(label) => (3, label.as_bytes()),
        Target::Version(name) => (4, name.as_bytes()),
    };
    let mut hasher = blake3::Hasher::new_keyed(b"llmcache_fast/invalidate/target1");
    hasher.update(&(namespace.len() as u64).to_le_bytes());
    hasher.update(namespace.as_bytes());
    hasher.update(&[kind]);
    hasher.update(name);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The target of a key. The namespace is in the key already.
#[inline]
pub fn key_target(key: &[u8; 32]) -> u64 {
    let mut bits = [0; 8];
    bits.copy_from_slice(&key[16..24]);
    u64::from_le_bytes(bits)
}

/// The label itself and each of its prefixes that end with a slash: `a/b/c` gives `a/`, `a/b/` and `a/b/c`.
pub fn label_prefixes(label: &str) -> impl Iterator<Item = &str> {
    let whole = if label.ends_with('/') {
        None
    } else {
        Some(label)
    };
    label
        .match_indices('/')
        .map(|(at, _)| &label[..=at])
        .chain(whole)
}

/// The state of a namespace's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Changes when the clock was seen to go backwards: everything older is invalid.
    pub epoch: u64,
    /// The clock's last known value.
    pub snap: u64,
}

#[derive(Debug, Default)]
struct Space {
    epoch: u64,
    seq: u64,
    floor: u64,
    markers: HashMap<u64, u64>,
}

impl Space {
    fn raise(&mut self, targets: &[u64], seq: u64) {
        self.seq = self.seq.max(seq);
        for &target in targets {
            let marker = self.markers.entry(target).or_default();
            *marker = (*marker).max(seq);
        }
        if self.markers.len() > MAX_MARKERS {
            let mut seqs: Vec<u64> = self.markers.values().copied().collect();
            let half = seqs.len() / 2;
            let middle = *seqs.select_nth_unstable(half).1;
            self.floor = self.floor.max(middle);
            self.markers.retain(|_, seq| *seq > middle);
        }
    }
}

/// All namespaces of a process.
#[derive(Debug)]
pub struct Markers {
    /// Grows with every change, so that an entry checked since then need not be checked again.
    generation: AtomicU64,
    /// Epoch of clocks that no authority has named yet.
    epoch: u64,
    spaces: RwLock<HashMap<u64, Space>>,
}

impl Markers {
    /// Clocks of this process alone start with the given epoch, which should be random.
    pub fn new(epoch: u64) -> Self {
        Self {
            generation: AtomicU64::new(1),
            epoch,
            spaces: RwLock::default(),
        }
    }

    /// Grows with every change of any marker or epoch.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn space<T>(&self, namespace: u64, change: impl FnOnce(&mut Space) -> T) -> T {
        let mut spaces = self.spaces.write();
        let space = spaces.entry(namespace).or_insert_with(|| Space {
            epoch: self.epoch,
            ..Space::default()
        });
        let result = change(space);
        // While the lock is held: whoever sees the new generation sees the new markers.
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// The stamp for what starts now. Never ahead of the authority, so never too lax.
    pub fn stamp(&self, namespace: u64) -> Stamp {
        let spaces = self.spaces.read();
        spaces.get(&namespace).map_or(
            Stamp {
                epoch: self.epoch,
                snap: 0,
            },
            |space| Stamp {
                epoch: space.epoch,
                snap: space.seq,
            },
        )
    }

    /// Raises markers to a seq that the authority has allocated.
    pub fn raise(&self, namespace: u64, targets: &[u64], seq: u64) {
        self.space(namespace, |space| space.raise(targets, seq));
    }

    /// Allocates `max(last + 1, now)` on this process' own clock and raises the markers to it.
    pub fn raise_here(&self, namespace: u64, targets: &[u64], now: i64) -> u64 {
        self.space(namespace, |space| {
            let seq = (space.seq + 1).max(now.max(0).cast_unsigned());
            space.raise(targets, seq);
            seq
        })
    }

    /// Takes over what the authority says of a namespace's clock. A new epoch forgets all markers, since no
    /// entry of an older epoch is valid any more.
    pub fn adopt(&self, namespace: u64, stamp: Stamp) {
        self.space(namespace, |space| {
            if space.epoch == stamp.epoch {
                space.seq = space.seq.max(stamp.snap);
            } else {
                *space = Space {
                    epoch: stamp.epoch,
                    seq: stamp.snap,
                    ..Space::default()
                };
            }
        });
    }

    /// Whether an entry with this stamp and these targets may be served.
    pub fn valid(&self, namespace: u64, stamp: Stamp, targets: &[u64]) -> bool {
        self.valid_all(namespace, stamp, targets.iter())
    }

    /// Whether an entry may be served: `valid` for its namespace, its key and what else it can be invalidated by.
    pub fn valid_entry(
        &self,
        namespace: u64,
        stamp: Stamp,
        key: &[u8; 32],
        targets: &[u64],
    ) -> bool {
        let own = [namespace, key_target(key)];
        self.valid_all(namespace, stamp, targets.iter().chain(&own))
    }

    fn valid_all<'a>(
        &self,
        namespace: u64,
        stamp: Stamp,
        mut targets: impl Iterator<Item = &'a u64>,
    ) -> bool {
        let spaces = self.spaces.read();
        let Some(space) = spaces.get(&namespace) else {
            return stamp.epoch == self.epoch;
        };
        stamp.epoch == space.epoch
            && stamp.snap >= space.floor
            && targets.all(|target| {
                space
                    .markers
                    .get(target)
                    .is_none_or(|&marker| marker <= stamp.snap)
            })
    }

    /// Markers known, over all namespaces.
    pub fn len(&self) -> usize {
        self.spaces
            .read()
            .values()
            .map(|space| space.markers.len())
            .sum()
    }

    /// Whether no marker is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
