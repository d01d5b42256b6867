//! Entries in a graph of near neighbours (HNSW), searched by walking towards what is asked.
//!
//! What belongs here: the `usearch` index and the tables beside it. What does not: when a graph begins, moves or
//! ends (`partition`).
//!
//! Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
//! Navigable Small World graphs", IEEE TPAMI 2020. `usearch` keeps the upper bits and walks by their cosine; the
//! lower bits, the keys and the way from a key to its place are kept here.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use parking_lot::{Condvar, Mutex};
use std::hash::BuildHasher;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::best::Best;
use super::code::{Code, low_bytes};
use super::error::VectorError;
use super::flat::{Head, Row};
use super::graph_bytes::{self, Wanted};
use super::snapshot::Reason;
use super::{ALLOCATION, Id};

/// Neighbours of an entry; twice as many on the lowest level.
const CONNECTIVITY: usize = 16;
/// Candidates kept while an entry's neighbours are chosen.
const EXPANSION_ADD: usize = 128;
/// Candidates kept while searching.
const EXPANSION_SEARCH: usize = 48;
/// The fewest that are looked at again by all of their bits.
const AGAIN: usize = 16;

/// Searches at once in one graph: each needs buffers that are kept. Others wait.
const WALKERS: usize = 8;
/// Bytes that the buffers of one search are taken for.
const WALKER_BYTES: u64 = 32 << 10;
/// Bytes that `usearch` holds for a place besides the node itself: two pointers, and the cell of its own table
/// at the load it has after doubling.
const PLACE_BYTES: u64 = 8 + 8 + 32;
/// More than a node takes: its upper levels are drawn at random.
const NODE_BYTES: u64 = 1024;

/// A graph, whose places are numbered; the numbers are `usearch`'s keys.
pub(super) struct Graph {
    index: Index,
    dimension: usize,
    heads: Vec<Head>,
    low: Vec<u8>,
    places: HashTable<u32>,
    free: Vec<u32>,
    reserved: usize,
    gate: Gate,
}

