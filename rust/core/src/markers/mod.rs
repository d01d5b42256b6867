//! The invalidation clock and the markers of each namespace, as this process knows them.
//!
//! An entry carries the stamp `(epoch, snap)`: the clock as it was known *before* its computation started. It
//! is valid while the epoch stands and no marker of its targets (namespace, key, tags, label prefixes) is
//! above its snap, and no rule that its label fits. So an invalidation costs as much as the targets it names,
//! however many entries they cover, and a value that was being computed meanwhile is invalid wherever it lands.
//!
//! The clocks here follow an authority (`adopt`), or are their own (`raise_here`). What the authority could not
//! be told yet has no seq, and is invalid whatever its stamp until it can be (`defer`).

mod pattern;
mod space;
mod target;

use std::sync::atomic::Ordering;

use crate::lock::{AtomicU64, RwLock};
use space::{ByTarget, Space, Subject};

pub use pattern::matches;
pub use target::{Target, key_target, label_prefixes, target};

/// Markers kept per namespace. Beyond it the older half goes, and entries older than those are invalid
/// (the floor): too strict, never too lax.
pub const MAX_MARKERS: usize = 1 << 16;

/// Rules kept per namespace; beyond it as with markers. Each costs every labelled entry older than it a look.
pub const MAX_RULES: usize = 256;

/// The state of a namespace's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Changes when the clock was seen to go backwards: everything older is invalid.
    pub epoch: u64,
    /// The clock's last known value.
    pub snap: u64,
}

/// All namespaces of a process.
#[derive(Debug)]
pub struct Markers {
    /// Grows with every invalidation, so that an entry checked since then need not be checked again.
    generation: AtomicU64,
    /// Epoch of clocks that no authority has named yet.
    epoch: u64,
    spaces: RwLock<ByTarget<Space>>,
}

impl Markers {
    /// Clocks of this process alone start with the given epoch, which should be random.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            generation: AtomicU64::new(1),
            epoch,
            spaces: RwLock::default(),
        }
    }

    /// Grows with everything that can make an entry invalid.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `change` gets the next generation and says whether it can have made an entry invalid.
    fn space<T>(&self, namespace: u64, change: impl FnOnce(&mut Space, u64) -> (bool, T)) -> T {
        #[cfg(feature = "planted-bug")]
        self.generation.fetch_add(1, Ordering::Release);
        let mut spaces = self.spaces.write();
        let space = spaces.entry(namespace).or_insert_with(|| {
            Space::new(Stamp {
                epoch: self.epoch,
                snap: 0,
            })
        });
        let next = self.generation.load(Ordering::Relaxed) + 1;
        let (invalidates, result) = change(space, next);
        if invalidates && cfg!(not(feature = "planted-bug")) {
            // While the lock is held: whoever sees the new generation sees the new markers.
            self.generation.store(next, Ordering::Release);
        }
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

    /// Raises markers and rules to a seq that the authority has allocated. What stands there already costs nothing
    /// further, so that a message may come twice.
    pub fn raise(&self, namespace: u64, targets: &[u64], rules: &[impl AsRef<str>], seq: u64) {
        self.space(namespace, |space, next| {
            (space.raise(targets, texts(rules), seq, next), ())
        });
    }

    /// Allocates `max(last + 1, now)` on this process' own clock and raises markers and rules to it.
    pub fn raise_here(
        &self,
        namespace: u64,
        targets: &[u64],
        rules: &[impl AsRef<str>],
        now: i64,
    ) -> u64 {
        self.space(namespace, |space, next| {
            let seq = (space.seq + 1).max(now.max(0).cast_unsigned());
            (space.raise(targets, texts(rules), seq, next), seq)
        })
    }

    /// Forgets rules: everything they cover is gone, or covered by other markers.
    pub fn forget_rules(&self, namespace: u64, rules: &[impl AsRef<str>]) {
        self.space(namespace, |space, _| {
            space.forget_rules(texts(rules));
            (false, ())
        });
    }

    /// Until as many deliveries, whatever names one of the targets or fits a rule is invalid, whatever its stamp:
    /// the seq is the authority's to allocate, and it is away. How many are kept is the caller's to bound.
    pub fn defer(&self, namespace: u64, targets: &[u64], rules: &[impl AsRef<str>]) {
        self.space(namespace, |space, next| {
            space.defer(targets, texts(rules), next);
            (true, ())
        });
    }

    /// The authority has been told of one deferral of these, and has allocated the stamp to them. With a snap
    /// of 0 they are taken back only: something wider stands for them.
    pub fn deliver(
        &self,
        namespace: u64,
        targets: &[u64],
        rules: &[impl AsRef<str>],
        stamp: Stamp,
    ) {
        self.space(namespace, |space, next| {
            space.delivered(targets, texts(rules));
            if stamp.snap == 0 {
                return (false, ());
            }
            let moved = space.adopt(stamp);
            let raised = space.raise(targets, texts(rules), stamp.snap, next);
            (moved || raised, ())
        });
    }

    /// Takes over what the authority says of a namespace's clock. A new epoch forgets all markers and rules, since
    /// no entry of an older epoch is valid any more; what is deferred stays.
    pub fn adopt(&self, namespace: u64, stamp: Stamp) {
        self.space(namespace, |space, _| (space.adopt(stamp), ()));
    }

    /// Whether an entry with this stamp, these targets and this label may be served.
    pub fn valid(
        &self,
        namespace: u64,
        stamp: Stamp,
        targets: &[u64],
        label: Option<&str>,
    ) -> bool {
        let subject = Subject {
            own: [],
            targets,
            label: || label,
            since: 0,
        };
        self.allows(namespace, stamp, subject)
    }

    /// Whether an entry may be served: `valid` for its namespace, its key and what else it can be invalidated by.
    ///
    /// `label` is called only if there are rules. `since` is a generation in which the entry was found valid, 0 if
    /// there is none: rules of then are not asked again.
    #[inline]
    pub fn valid_entry<'a>(
        &self,
        namespace: u64,
        stamp: Stamp,
        key: &[u8; 32],
        targets: &'a [u64],
        label: impl FnOnce() -> Option<&'a str>,
        since: u64,
    ) -> bool {
        let subject = Subject {
            own: [namespace, key_target(key)],
            targets,
            label,
            since,
        };
        self.allows(namespace, stamp, subject)
    }

    #[inline]
    fn allows<'a, const N: usize>(
        &self,
        namespace: u64,
        stamp: Stamp,
        subject: Subject<'a, N, impl FnOnce() -> Option<&'a str>>,
    ) -> bool {
        let spaces = self.spaces.read();
        spaces
            .get(&namespace)
            .map_or(stamp.epoch == self.epoch, |space| {
                space.allows(stamp, subject)
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

fn texts(rules: &[impl AsRef<str>]) -> impl Iterator<Item = &str> {
    rules.iter().map(AsRef::as_ref)
}
