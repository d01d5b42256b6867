//! An index on disk: how a file is written and read.
//!
//! What belongs here: the form of the file and its checks. What does not: the bytes of a graph (`graph_bytes`).
//!
//! A snapshot is only ever a short cut: whatever is wrong with it, the index is built anew from the records. It
//! is written beside its place, synced and renamed, readable by its owner alone. The last 32 bytes are the BLAKE3
//! digest of all others, and nothing is looked at before it fits: a torn or damaged file ends there. Who can write
//! to the file can make a digest that fits, so every number is checked as well, those of graphs above all:
//! `usearch` follows them without looking. Building 100,000 graph entries takes most of a minute, reading them a
//! fifth of a second, which is why graphs are kept at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::code::low_bytes;
use super::error::VectorError;
use super::flat::{Flat, Head, Row};
use super::graph::Graph;
use super::partition::Partition;
use super::{Id, Shape};

const MAGIC: [u8; 16] = *b"llmcache vectors";
const VERSION: u32 = 1;
const DIGEST: usize = 32;
/// Magic, version, dimension, partitions.
const FRONT: usize = 16 + 4 + 4 + 8;

/// Why bytes are refused.
pub(super) type Reason = &'static str;

/// Writes `partitions` to the place `path`, whole or not at all.
pub(super) fn write<'a, P>(
    path: &Path,
    shape: Shape,
    partitions: impl ExactSizeIterator<Item = (&'a Id, P)>,
) -> Result<(), VectorError>
where
    P: std::ops::Deref<Target = Partition>,
{
    let failed = |source| VectorError::io(path, source);
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Mode 0600, and deleted if this fails.
    let mut file = tempfile::Builder::new()
        .prefix(".llmcache-vectors-")
        .tempfile_in(folder)
        .map_err(failed)?;
    fill(path, file.as_file_mut(), shape, partitions)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    // The name too.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn fill<'a, P>(
    path: &Path,
    file: &mut File,
    shape: Shape,
    partitions: impl ExactSizeIterator<Item = (&'a Id, P)>,
) -> Result<(), VectorError>
where
    P: std::ops::Deref<Target = Partition>,
{
    let failed = |source| VectorError::io(path, source);
    let mut out = Hashing {
        out: io::BufWriter::with_capacity(1 << 20, file),
        digest: blake3::Hasher::new(),
    };
    out.put(&MAGIC).map_err(failed)?;
    out.put(&VERSION.to_le_bytes()).map_err(failed)?;
    out.put(&number(shape.dimension).to_le_bytes())
        .map_err(failed)?;
    out.put(&(partitions.len() as u64).to_le_bytes())
        .map_err(failed)?;
    for (id, partition) in partitions {
        out.put(id).map_err(failed)?;
        for part in parts(&partition)? {
            out.put(&part).map_err(failed)?;
        }
    }
    let digest = out.digest.finalize();
    out.out.write_all(digest.as_bytes()).map_err(failed)?;
    out.out.flush().map_err(failed)
}

struct Hashing<W> {
    out: W,
    digest: blake3::Hasher,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

/// A length as it is written; a partition has less than 2^32 entries.
pub(super) fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The file at `path`, if it is not larger than what may be held.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, VectorError> {
    let failed = |source| VectorError::io(path, source);
    let file = File::open(path).map_err(failed)?;
    // What is on disk is smaller than in memory.
    let limit = max_bytes.saturating_add((FRONT + DIGEST) as u64);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(VectorError::Snapshot {
            path: path.to_owned(),
            reason: "it is larger than max_bytes",
        });
    }
    Ok(bytes)
}

/// The partitions in the bytes of a file, in its order.
pub(super) fn decode(bytes: &[u8]) -> Result<(usize, Vec<(Id, Partition)>), Reason> {
    let (content, digest) = bytes
        .split_last_chunk::<DIGEST>()
        .ok_or("it is too short")?;
    if blake3::hash(content) != *digest {
        return Err("its checksum does not fit");
    }
    let mut bytes = Bytes(content);
    if bytes.array::<16>()? != MAGIC {
        return Err("it is another kind of file");
    }
    if bytes.u32()? != VERSION {
        return Err("another version wrote it");
    }
    let dimension = bytes.length()?;
    if dimension == 0 || dimension > super::MAX_DIMENSION {
        return Err("its dimension is out of range");
    }
    let count = bytes.u64()?;
    let mut partitions = Vec::new();
    for _ in 0..count {
        partitions.push((bytes.array()?, partition(&mut bytes, dimension)?));
    }
    if bytes.0.is_empty() {
        Ok((dimension, partitions))
    } else {
        Err("it is longer than it should be")
    }
}

/// A partition, in the order of the file. What is moving into a graph is a row there.
fn parts(partition: &Partition) -> Result<Vec<Vec<u8>>, VectorError> {
    let (flat, graph, old) = partition.parts();
    let moving: Vec<Row> = old.map_or_else(|| Ok(Vec::new()), Graph::rows)?;
    let rows = flat.heads.iter().chain(moving.iter().map(|row| &row.head));
    let high = |high: &[i8]| -> Vec<u8> { high.iter().map(|byte| byte.cast_unsigned()).collect() };
    let mut parts = vec![
        partition.ages().to_le_bytes().to_vec(),
        number(flat.len() + moving.len()).to_le_bytes().to_vec(),
        rows.flat_map(head_bytes).collect(),
        high(&flat.high),
    ];
    parts.extend(moving.iter().map(|row| high(&row.high)));
    parts.push(flat.low.clone());
    parts.extend(moving.iter().map(|row| row.low.clone()));
    match graph {
        None => parts.push(0_u32.to_le_bytes().to_vec()),
        Some(graph) => {
            let (heads, low, nodes) = graph.parts()?;
            parts.push(number(heads.len()).to_le_bytes().to_vec());
            parts.push(heads.iter().flat_map(head_bytes).collect());
            parts.push(low.to_vec());
            parts.push((nodes.len() as u64).to_le_bytes().to_vec());
            parts.push(nodes);
        }
    }
    Ok(parts)
}

const HEAD: usize = 32 + 4 + 4;

fn head_bytes(head: &Head) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..32].copy_from_slice(&head.key);
    bytes[32..36].copy_from_slice(&head.inverse.to_le_bytes());
    bytes[36..].copy_from_slice(&head.age.to_le_bytes());
    bytes
}