impl Graph {
    pub(super) fn new(dimension: usize) -> Result<Self, VectorError> {
        let options = IndexOptions {
            dimensions: dimension,
            metric: MetricKind::Cos,
            quantization: ScalarKind::I8,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            expansion_search: EXPANSION_SEARCH,
            multi: false,
        };
        Ok(Self {
            index: Index::new(&options).map_err(VectorError::graph)?,
            dimension,
            heads: Vec::new(),
            low: Vec::new(),
            places: HashTable::new(),
            free: Vec::new(),
            reserved: 0,
            gate: Gate::new(WALKERS),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Places of entries that were taken out, whose memory waits for others.
    pub(super) fn vacant(&self) -> usize {
        self.free.len()
    }

    pub(super) fn contains(&self, key: &Id) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, key: &Id) -> Option<u32> {
        self.places
            .find(hash(key), |&place| self.heads[place as usize].key == *key)
            .copied()
    }

    /// Puts an entry that is not there.
    pub(super) fn put(&mut self, row: &Row) -> Result<(), VectorError> {
        self.make_room()?;
        let place = match self.free.last() {
            Some(&place) => place,
            None => u32::try_from(self.heads.len()).map_err(VectorError::graph)?,
        };
        self.index
            .add(u64::from(place), &row.high)
            .map_err(VectorError::graph)?;
        let width = low_bytes(self.dimension);
        let at = place as usize;
        if self.free.pop().is_some() {
            self.heads[at] = row.head;
            self.low[at * width..][..width].copy_from_slice(&row.low);
        } else {
            self.heads.push(row.head);
            self.low.extend_from_slice(&row.low);
        }
        let heads = &self.heads;
        self.places
            .insert_unique(hash(&row.head.key), place, |&place| {
                hash(&heads[place as usize].key)
            });
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), VectorError> {
        if self.free.is_empty() && self.heads.len() == self.reserved {
            let reserved = self.reserved + headroom(self.reserved);
            self.index
                .reserve_capacity_and_threads(reserved, WALKERS)
                .map_err(VectorError::graph)?;
            let more = reserved - self.heads.len();
            self.heads.reserve_exact(more);
            self.low.reserve_exact(more * low_bytes(self.dimension));
            self.free.reserve_exact(reserved - self.free.len());
            let heads = &self.heads;
            let hash_at = |&place: &u32| hash(&heads[place as usize].key);
            self.places.reserve(reserved - self.places.len(), hash_at);
            self.reserved = reserved;
        }
        Ok(())
    }

    /// Takes an entry out; `None`: it is not there.
    pub(super) fn take(&mut self, key: &Id) -> Result<Option<Row>, VectorError> {
        let heads = &self.heads;
        let Ok(found) = self
            .places
            .find_entry(hash(key), |&place| heads[place as usize].key == *key)
        else {
            return Ok(None);
        };
        let place = *found.get();
        let mut high = vec![0; self.dimension];
        self.index
            .get(u64::from(place), &mut high)
            .map_err(VectorError::graph)?;
        self.index
            .remove(u64::from(place))
            .map_err(VectorError::graph)?;
        found.remove();
        self.free.push(place);
        let width = low_bytes(self.dimension);
        let row = Row {
            head: self.heads[place as usize],
            high,
            low: self.low[place as usize * width..][..width].to_vec(),
        };
        self.heads[place as usize].inverse = 0.0;
        Ok(Some(row))
    }

    /// All entries, copied.
    pub(super) fn rows(&self) -> Result<Vec<Row>, VectorError> {
        let width = low_bytes(self.dimension);
        self.places
            .iter()
            .map(|&place| {
                let mut high = vec![0; self.dimension];
                self.index
                    .get(u64::from(place), &mut high)
                    .map_err(VectorError::graph)?;
                Ok(Row {
                    head: self.heads[place as usize],
                    high,
                    low: self.low[place as usize * width..][..width].to_vec(),
                })
            })
            .collect()
    }

    /// What a snapshot keeps: heads and lower bits by place, and what `usearch` writes.
    pub(super) fn parts(&self) -> Result<(&[Head], &[u8], Vec<u8>), VectorError> {
        let mut nodes = vec![0; self.index.serialized_length()];
        self.index
            .save_to_buffer(&mut nodes)
            .map_err(VectorError::graph)?;
        Ok((&self.heads, &self.low, nodes))
    }

    /// The opposite of [`parts`](Self::parts).
    pub(super) fn from_parts(
        dimension: usize,
        heads: Vec<Head>,
        low: Vec<u8>,
        nodes: &[u8],
    ) -> Result<Self, Reason> {
        const FAILED: Reason = "a graph could not be read";
        let mut graph = Self::new(dimension).map_err(|_| FAILED)?;
        let (_, _, empty) = graph.parts().map_err(|_| FAILED)?;
        graph_bytes::check(
            nodes,
            &Wanted {
                dimension,
                connectivity: CONNECTIVITY,
                empty: &empty,
                heads: &heads,
            },
        )?;
        let reserved = heads.len();
        graph
            .index
            .load_from_buffer(nodes)
            .and_then(|()| graph.index.reserve_capacity_and_threads(reserved, WALKERS))
            .map_err(|_| FAILED)?;
        for (place, head) in (0..).zip(&heads) {
            if head.is_vacant() {
                graph.free.push(place);
            } else {
                let hash_at = |&place: &u32| hash(&heads[place as usize].key);
                graph.places.insert_unique(hash(&head.key), place, hash_at);
            }
        }
        graph.free.reserve_exact(reserved - graph.free.len());
        graph.reserved = reserved;
        graph.heads = heads;
        graph.low = low;
        Ok(graph)
    }

    /// Some key, if there is one.
    pub(super) fn any(&self) -> Option<Id> {
        self.places
            .iter()
            .next()
            .map(|&place| self.heads[place as usize].key)
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = &Head> + '_ {
        self.places.iter().map(|&place| &self.heads[place as usize])
    }

    pub(super) fn search(&self, query: &Code, best: &mut Best) -> Result<(), VectorError> {
        if self.places.is_empty() {
            return Ok(());
        }
        let again = AGAIN.max(2 * best.limit);
        let matches = {
            let _walker = self.gate.enter();
            self.index
                .search(&query.high, again)
                .map_err(VectorError::graph)?
        };
        let width = low_bytes(self.dimension);
        let mut high = vec![0; self.dimension];
        for place in matches.keys {
            self.index
                .get(place, &mut high)
                .map_err(VectorError::graph)?;
            #[expect(clippy::cast_possible_truncation, reason = "was a u32")]
            let at = place as usize;
            let head = &self.heads[at];
            let low = &self.low[at * width..][..width];
            best.offer(head, query.cosine(&high, low, head.inverse));
        }
        Ok(())
    }

    /// Bytes allocated; of `usearch`'s arenas what is used.
    pub(super) fn bytes(&self) -> u64 {
        let stats = self.index.memory_stats();
        let arenas = (stats.graph_allocated - stats.graph_reserved)
            + (stats.vectors_allocated - stats.vectors_reserved);
        let tables = self.heads.capacity() * size_of::<Head>()
            + self.low.capacity()
            + self.free.capacity() * size_of::<u32>()
            + self.places.allocation_size();
        (arenas + tables + size_of::<Self>()) as u64
            + self.reserved as u64 * PLACE_BYTES
            + WALKERS as u64 * WALKER_BYTES
            + 8 * ALLOCATION
    }

    /// Bytes by which `entries` more grow it at most.
    pub(super) fn growth(&self, entries: usize) -> u64 {
        let nodes = entries.saturating_sub(self.free.len());
        if nodes == 0 {
            return 0;
        }
        let mut growth = nodes as u64 * (self.dimension as u64 + NODE_BYTES);
        if self.heads.len() + nodes > self.reserved {
            let more = headroom(self.reserved) as u64;
            let width = (size_of::<Head>() + low_bytes(self.dimension) + size_of::<u32>()) as u64;
            // The table of places doubles, or begins.
            let table = self.places.allocation_size() as u64 + 16 * more;
            growth += more * (width + PLACE_BYTES) + table;
        }
        growth
    }
}

fn headroom(reserved: usize) -> usize {
    256.max(reserved / 8)
}

/// Keys are digests, and of one partition: nothing is gained by choosing them.
fn hash(key: &Id) -> u64 {
    FixedState::default().hash_one(key)
}

/// Lets a number of threads in.
struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

struct Pass<'a>(&'a Gate);

impl Gate {
    fn new(threads: usize) -> Self {
        Self {
            free: Mutex::new(threads),
            left: Condvar::new(),
        }
    }

    fn enter(&self) -> Pass<'_> {
        let mut free = self.free.lock();
        while *free == 0 {
            self.left.wait(&mut free);
        }
        *free -= 1;
        Pass(self)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.left.notify_one();
    }
}
