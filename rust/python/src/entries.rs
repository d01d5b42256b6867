//! The rest of `Engine`: entries, markers and statistics, for the parts of the cache written in Python.

use llmcache_core::envelope::{ContentType, Kind, facts, intact};
use llmcache_core::fingerprint::Fingerprint;
use llmcache_core::l1::{NewEntry, Outcome};
use llmcache_core::markers::{Stamp, Target, key_target, label_prefixes, target};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{Borrowed, intern};
use smallvec::SmallVec;

use crate::engine::{Core, Engine};
use crate::envelope::opened;
use crate::keyring::Keyring;
use crate::stored::{Facts, Stored, View, object_bytes};

/// Tags, label, names of versions, and the facts as they are packed.
type Given<'py> = (
    Vec<String>,
    Option<String>,
    Vec<String>,
    Bound<'py, PyBytes>,
);

/// What an entry can be invalidated by, beside its namespace and its key.
fn named<S: AsRef<str>>(
    namespace: &str,
    tags: &[S],
    label: Option<&str>,
    versions: &[S],
) -> SmallVec<[u64; 3]> {
    let tags = tags
        .iter()
        .map(|tag| target(namespace, Target::Tag(tag.as_ref())));
    let labels = label
        .into_iter()
        .flat_map(label_prefixes)
        .map(|prefix| target(namespace, Target::Label(prefix)));
    let versions = versions
        .iter()
        .map(|name| target(namespace, Target::Version(name.as_ref())));
    tags.chain(labels).chain(versions).collect()
}

/// Absolute times of an entry.
struct Times {
    created: i64,
    fresh_until: i64,
    stale_until: i64,
}

