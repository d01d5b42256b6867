//! The vector index: which stored questions are near a question, within one partition.
//!
//! What belongs here: vectors by partition and key, nearest first, bounded in bytes; snapshots. What does not:
//! what makes vectors, whether a near question may share an answer, and validity: a key found here is looked
//! up like any other.
//!
//! A partition is an index of its own, chosen before the search: entries of another are never candidates. Small
//! ones are scanned (`flat`), large ones walked (`graph`); `partition` decides. Vectors are kept as 10-bit codes
//! of their direction (`code`).
//!
//! # Memory
//! [`VectorIndex::bytes`] counts what is allocated and never exceeds the bound. For `d` numbers a vector: `1.5 d`
//! for the code and 40 for key, length and age; a graph adds about 200 to an entry, a partition about 300, and
//! an eighth of headroom at most. For room, whole partitions go, least recently used first, and of the only one
//! its oldest entries. While a block of rows grows, the allocator may hold its old place too, 100 KB at most.
//!
//! # Threads
//! Searches of a partition go on beside each other and wait for a change of that partition alone. Changes wait
//! for each other. A forked child must touch no lock: it starts with [`VectorIndex::renewed`].

#![expect(
    clippy::missing_errors_doc,
    reason = "`VectorError` says what can be wrong"
)]

mod best;
mod code;
mod error;
mod flat;
mod graph;
mod graph_bytes;
mod partition;
mod snapshot;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashlink::LinkedHashMap;
use parking_lot::{Mutex, RwLock};

use best::Best;
use code::Code;
use partition::Partition;

pub use best::Match;
pub use code::to_half;
pub use error::VectorError;

/// A partition, or a key: 32 bytes, a digest.
pub type Id = [u8; 32];

/// The largest dimension.
pub const MAX_DIMENSION: usize = 16_384;

/// Entries of a partition up to which all of them are looked at.
pub const FLAT: usize = 4096;

/// The most matches that one search gives.
pub const MAX_LIMIT: usize = 256;

/// What an allocator adds to an allocation.
const ALLOCATION: u64 = 16;

/// A partition beside its entries: its cell in the table, its node in the order of use, and itself with its lock.
const PARTITION_BYTES: u64 = {
    let node = size_of::<Id>() + 3 * size_of::<usize>();
    // A table is at least 7/16 full after doubling; a cell has a pointer and a byte.
    let cell = (size_of::<usize>() + 1) * 16 / 7;
    // Two counts of references.
    let itself = size_of::<RwLock<Partition>>() + 2 * size_of::<usize>();
    (node + cell + itself) as u64 + 2 * ALLOCATION
};

/// Counters since the start, and gauges at the time of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorStatistics {
    /// Vectors held.
    pub vectors: u64,
    /// Partitions held.
    pub partitions: u64,
    /// Partitions that are a graph, or on the way to one.
    pub graphs: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes allowed.
    pub max_bytes: u64,
    /// Vectors dropped for room.
    pub evicted: u64,
}

/// What all partitions of an index have in common.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Numbers in a vector.
    dimension: usize,
    /// Entries up to which all of them are looked at.
    flat: usize,
}

type Shared = Arc<RwLock<Partition>>;

/// Vectors by partition and key.
pub struct VectorIndex {
    shape: Shape,
    max_bytes: u64,
    /// Least recently used first.
    partitions: Mutex<LinkedHashMap<Id, Shared>>,
    /// One change at a time, so that what is counted and what is allocated agree.
    changing: Mutex<()>,
    bytes: AtomicU64,
    vectors: AtomicU64,
    evicted: AtomicU64,
}

impl std::fmt::Debug for VectorIndex {
    /// Settings only: formatting takes no lock.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorIndex")
            .field("shape", &self.shape)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl VectorIndex {
    /// For vectors of `dimension` numbers, in at most `max_bytes` of memory.
    pub fn new(dimension: usize, max_bytes: u64) -> Result<Self, VectorError> {
        Self::scanning(dimension, max_bytes, FLAT)
    }

    /// The same, where partitions are graphs beyond `flat` entries: for tests, and to measure what [`FLAT`] should be.
    pub fn scanning(dimension: usize, max_bytes: u64, flat: usize) -> Result<Self, VectorError> {
        if dimension == 0 || dimension > MAX_DIMENSION {
            return Err(VectorError::Option(format!(
                "dimension: {dimension} is not within 1 to {MAX_DIMENSION}; give the length of the embedder's vectors"
            )));
        }
        let shape = Shape { dimension, flat };
        let least = least_bytes(shape);
        if max_bytes < least {
            return Err(VectorError::Option(format!(
                "max_bytes: {max_bytes} is too little; one vector of {dimension} numbers takes {least}"
            )));
        }
        Ok(Self::empty(shape, max_bytes))
    }

    /// An empty index of the same settings, made without touching a lock of this one.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self::empty(self.shape, self.max_bytes)
    }

