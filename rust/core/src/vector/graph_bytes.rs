//! What `usearch` writes of a graph, checked number by number before it reads it.
//!
//! What belongs here: the checks. It reads without them: a neighbour that is none, or a level that a node does not
//! have, would make a search look anywhere in memory.
//!
//! The form, of version 2.26.6, little-endian: two u32, nodes and bytes a vector; the vectors; a head of 64 bytes;
//! five u64, nodes, connectivity, connectivity of the base, highest level, first node; an i16 for each node, its
//! level; the nodes: a u64 key, an i16 level, and for each level from 0 a u32 count of neighbours and room for all
//! there may be, u32 each.

use super::flat::Head;
use super::snapshot::{Bytes, Reason};

/// Of the head: magic, versions and kinds, which are always the same.
const SAME: usize = 7 + 3 * 2 + 4;
const HEAD: usize = 64;
/// The key of a node whose entry was taken out.
const VACANT: u64 = u64::MAX;
/// Levels are drawn: one in sixteen nodes reaches the next. Nobody ever draws this.
const MAX_LEVEL: u64 = 60;

/// What the bytes must agree with.
pub(super) struct Wanted<'a> {
    pub(super) dimension: usize,
    pub(super) connectivity: usize,
    /// What an empty graph is written as, for its head.
    pub(super) empty: &'a [u8],
    /// By place; vacant ones are no keys of nodes.
    pub(super) heads: &'a [Head],
}

/// Whether `usearch` may read these bytes and search what it read.
pub(super) fn check(bytes: &[u8], wanted: &Wanted<'_>) -> Result<(), Reason> {
    let mut bytes = Bytes(bytes);
    let nodes = bytes.u32()? as usize;
    if bytes.u32()? as usize != wanted.dimension {
        return Err("a graph is of another dimension");
    }
    bytes.take_many(nodes, wanted.dimension)?;
    check_head(bytes.array()?, nodes, wanted)?;
    let base = wanted.connectivity * 2;
    if bytes.u64()? != nodes as u64
        || bytes.u64()? != wanted.connectivity as u64
        || bytes.u64()? != base as u64
    {
        return Err("a graph is of another shape");
    }
    let (highest, first) = (bytes.u64()?, bytes.u64()?);
    let levels: Vec<u16> = bytes
        .take_many(nodes, 2)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let at_first = usize::try_from(first)
        .ok()
        .and_then(|first| levels.get(first));
    if highest > MAX_LEVEL
        || at_first.is_none_or(|&level| u64::from(level) != highest)
        || levels.iter().any(|&level| u64::from(level) > highest)
    {
        return Err("a graph has levels that cannot be");
    }
    check_nodes(&mut bytes, &levels, wanted)?;
    if bytes.0.is_empty() {
        Ok(())
    } else {
        Err("a graph is longer than it should be")
    }
}

fn check_head(head: [u8; HEAD], nodes: usize, wanted: &Wanted<'_>) -> Result<(), Reason> {
    let mut empty = Bytes(wanted.empty);
    empty.take(8)?;
    let mut head = Bytes(&head);
    if head.take(SAME)? != empty.take(SAME)? {
        return Err("another version of usearch wrote a graph");
    }
    let held = wanted.heads.iter().filter(|head| !head.is_vacant()).count() as u64;
    let (present, vacant, dimension) = (head.u64()?, head.u64()?, head.u64()?);
    let sum = present.checked_add(vacant);
    if present != held || sum != Some(nodes as u64) || dimension != wanted.dimension as u64 {
        return Err("a graph has another number of entries");
    }
    if head.0.iter().any(|&byte| byte != 0) {
        return Err("a graph's head is not as it should be");
    }
    Ok(())
}

fn check_nodes(bytes: &mut Bytes<'_>, levels: &[u16], wanted: &Wanted<'_>) -> Result<(), Reason> {
    // Every place of an entry is the key of one node.
    let mut open: Vec<bool> = wanted.heads.iter().map(|head| !head.is_vacant()).collect();
    let mut left = open.iter().filter(|&&open| open).count();
    for &level in levels {
        let key = bytes.u64()?;
        if u16::from_le_bytes(bytes.array()?) != level {
            return Err("a node is of another level than listed");
        }
        if key != VACANT {
            let place = usize::try_from(key)
                .ok()
                .and_then(|place| open.get_mut(place));
            match place {
                Some(open) if *open => *open = false,
                _ => return Err("a node has the key of no entry, or of another's"),
            }
            left -= 1;
        }
        for at in 0..=level {
            let room = wanted.connectivity * if at == 0 { 2 } else { 1 };
            let count = bytes.u32()? as usize;
            let neighbours = bytes.take_many(room, 4)?;
            let exist = neighbours.chunks_exact(4).take(count).all(|each| {
                let neighbour = u32::from_le_bytes([each[0], each[1], each[2], each[3]]);
                levels
                    .get(neighbour as usize)
                    .is_some_and(|&level| level >= at)
            });
            if count > room || !exist {
                return Err("a node has neighbours that cannot be");
            }
        }
    }
    if left == 0 {
        Ok(())
    } else {
        Err("an entry has no node")
    }
}
