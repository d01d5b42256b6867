//! What is known of one namespace's clock: its markers, its rules, and what waits to be told to the authority.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::pattern::matches;
use super::{MAX_MARKERS, MAX_RULES, Stamp};

/// Targets are digests, so nearly any hash will do; a seeded one, because who chooses tags can choose their
/// digests' lower bits.
pub(super) type ByTarget<T> = HashMap<u64, T, RandomState>;

/// What an entry can be invalidated by.
pub(super) struct Subject<'a, const N: usize, L> {
    /// Namespace and key, where they are not among `targets`.
    pub(super) own: [u64; N],
    pub(super) targets: &'a [u64],
    /// Gives the label. Called only if there are rules.
    pub(super) label: L,
    /// A generation in which it was found valid: rules of then need no second look.
    pub(super) since: u64,
}

/// A pattern of labels with the generation it came in.
#[derive(Debug)]
struct Rule {
    pattern: Box<str>,
    since: u64,
    /// The seq it was raised to; of a deferred one, how many deliveries are to come.
    count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    floor: u64,
    pub(super) markers: ByTarget<u64>,
    rules: Vec<Rule>,
    /// Targets of invalidations that the authority was not told of yet, with the number of deliveries to come.
    deferred: ByTarget<u64>,
    deferred_rules: Vec<Rule>,
}

impl Space {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self {
            epoch: stamp.epoch,
            seq: stamp.snap,
            ..Self::default()
        }
    }

    /// Forgets all markers and rules, since no entry of an older epoch is valid any more. What is deferred has
    /// no seq yet, and stays. Whether the epoch is another.
    pub(super) fn adopt(&mut self, stamp: Stamp) -> bool {
        if self.epoch == stamp.epoch {
            self.seq = self.seq.max(stamp.snap);
            return false;
        }
        *self = Self {
            deferred: std::mem::take(&mut self.deferred),
            deferred_rules: std::mem::take(&mut self.deferred_rules),
            ..Self::new(stamp)
        };
        true
    }

    /// `generation` is the one in which this is seen. Whether anything is raised that was not.
    pub(super) fn raise<'a>(
        &mut self,
        targets: &[u64],
        rules: impl IntoIterator<Item = &'a str>,
        seq: u64,
        generation: u64,
    ) -> bool {
        self.seq = self.seq.max(seq);
        let mut raised = false;
        for &target in targets {
            let marker = self.markers.entry(target).or_default();
            raised |= *marker < seq;
            *marker = seq.max(*marker);
        }
        if self.markers.len() > MAX_MARKERS {
            let floor = middle(self.markers.values().copied());
            raised |= self.floor < floor;
            self.floor = self.floor.max(floor);
            self.markers.retain(|_, seq| *seq > floor);
        }
        for pattern in rules {
            let rule = rule(&mut self.rules, pattern);
            if rule.count < seq {
                raised = true;
                rule.count = seq;
                rule.since = generation;
            }
        }
        if self.rules.len() > MAX_RULES {
            let floor = middle(self.rules.iter().map(|rule| rule.count));
            raised |= self.floor < floor;
            self.floor = self.floor.max(floor);
            self.rules.retain(|rule| rule.count > floor);
        }
        raised
    }

    pub(super) fn forget_rules<'a>(&mut self, patterns: impl IntoIterator<Item = &'a str>) {
        for pattern in patterns {
            self.rules.retain(|rule| &*rule.pattern != pattern);
        }
    }

    pub(super) fn defer<'a>(
        &mut self,
        targets: &[u64],
        rules: impl IntoIterator<Item = &'a str>,
        generation: u64,
    ) {
        for &target in targets {
            *self.deferred.entry(target).or_default() += 1;
        }
        for pattern in rules {
            let rule = rule(&mut self.deferred_rules, pattern);
            rule.count += 1;
            rule.since = generation;
        }
    }

    /// Takes back one deferral of each.
    pub(super) fn delivered<'a>(
        &mut self,
        targets: &[u64],
        rules: impl IntoIterator<Item = &'a str>,
    ) {
        for target in targets {
            if let Some(waiting) = self.deferred.get_mut(target) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.deferred.remove(target);
                }
            }
        }
        for pattern in rules {
            if let Some(at) = position(&self.deferred_rules, pattern) {
                self.deferred_rules[at].count -= 1;
                if self.deferred_rules[at].count == 0 {
                    self.deferred_rules.swap_remove(at);
                }
            }
        }
    }

    #[inline]
    pub(super) fn allows<'a, const N: usize>(
        &self,
        stamp: Stamp,
        subject: Subject<'a, N, impl FnOnce() -> Option<&'a str>>,
    ) -> bool {
        let above = |target| {
            self.markers
                .get(target)
                .is_some_and(|&marker| marker > stamp.snap)
        };
        let defers = |target| self.deferred.contains_key(target);
        let Subject {
            own,
            targets,
            label,
            since,
        } = subject;
        stamp.epoch == self.epoch
            && stamp.snap >= self.floor
            && !targets.iter().any(above)
            && !own.iter().any(above)
            && (self.deferred.is_empty() || !targets.iter().any(defers) && !own.iter().any(defers))
            && (self.rules.is_empty() && self.deferred_rules.is_empty()
                || label().is_none_or(|label| !self.rules_out(stamp, label, since)))
    }

    fn rules_out(&self, stamp: Stamp, label: &str, since: u64) -> bool {
        let covers = |rule: &Rule| rule.since > since && matches(&rule.pattern, label);
        let above = |rule: &Rule| rule.count > stamp.snap;
        self.rules.iter().any(|rule| above(rule) && covers(rule))
            || self.deferred_rules.iter().any(covers)
    }
}

fn position(rules: &[Rule], pattern: &str) -> Option<usize> {
    rules.iter().position(|rule| &*rule.pattern == pattern)
}

/// The rule of a pattern, made if there is none.
fn rule<'a>(rules: &'a mut Vec<Rule>, pattern: &str) -> &'a mut Rule {
    let at = position(rules, pattern).unwrap_or_else(|| {
        rules.push(Rule {
            pattern: pattern.into(),
            since: 0,
            count: 0,
        });
        rules.len() - 1
    });
    &mut rules[at]
}

/// The seq up to which the older half goes.
fn middle(seqs: impl Iterator<Item = u64>) -> u64 {
    let mut seqs: Vec<u64> = seqs.collect();
    let half = seqs.len() / 2;
    *seqs.select_nth_unstable(half).1
}