    fn empty(shape: Shape, max_bytes: u64) -> Self {
        Self {
            shape,
            max_bytes,
            partitions: Mutex::new(LinkedHashMap::new()),
            changing: Mutex::new(()),
            bytes: AtomicU64::new(0),
            vectors: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Numbers in a vector.
    pub fn dimension(&self) -> usize {
        self.shape.dimension
    }

    /// Vectors held.
    pub fn len(&self) -> u64 {
        self.vectors.load(Ordering::Relaxed)
    }

    /// Whether no vector is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated: see the module.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Puts a vector, in place of one of the same key; whether there was one. `vector` is its numbers as
    /// little-endian float32 or float16, told apart by their length; its length in space does not count.
    pub fn add(&self, partition: &Id, key: Id, vector: &[u8]) -> Result<bool, VectorError> {
        let code = Code::new(vector, self.shape.dimension)?;
        let _changing = self.changing.lock();
        let shared = self.touched(partition);
        let (shared, fresh) = match shared {
            Some(shared) => (shared, false),
            None => (Shared::default(), true),
        };
        self.make_room(partition, &shared, if fresh { PARTITION_BYTES } else { 0 })?;
        let replaced = self.change(&shared, |partition| partition.put(key, &code, self.shape))?;
        if fresh {
            self.bytes.fetch_add(PARTITION_BYTES, Ordering::Relaxed);
            self.partitions.lock().insert(*partition, shared);
        }
        Ok(replaced)
    }

    /// Drops what is used least until the next entry of a partition fits.
    fn make_room(&self, id: &Id, shared: &Shared, more: u64) -> Result<(), VectorError> {
        loop {
            let growth = shared.read().growth(self.shape)? + more;
            if self.bytes() + growth <= self.max_bytes {
                return Ok(());
            }
            let other = {
                let mut partitions = self.partitions.lock();
                let other = partitions.keys().find(|other| *other != id).copied();
                other.and_then(|other| partitions.remove(&other))
            };
            let evicted = if let Some(other) = other {
                self.forget(&other)
            } else {
                let before = shared.read().len();
                if before == 0 {
                    // One vector always fits: see `least_bytes`.
                    return Ok(());
                }
                self.change(shared, |partition| partition.remove_oldest(self.shape))? as u64
            };
            self.evicted.fetch_add(evicted, Ordering::Relaxed);
        }
    }

    /// Changes a partition, and counts what that changed.
    fn change<R>(
        &self,
        shared: &Shared,
        change: impl FnOnce(&mut Partition) -> Result<R, VectorError>,
    ) -> Result<R, VectorError> {
        let mut partition = shared.write();
        let (bytes, vectors) = (partition.bytes(), partition.len() as u64);
        let result = change(&mut partition);
        self.count(&self.bytes, bytes, partition.bytes());
        self.count(&self.vectors, vectors, partition.len() as u64);
        result
    }

    #[expect(clippy::unused_self, reason = "only under its lock")]
    fn count(&self, counter: &AtomicU64, before: u64, after: u64) {
        counter.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Counts a partition out that is in the table no more; its vectors.
    fn forget(&self, shared: &Shared) -> u64 {
        let partition = shared.read();
        let vectors = partition.len() as u64;
        self.vectors.fetch_sub(vectors, Ordering::Relaxed);
        self.bytes
            .fetch_sub(partition.bytes() + PARTITION_BYTES, Ordering::Relaxed);
        vectors
    }

    /// Takes a vector out; whether it was there.
    pub fn remove(&self, partition: &Id, key: &Id) -> Result<bool, VectorError> {
        let _changing = self.changing.lock();
        let Some(shared) = self.found(partition) else {
            return Ok(false);
        };
        let room = self.max_bytes.saturating_sub(self.bytes());
        let removed = self.change(&shared, |partition| partition.remove(key, self.shape, room))?;
        if removed && shared.read().len() == 0 {
            self.partitions.lock().remove(partition);
            self.forget(&shared);
        }
        Ok(removed)
    }

    /// Takes a partition out; its vectors.
    pub fn drop_partition(&self, partition: &Id) -> u64 {
        let _changing = self.changing.lock();
        let removed = self.partitions.lock().remove(partition);
        removed.map_or(0, |shared| self.forget(&shared))
    }

    /// Takes everything out; how many vectors.
    pub fn clear(&self) -> u64 {
        let _changing = self.changing.lock();
        let partitions = std::mem::take(&mut *self.partitions.lock());
        self.bytes.store(0, Ordering::Relaxed);
        drop(partitions);
        self.vectors.swap(0, Ordering::Relaxed)
    }

    /// The `limit` (at most [`MAX_LIMIT`]) nearest of a partition whose cosine is `floor` at least, best first. A
    /// partition up to [`FLAT`] entries is looked through whole; beyond that the nearest may be
    /// missed, by one search in some hundreds.
    pub fn search(
        &self,
        partition: &Id,
        vector: &[u8],
        limit: usize,
        floor: f32,
    ) -> Result<Vec<Match>, VectorError> {
        let query = Code::new(vector, self.shape.dimension)?;
        let Some(shared) = self.touched(partition) else {
            return Ok(Vec::new());
        };
        let mut best = Best::new(limit.min(MAX_LIMIT), floor);
        shared.read().search(&query, &mut best)?;
        Ok(best.into_matches())
    }

    /// Whether a vector is held.
    pub fn contains(&self, partition: &Id, key: &Id) -> bool {
        self.found(partition)
            .is_some_and(|shared| shared.read().contains(key))
    }

    /// Vectors of a partition.
    pub fn size(&self, partition: &Id) -> u64 {
        self.found(partition)
            .map_or(0, |shared| shared.read().len() as u64)
    }

    /// The keys of a partition, in no order.
    pub fn keys(&self, partition: &Id) -> Vec<Id> {
        self.found(partition).map_or_else(Vec::new, |shared| {
            shared.read().heads().map(|head| head.key).collect()
        })
    }

    /// Counters and gauges.
    pub fn statistics(&self) -> VectorStatistics {
        let partitions: Vec<Shared> = self.partitions.lock().values().cloned().collect();
        VectorStatistics {
            vectors: self.len(),
            partitions: partitions.len() as u64,
            graphs: partitions
                .iter()
                .filter(|partition| partition.read().has_graph())
                .count() as u64,
            bytes: self.bytes(),
            max_bytes: self.max_bytes,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Writes a snapshot to `path`, whole or not at all, readable by its owner alone. Changes wait meanwhile.
    pub fn save(&self, path: &Path) -> Result<(), VectorError> {
        let _changing = self.changing.lock();
        let partitions: Vec<(Id, Shared)> = {
            let partitions = self.partitions.lock();
            partitions
                .iter()
                .map(|(id, shared)| (*id, shared.clone()))
                .collect()
        };
        // Most recently used first: those are kept if a reader has less room.
        let newest = partitions.iter().rev();
        snapshot::write(
            path,
            self.shape,
            newest.map(|(id, shared)| (id, shared.read())),
        )
    }

    /// An index as it was saved, but for the partitions used least that do not fit.
    pub fn load(path: &Path, max_bytes: u64) -> Result<Self, VectorError> {
        let bytes = snapshot::read(path, max_bytes)?;
        Self::from_snapshot(&bytes, max_bytes).map_err(|reason| VectorError::Snapshot {
            path: path.to_owned(),
            reason,
        })
    }

    /// The same from the bytes of a file; or why they are refused.
    pub fn from_snapshot(bytes: &[u8], max_bytes: u64) -> Result<Self, &'static str> {
        let (dimension, partitions) = snapshot::decode(bytes)?;
        Self::filled(dimension, max_bytes, partitions)
    }

    fn filled(
        dimension: usize,
        max_bytes: u64,
        partitions: Vec<(Id, Partition)>,
    ) -> Result<Self, &'static str> {
        let index = Self::new(dimension, max_bytes).map_err(|_| "it does not fit max_bytes")?;
        let mut fitting = Vec::new();
        for (id, partition) in partitions {
            let (bytes, vectors) = (partition.bytes() + PARTITION_BYTES, partition.len() as u64);
            if index.bytes() + bytes > max_bytes {
                index.evicted.fetch_add(vectors, Ordering::Relaxed);
                continue;
            }
            index.bytes.fetch_add(bytes, Ordering::Relaxed);
            index.vectors.fetch_add(vectors, Ordering::Relaxed);
            fitting.push((id, partition));
        }
        let mut table = index.partitions.lock();
        for (id, partition) in fitting.into_iter().rev() {
            if table.insert(id, Arc::new(RwLock::new(partition))).is_some() {
                return Err("a partition is there twice");
            }
        }
        drop(table);
        Ok(index)
    }

    fn found(&self, partition: &Id) -> Option<Shared> {
        self.partitions.lock().get(partition).cloned()
    }

    /// The partition, now the most recently used.
    fn touched(&self, partition: &Id) -> Option<Shared> {
        self.partitions.lock().to_back(partition).cloned()
    }
}

/// Bytes of an index of one vector.
fn least_bytes(shape: Shape) -> u64 {
    PARTITION_BYTES + Partition::default().growth(shape).unwrap_or(0)
}
