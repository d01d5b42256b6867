//! The rest of `Engine`: entries, markers and statistics, for the parts of the cache written in Python.

use llmcache_core::fingerprint::Fingerprint;
use llmcache_core::l1::{NewEntry, Outcome};
use llmcache_core::markers::{Stamp, Target, key_target, label_prefixes, target};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{Borrowed, intern};
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::stored::{Facts, Stored, View, object_bytes};

/// Tags, label, names of versions, and the facts as they are packed.
type Given<'py> = (
    Vec<String>,
    Option<String>,
    Vec<String>,
    Bound<'py, PyBytes>,
);

/// What an entry can be invalidated by, beside its namespace and its key.
fn named(
    namespace: &str,
    tags: &[String],
    label: Option<&str>,
    versions: &[String],
) -> SmallVec<[u64; 3]> {
    let tags = tags.iter().map(|tag| target(namespace, Target::Tag(tag)));
    let labels = label
        .into_iter()
        .flat_map(label_prefixes)
        .map(|prefix| target(namespace, Target::Label(prefix)));
    let versions = versions
        .iter()
        .map(|name| target(namespace, Target::Version(name)));
    tags.chain(labels).chain(versions).collect()
}

#[pymethods]
impl Engine {
    /// Puts an entry into memory. Returns "stored", "replaced", "older", "`too_large`", "`not_admitted`" or, when
    /// a marker stands above its stamp, "invalid". `facts`: its tags, label, names of versions and packed form,
    /// if it has any. All arguments may be given by position, which spares a name's look-up each.
    #[expect(clippy::too_many_arguments, reason = "what an entry has, in one call")]
    fn _insert<'py>(
        &self,
        key: Fingerprint,
        value: Bound<'py, PyAny>,
        namespace: &str,
        facts: Option<Given<'py>>,
        created: i64,
        fresh_until: i64,
        stale_until: i64,
        cost: u64,
        epoch: u64,
        snap: u64,
    ) -> PyResult<Borrowed<'py, 'py, PyString>> {
        let py = value.py();
        let core = self.core()?;
        let (targets, packed, label) = match &facts {
            None => (SmallVec::new(), &[][..], None),
            Some((tags, label, versions, packed)) => (
                named(namespace, tags, label.as_deref(), versions),
                packed.as_bytes(),
                label.as_deref(),
            ),
        };
        // Read before the check: a marker raised after it makes the entry be checked again.
        let checked = core.markers.generation();
        let namespace = core.namespace_id(namespace);
        let stamp = Stamp { epoch, snap };
        if !core
            .markers
            .valid_entry(namespace, stamp, &key, &targets, || label, 0)
        {
            return Ok(intern!(py, "invalid").as_borrowed());
        }
        let bare = namespace == core.home && targets.is_empty() && packed.is_empty();
        let facts = if bare {
            None
        } else {
            Some(Box::new(Facts::new(namespace, targets, packed, label)?))
        };
        let entry = NewEntry {
            key,
            payload_bytes: object_bytes(&value)? as u64,
            value: Stored::new(value),
            facts_bytes: facts
                .as_ref()
                .map_or(0, |facts| u32::try_from(facts.bytes()).unwrap_or(u32::MAX)),
            facts,
            created,
            fresh_until,
            stale_until,
            cost,
            epoch,
            snap,
            checked,
        };
        // The clock of the look-ups: up to a tick late, so that nothing is taken for expired too early.
        let inserted = core.l1.insert(entry, core.clock.coarse());
        Ok(match inserted.outcome {
            Outcome::Stored => intern!(py, "stored"),
            Outcome::Replaced => intern!(py, "replaced"),
            Outcome::Older => intern!(py, "older"),
            Outcome::TooLarge => intern!(py, "too_large"),
            Outcome::NotAdmitted => intern!(py, "not_admitted"),
        }
        .as_borrowed())
    }

    /// The entry in memory, fresh or stale; counts as a look-up.
    fn _view(&self, py: Python<'_>, key: Fingerprint) -> PyResult<Option<View>> {
        let core = self.core()?;
        let generation = core.markers.generation();
        Ok(core.l1.view(
            &key,
            core.clock.now(),
            generation,
            |entry| core.valid(&key, entry),
            |value, entry| View::of(py, value, entry),
        ))
    }

    /// The entry in memory, fresh or stale; leaves statistics and policy as they are.
    fn _peek(&self, py: Python<'_>, key: Fingerprint) -> PyResult<Option<View>> {
        let core = self.core()?;
        let generation = core.markers.generation();
        Ok(core.l1.peek(
            &key,
            core.clock.now(),
            generation,
            |entry| core.valid(&key, entry),
            |value, entry| View::of(py, value, entry),
        ))
    }

    /// Takes an entry out of memory; whether there was one.
    fn _remove(&self, key: Fingerprint) -> PyResult<bool> {
        Ok(self.core()?.l1.remove(&key).is_some())
    }

    /// Ends an entry's freshness in memory; whether there was one.
    fn _expire(&self, key: Fingerprint) -> PyResult<bool> {
        let core = self.core()?;
        // The clock of the look-ups: the exact one may be a tick ahead of it, and the entry fresh until then.
        Ok(core.l1.expire(&key, core.clock.coarse()))
    }

    /// Empties memory; how many entries there were.
    fn _clear(&self) -> PyResult<usize> {
        Ok(self.core()?.l1.clear().len())
    }

    /// The number of a namespace.
    #[staticmethod]
    fn _namespace_id(namespace: &str) -> u64 {
        target(namespace, Target::Namespace)
    }

    /// The targets that an invalidation names; of a label ending in `/`, all below it.
    #[staticmethod]
    #[pyo3(signature = (namespace, *, keys=Vec::new(), tags=Vec::new(), labels=Vec::new(), versions=Vec::new()))]
    fn _named_targets(
        namespace: &str,
        keys: Vec<Fingerprint>,
        tags: Vec<String>,
        labels: Vec<String>,
        versions: Vec<String>,
    ) -> Vec<u64> {
        let keys = keys.iter().map(Target::Key);
        let tags = tags.iter().map(|tag| Target::Tag(tag));
        let labels = labels.iter().map(|label| Target::Label(label));
        let versions = versions.iter().map(|name| Target::Version(name));
        keys.chain(tags)
            .chain(labels)
            .chain(versions)
            .map(|named| target(namespace, named))
            .collect()
    }

    /// All targets of an entry, the namespace's first.
    #[staticmethod]
    fn _entry_targets(
        namespace: &str,
        key: Fingerprint,
        tags: Vec<String>,
        label: Option<&str>,
        versions: Vec<String>,
    ) -> Vec<u64> {
        let mut all = vec![target(namespace, Target::Namespace), key_target(&key)];
        all.extend(named(namespace, &tags, label, &versions));
        all
    }

    /// Exact counters of each shard.
    fn _shards<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let shards = self.core()?.l1.stats();
        shards
            .into_iter()
            .map(|shard| {
                let row = PyDict::new(py);
                for (name, value) in [
                    ("hits", shard.hits),
                    ("hit_cost", shard.hit_cost),
                    ("stale_hits", shard.stale_hits),
                    ("misses", shard.misses),
                    ("inserts", shard.inserts),
                    ("replaced", shard.replaced),
                    ("evictions", shard.evictions),
                    ("evicted_bytes", shard.evicted_bytes),
                    ("evicted_cost", shard.evicted_cost),
                    ("expirations", shard.expirations),
                    ("invalidated", shard.invalidated),
                    ("removed", shard.removed),
                    ("older", shard.older),
                    ("too_large", shard.too_large),
                    ("not_admitted", shard.not_admitted),
                    ("entries", shard.len),
                    ("bytes", shard.bytes),
                    ("capacity", shard.capacity),
                ] {
                    row.set_item(name, value)?;
                }
                Ok(row)
            })
            .collect()
    }
}
