//! The part of `Engine` that says what is invalid: markers, rules, what is deferred, and the strict lease.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use llmcache_core::markers::{Stamp, key_target, matches};
use pyo3::prelude::*;

use crate::engine::Engine;

#[pymethods]
impl Engine {
    /// `(epoch, snap)` for what starts now in a namespace.
    fn _stamp(&self, namespace: u64) -> PyResult<(u64, u64)> {
        let stamp = self.core()?.markers.stamp(namespace);
        Ok((stamp.epoch, stamp.snap))
    }

    /// Takes over what the authority says of a namespace's clock.
    fn _adopt(&self, namespace: u64, epoch: u64, snap: u64) -> PyResult<()> {
        self.core()?.markers.adopt(namespace, Stamp { epoch, snap });
        Ok(())
    }

    /// Raises markers and rules to `seq`, or to the next of this process' own clock; returns the seq.
    #[pyo3(signature = (namespace, targets, seq=None, rules=Vec::new()))]
    fn _raise(
        &self,
        namespace: u64,
        targets: Vec<u64>,
        seq: Option<u64>,
        rules: Vec<String>,
    ) -> PyResult<u64> {
        let core = self.core()?;
        Ok(match seq {
            Some(seq) => {
                core.markers.raise(namespace, &targets, &rules, seq);
                seq
            }
            None => core
                .markers
                .raise_here(namespace, &targets, &rules, core.clock.now()),
        })
    }

    /// Raises rules to `seq`.
    fn _raise_rules(&self, namespace: u64, rules: Vec<String>, seq: u64) -> PyResult<()> {
        self.core()?.markers.raise(namespace, &[], &rules, seq);
        Ok(())
    }

    /// Forgets rules: what they covered is gone, or covered by other markers.
    fn _forget_rules(&self, namespace: u64, rules: Vec<String>) -> PyResult<()> {
        self.core()?.markers.forget_rules(namespace, &rules);
        Ok(())
    }

    /// Until as many deliveries, whatever names a target or fits a rule is invalid, whatever its stamp.
    #[pyo3(signature = (namespace, targets, rules=Vec::new()))]
    fn _defer(&self, namespace: u64, targets: Vec<u64>, rules: Vec<String>) -> PyResult<()> {
        self.core()?.markers.defer(namespace, &targets, &rules);
        Ok(())
    }

    /// Takes back one deferral of each and raises them to `seq`, in one step; with a seq of 0, only the former.
    fn _deliver(
        &self,
        namespace: u64,
        targets: Vec<u64>,
        rules: Vec<String>,
        epoch: u64,
        seq: u64,
    ) -> PyResult<()> {
        let stamp = Stamp { epoch, snap: seq };
        self.core()?
            .markers
            .deliver(namespace, &targets, &rules, stamp);
        Ok(())
    }

    /// Whether an entry with this stamp, these targets and this label may be served.
    #[pyo3(signature = (namespace, epoch, snap, targets, label=None))]
    fn _valid(
        &self,
        namespace: u64,
        epoch: u64,
        snap: u64,
        targets: Vec<u64>,
        label: Option<&str>,
    ) -> PyResult<bool> {
        let stamp = Stamp { epoch, snap };
        Ok(self
            .core()?
            .markers
            .valid(namespace, stamp, &targets, label))
    }

    /// Whether a label fits a rule.
    #[staticmethod]
    fn _matches(rule: &str, label: &str) -> bool {
        matches(rule, label)
    }

    /// `(entries, bytes)` in memory that could be served and that an invalidation of these would cover. Looks at
    /// every entry.
    fn _matching(
        &self,
        namespace: u64,
        targets: Vec<u64>,
        rules: Vec<String>,
    ) -> PyResult<(u64, u64)> {
        let core = self.core()?;
        let targets: HashSet<u64> = targets.into_iter().collect();
        let now = core.clock.now();
        let (mut count, mut bytes) = (0, 0);
        core.l1.for_each(|key, entry| {
            let facts = entry.facts();
            let covered = facts.map_or(core.home, |facts| facts.namespace) == namespace
                && (targets.contains(&namespace)
                    || targets.contains(&key_target(key))
                    || facts.is_some_and(|facts| {
                        facts.targets.iter().any(|target| targets.contains(target))
                            || facts
                                .label()
                                .is_some_and(|label| rules.iter().any(|rule| matches(rule, label)))
                    }));
            let live = now < entry.fresh_until() || now < entry.stale_until();
            if covered && live && core.valid(key, entry) {
                count += 1;
                bytes += entry.payload_bytes() + facts.map_or(0, |facts| facts.bytes() as u64);
            }
        });
        Ok((count, bytes))
    }

    /// Takes out of memory all that an invalidation covers, which nobody is served any more; how many there
    /// were. Looks at every entry.
    fn _drop_invalid(&self) -> PyResult<usize> {
        let core = self.core()?;
        let mut invalid = Vec::new();
        core.l1.for_each(|key, entry| {
            if !core.valid(key, entry) {
                invalid.push(*key);
            }
        });
        // One that was put meanwhile goes with it: it is computed again.
        Ok(invalid
            .iter()
            .filter(|key| core.l1.remove(key).is_some())
            .count())
    }

    /// What is known of the markers is known to be all there is until `until` of the monotonic clock.
    fn _vouch(&self, until: i64) -> PyResult<()> {
        self.core()?.vouched.store(until, Ordering::Relaxed);
        Ok(())
    }
}
