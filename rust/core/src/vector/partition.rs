//! One partition: rows while it is small, a graph beyond that, and the way from one to the other.
//!
//! A graph takes a third of a millisecond for each entry, so nothing is ever rebuilt at once. Beyond
//! [`Shape::flat`] entries new ones go into a graph and each takes [`MOVES`] rows with it; a graph of which half the places are
//! vacant is emptied into a new one in the same way. Until then a search looks at both. A graph of few entries
//! is turned into rows again, which takes no more than copying.

use super::best::Best;
use super::code::Code;
use super::error::VectorError;
use super::flat::{Flat, Head, Row};
use super::graph::Graph;
use super::{Id, Shape};

/// Entries that move with each change.
const MOVES: usize = 2;

/// A share of the oldest entries that leaves at once when nothing else can: finding them looks at all.
const OLDEST: usize = 64;

#[derive(Default)]
pub(super) struct Partition {
    flat: Flat,
    graph: Option<Box<Graph>>,
    /// A graph that is being emptied.
    old: Option<Box<Graph>>,
    ages: u32,
}

impl Partition {
    pub(super) fn len(&self) -> usize {
        self.flat.len() + self.graphs().map(Graph::len).sum::<usize>()
    }

    fn graphs(&self) -> impl Iterator<Item = &Graph> {
        [&self.graph, &self.old]
            .into_iter()
            .flatten()
            .map(|graph| &**graph)
    }

    pub(super) fn from_parts(flat: Flat, graph: Option<Graph>, ages: u32) -> Self {
        Self {
            flat,
            graph: graph.map(Box::new),
            old: None,
            ages,
        }
    }

    /// Rows, graph, and the graph that is being emptied.
    pub(super) fn parts(&self) -> (&Flat, Option<&Graph>, Option<&Graph>) {
        (&self.flat, self.graph.as_deref(), self.old.as_deref())
    }

    /// The age of the next entry.
    pub(super) fn ages(&self) -> u32 {
        self.ages
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.graphs().flat_map(Graph::heads).chain(&self.flat.heads)
    }

    pub(super) fn has_graph(&self) -> bool {
        self.graph.is_some()
    }

    pub(super) fn contains(&self, key: &Id) -> bool {
        self.graphs().any(|graph| graph.contains(key)) || self.flat.find(key).is_some()
    }

    /// Puts an entry, in place of one of the same key; whether there was one.
    pub(super) fn put(&mut self, key: Id, code: &Code, shape: Shape) -> Result<bool, VectorError> {
        let replaced = self.take(&key, shape)?;
        let mut low = Vec::with_capacity(super::code::low_bytes(code.high.len()));
        code.push_low(&mut low);
        let row = Row {
            head: Head {
                key,
                inverse: code.inverse,
                age: self.ages,
            },
            high: code.high.clone(),
            low,
        };
        self.ages = self.ages.wrapping_add(1);
        match &mut self.graph {
            Some(graph) => graph.put(&row)?,
            None => self.flat.put(&row),
        }
        if self.graph.is_none() && self.flat.len() > shape.flat {
            self.graph = Some(Box::new(Graph::new(shape.dimension)?));
        }
        self.advance(shape)?;
        Ok(replaced)
    }

    /// Takes an entry out; whether there was one. `room` is how much it may grow by while it moves entries.
    pub(super) fn remove(
        &mut self,
        key: &Id,
        shape: Shape,
        room: u64,
    ) -> Result<bool, VectorError> {
        let removed = self.take(key, shape)?;
        if !self.collapse(shape)? && self.graph.is_some() && self.moving(shape)? <= room {
            self.compact(shape)?;
            self.advance(shape)?;
        }
        Ok(removed)
    }

    fn take(&mut self, key: &Id, shape: Shape) -> Result<bool, VectorError> {
        for graph in [&mut self.graph, &mut self.old].into_iter().flatten() {
            if graph.take(key)?.is_some() {
                return Ok(true);
            }
        }
        let found = self.flat.find(key);
        if let Some(at) = found {
            self.flat.take(at, shape.dimension);
        }
        Ok(found.is_some())
    }

    /// Turns graphs of few entries into rows; whether it did.
    fn collapse(&mut self, shape: Shape) -> Result<bool, VectorError> {
        if self.graph.is_none() || self.len() > shape.flat / 2 {
            return Ok(false);
        }
        for mut graph in [self.graph.take(), self.old.take()].into_iter().flatten() {
            while let Some(row) = take_any(&mut graph)? {
                self.flat.put(&row);
            }
        }
        Ok(true)
    }

    /// Begins to empty a graph of which half is vacant.
    fn compact(&mut self, shape: Shape) -> Result<(), VectorError> {
        let sparse = |graph: &Box<Graph>| graph.vacant() > graph.len();
        if self.flat.len() == 0 && self.old.is_none() && self.graph.as_ref().is_some_and(sparse) {
            self.old = self.graph.replace(Box::new(Graph::new(shape.dimension)?));
        }
        Ok(())
    }

    /// Moves some entries into the graph.
    fn advance(&mut self, shape: Shape) -> Result<(), VectorError> {
        let Some(graph) = &mut self.graph else {
            return Ok(());
        };
        for _ in 0..MOVES {
            let row = if let Some(last) = self.flat.len().checked_sub(1) {
                Some(self.flat.take(last, shape.dimension))
            } else if let Some(old) = &mut self.old {
                take_any(old)?
            } else {
                None
            };
            match row {
                Some(row) => graph.put(&row)?,
                None => self.old = None,
            }
        }
        Ok(())
    }

    /// Bytes by which moving entries grows it at most.
    fn moving(&self, shape: Shape) -> Result<u64, VectorError> {
        let new = Graph::new(shape.dimension)?;
        let graph = self.graph.as_deref().unwrap_or(&new);
        Ok(new.bytes() + graph.growth(MOVES))
    }

    /// Takes a share of the oldest entries out; how many.
    pub(super) fn remove_oldest(&mut self, shape: Shape) -> Result<usize, VectorError> {
        let mut heads: Vec<(u32, Id)> = self.heads().map(|head| (head.age, head.key)).collect();
        let count = heads.len().div_ceil(OLDEST);
        if count == 0 {
            return Ok(0);
        }
        heads.select_nth_unstable(count - 1);
        for (_, key) in &heads[..count] {
            self.take(key, shape)?;
        }
        self.collapse(shape)?;
        Ok(count)
    }

    pub(super) fn search(&self, query: &Code, best: &mut Best) -> Result<(), VectorError> {
        if self.flat.len() > 0 {
            self.flat.search(query, best);
        }
        for graph in self.graphs() {
            graph.search(query, best)?;
        }
        Ok(())
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        self.flat.bytes() + self.graphs().map(Graph::bytes).sum::<u64>()
    }

    /// Bytes by which the next [`put`](Self::put) grows it at most.
    pub(super) fn growth(&self, shape: Shape) -> Result<u64, VectorError> {
        if let Some(graph) = &self.graph {
            let moving = self.flat.len() + self.old.as_deref().map_or(0, Graph::len);
            return Ok(graph.growth(1 + moving.min(MOVES)));
        }
        let graph = if self.flat.len() >= shape.flat {
            let new = Graph::new(shape.dimension)?;
            new.bytes() + new.growth(MOVES)
        } else {
            0
        };
        Ok(self.flat.growth(shape.dimension) + graph)
    }
}

fn take_any(graph: &mut Graph) -> Result<Option<Row>, VectorError> {
    match graph.any() {
        Some(key) => graph.take(&key),
        None => Ok(None),
    }
}