fn partition(bytes: &mut Bytes<'_>, dimension: usize) -> Result<Partition, Reason> {
    let low = low_bytes(dimension);
    let ages = bytes.u32()?;
    let count = bytes.length()?;
    let flat = Flat {
        heads: bytes.heads(count)?,
        high: bytes
            .take_many(count, dimension)?
            .iter()
            .map(|byte| byte.cast_signed())
            .collect(),
        low: bytes.take_many(count, low)?.to_vec(),
    };
    if flat.heads.iter().any(Head::is_vacant) {
        return Err("an entry has no length");
    }
    let count = bytes.length()?;
    let graph = if count > 0 {
        let heads = bytes.heads(count)?;
        let low = bytes.take_many(count, low)?.to_vec();
        let length = usize::try_from(bytes.u64()?).unwrap_or(usize::MAX);
        Some(Graph::from_parts(
            dimension,
            heads,
            low,
            bytes.take(length)?,
        )?)
    } else {
        None
    };
    let partition = Partition::from_parts(flat, graph, ages);
    let mut keys = HashSet::with_capacity(partition.len());
    if !partition.heads().all(|head| keys.insert(head.key)) {
        return Err("a key is there twice");
    }
    if keys.is_empty() {
        return Err("a partition is empty");
    }
    Ok(partition)
}

/// Bytes that are being read.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

const SHORT: Reason = "it ends too early";

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn take_many(&mut self, count: usize, width: usize) -> Result<&'a [u8], Reason> {
        self.take(count.checked_mul(width).ok_or(SHORT)?)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Reason> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, Reason> {
        Ok(self.u32()? as usize)
    }

    fn heads(&mut self, count: usize) -> Result<Vec<Head>, Reason> {
        let mut rows = Bytes(self.take_many(count, HEAD)?);
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let head = Head {
                key: rows.array()?,
                inverse: f32::from_le_bytes(rows.array()?),
                age: rows.u32()?,
            };
            // Levels are integers: their length is 1 at least, or 0 where nothing is.
            if !(0.0..=1.0).contains(&head.inverse) {
                return Err("an entry's length is no length");
            }
            heads.push(head);
        }
        Ok(heads)
    }
}