impl Core {
    /// Puts an entry into memory, unless a marker stands above its stamp: then `None`.
    #[expect(clippy::too_many_arguments, reason = "what an entry has, in one call")]
    fn put(
        &self,
        key: Fingerprint,
        value: Bound<'_, PyAny>,
        namespace: &str,
        targets: SmallVec<[u64; 3]>,
        packed: &[u8],
        label: Option<&str>,
        times: Times,
        cost: u64,
        stamp: Stamp,
    ) -> PyResult<Option<Outcome>> {
        // Read before the check: a marker raised after it makes the entry be checked again.
        let checked = self.markers.generation();
        let namespace = self.namespace_id(namespace);
        if !self
            .markers
            .valid_entry(namespace, stamp, &key, &targets, || label, 0)
        {
            return Ok(None);
        }
        let bare = namespace == self.home && targets.is_empty() && packed.is_empty();
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
            created: times.created,
            fresh_until: times.fresh_until,
            stale_until: times.stale_until,
            cost,
            epoch: stamp.epoch,
            snap: stamp.snap,
            checked,
        };
        // The clock of the look-ups: up to a tick late, so that nothing is taken for expired too early.
        Ok(Some(self.l1.insert(entry, self.clock.coarse()).outcome))
    }

    /// As `Engine::_promote`. `intact`: the record's checksum is known to be right.
    fn promote<'py>(
        &self,
        data: &Bound<'py, PyBytes>,
        namespace: &str,
        key: Fingerprint,
        keyring: Option<&Keyring>,
        unpack: &Bound<'py, PyAny>,
        intact: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = data.py();
        let mut room = Vec::new();
        let bytes = data.as_bytes();
        let Ok(view) = opened(py, bytes, namespace, &key, keyring, &mut room, intact) else {
            return Ok(None);
        };
        let header = view.header;
        let now = self.clock.now();
        if header.kind != Kind::Value || now >= header.fresh_until.min(header.stale_until) {
            return Ok(None);
        }
        let (unpacked, bare): (Option<String>, Bound<'py, PyBytes>);
        let (targets, label, packed) = if view.facts.is_empty() {
            (SmallVec::new(), None, view.facts)
        } else if let Some(facts) = facts::named(view.facts) {
            let targets = named(namespace, &facts.tags, facts.label, &facts.versions);
            (targets, facts.label, view.facts)
        } else {
            let Ok(found) = unpack.call1((PyBytes::new(py, view.facts),)) else {
                return Ok(None);
            };
            let facts: Bound<'py, PyAny>;
            (facts, bare) = found.extract()?;
            let tags: Vec<String> = facts.getattr(intern!(py, "tags"))?.extract()?;
            unpacked = facts.getattr(intern!(py, "label"))?.extract()?;
            let versions: Vec<String> = facts.getattr(intern!(py, "depends_on"))?.extract()?;
            let targets = named(namespace, &tags, unpacked.as_deref(), &versions);
            (targets, unpacked.as_deref(), bare.as_bytes())
        };
        let value = match header.content_type {
            ContentType::Bytes => PyBytes::new(py, &view.payload).into_any(),
            ContentType::Text => match str::from_utf8(&view.payload) {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        let generation = self.markers.generation();
        let newer = self.l1.peek(
            &key,
            now,
            generation,
            |entry| self.valid(&key, entry),
            |_, entry| entry.epoch() == header.epoch && entry.created() > header.created,
        );
        if newer == Some(true) {
            return Ok(None);
        }
        let times = Times {
            created: header.created,
            fresh_until: header.fresh_until,
            stale_until: header.stale_until,
        };
        let stamp = Stamp {
            epoch: header.epoch,
            snap: header.snap,
        };
        let kept = value.clone();
        let inserted = self.put(
            key,
            kept,
            namespace,
            targets,
            packed,
            label,
            times,
            header.cost,
            stamp,
        )?;
        Ok(inserted.map(|_| value))
    }
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
        let (targets, packed, label) = match &facts {
            None => (SmallVec::new(), &[][..], None),
            Some((tags, label, versions, packed)) => (
                named(namespace, tags, label.as_deref(), versions),
                packed.as_bytes(),
                label.as_deref(),
            ),
        };
        let times = Times {
            created,
            fresh_until,
            stale_until,
        };
        let stamp = Stamp { epoch, snap };
        let inserted = self.core()?.put(
            key, value, namespace, targets, packed, label, times, cost, stamp,
        )?;
        Ok(match inserted {
            None => intern!(py, "invalid"),
            Some(Outcome::Stored) => intern!(py, "stored"),
            Some(Outcome::Replaced) => intern!(py, "replaced"),
            Some(Outcome::Older) => intern!(py, "older"),
            Some(Outcome::TooLarge) => intern!(py, "too_large"),
            Some(Outcome::NotAdmitted) => intern!(py, "not_admitted"),
        }
        .as_borrowed())
    }

    /// Puts what a lower tier gave into memory, and returns it as memory holds it: the usual end of a read, in
    /// one call. `None`, and nothing done, if it is anything but an intact, fresh and valid `bytes` or `str`, or
    /// memory has got something newer. `unpack` decodes packed facts, and gives them as memory keeps them.
    #[pyo3(signature = (data, namespace, key, keyring, unpack))]
    fn _promote<'py>(
        &self,
        data: &Bound<'py, PyBytes>,
        namespace: &str,
        key: Fingerprint,
        keyring: Option<&Keyring>,
        unpack: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.core()?
            .promote(data, namespace, key, keyring, unpack, false)
    }

    /// `_promote` of each record with the namespace and the key it was asked for by, in one call: their checksums
    /// are computed side by side. `None` in place of a record is `None` in its place.
    #[pyo3(signature = (found, keyring, unpack))]
    fn _promote_many<'py>(
        &self,
        found: Vec<(
            Option<Bound<'py, PyBytes>>,
            Bound<'py, PyString>,
            Fingerprint,
        )>,
        keyring: Option<&Keyring>,
        unpack: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
        let core = self.core()?;
        let records: Vec<&[u8]> = found
            .iter()
            .map(|(data, _, _)| data.as_ref().map_or(&[][..], |data| data.as_bytes()))
            .collect();
        // With keys, records are sealed and have no checksum.
        let intact = if keyring.is_some() {
            vec![false; records.len()]
        } else {
            intact(&records)
        };
        found
            .iter()
            .zip(intact)
            .map(|((data, namespace, key), intact)| match data {
                None => Ok(None),
                Some(data) => {
                    core.promote(data, namespace.to_str()?, *key, keyring, unpack, intact)
                }
            })
            .collect()
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

    /// Leaves `bytes` of the memory to an index beside it, in place of what was left before.
    fn _reserve(&self, bytes: u64) -> PyResult<()> {
        let core = self.core()?;
        drop(core.l1.reserve(bytes, core.clock.now()));
        Ok(())
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
