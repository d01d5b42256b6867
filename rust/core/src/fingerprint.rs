//! The tree digest and the fingerprint of a document.
//!
//! Specified byte by byte in `docs/reference/fingerprint.md`; the hash is BLAKE3 (O'Connor, Aumasson,
//! Neves, Wilcox-O'Hearn, 2020). Nodes of 256 bytes, a quarter of BLAKE3's chunk, let every SIMD lane work
//! on inputs of a few kilobytes, and the leaves of several strings share one pass: `benches/test_fingerprint.py`
//! measures both against plain BLAKE3.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::lanes::{BEYOND, CHUNK_END, CHUNK_START, DIGEST, IV, LANES, ROOT};

/// 32 bytes that stand for a request.
pub type Fingerprint = [u8; 32];

/// Bytes of one node of the tree.
pub const NODE: usize = 256;

/// Hashes equal-sized nodes side by side; the last group is filled up to a power of two because two, four,
/// eight or sixteen lanes cost hardly more than one.
struct Lanes<'a> {
    platform: Platform,
    full: [&'a [u8; NODE]; LANES],
    used: usize,
    out: Vec<u8>,
}

/// Plain BLAKE3 of each node, side by side.
#[inline]
fn hash_lanes(platform: Platform, nodes: &[&[u8; NODE]], digests: &mut [u8]) {
    platform.hash_many(
        nodes,
        &IV,
        0,
        IncrementCounter::No,
        0,
        CHUNK_START,
        CHUNK_END | ROOT,
        digests,
    );
}

static ZEROS: [u8; NODE + BEYOND] = [0; NODE + BEYOND];
static ZERO: &[u8; NODE] = match ZEROS.first_chunk() {
    Some(node) => node,
    None => unreachable!(),
};

/// Splits off the nodes that may be lent to the lanes: `BEYOND` bytes follow them. The rest is to be copied.
#[inline]
fn lendable(input: &[u8]) -> (&[[u8; NODE]], &[u8]) {
    let count = input.len().saturating_sub(BEYOND) / NODE;
    let (lent, rest) = input.split_at(count * NODE);
    (lent.as_chunks().0, rest)
}

impl<'a> Lanes<'a> {
    fn new(platform: Platform, capacity: usize) -> Self {
        Self {
            platform,
            full: [ZERO; LANES],
            used: 0,
            out: Vec::with_capacity(capacity),
        }
    }

    #[inline]
    fn push(&mut self, node: &'a [u8; NODE]) {
        self.full[self.used] = node;
        self.used += 1;
        if self.used == LANES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.used == 0 {
            return;
        }
        let mut digests = [0; LANES * DIGEST];
        let lanes = self.used.next_power_of_two();
        hash_lanes(
            self.platform,
            &self.full[..lanes],
            &mut digests[..lanes * DIGEST],
        );
        self.out.extend_from_slice(&digests[..self.used * DIGEST]);
        self.used = 0;
    }

    fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out
    }
}

const fn nodes(len: usize) -> usize {
    if len == 0 { 1 } else { len.div_ceil(NODE) }
}

/// One level of the tree for several inputs at once: their digests, input after input.
fn reduce_all(inputs: &[&[u8]]) -> Vec<u8> {
    // The last nodes of an input are copied and filled up first, so that all nodes can be lent to the lanes in order.
    let copied = |input: &[u8]| nodes(input.len()) - lendable(input).0.len();
    let count: usize = inputs.iter().map(|input| copied(input)).sum();
    // One more than there are: what follows the last one, see `BEYOND`.
    let mut tails: Vec<[u8; NODE]> = Vec::with_capacity(count + 1);
    for input in inputs {
        let (_, rest) = lendable(input);
        for at in 0..copied(input) {
            let piece = &rest[at * NODE..rest.len().min((at + 1) * NODE)];
            let mut tail = *ZERO;
            tail[..piece.len()].copy_from_slice(piece);
            tails.push(tail);
        }
    }
    let total: usize = inputs.iter().map(|input| nodes(input.len())).sum();
    let mut lanes = Lanes::new(Platform::detect(), total * DIGEST);
    let mut tails = tails.iter();
    for input in inputs {
        for node in lendable(input).0 {
            lanes.push(node);
        }
        for tail in tails.by_ref().take(copied(input)) {
            lanes.push(tail);
        }
    }
    lanes.finish()
}

/// The tree digests of several byte strings, hashed side by side.
///
/// Costs about one pass over the bytes; eight strings of a few hundred bytes take little longer than one.
pub fn tree_digests(inputs: &[&[u8]]) -> Vec<[u8; DIGEST]> {
    let mut level = reduce_all(inputs);
    let mut sizes: Vec<usize> = inputs
        .iter()
        .map(|input| nodes(input.len()) * DIGEST)
        .collect();
    while sizes.iter().any(|&size| size > DIGEST) {
        let mut open: Vec<&[u8]> = Vec::with_capacity(sizes.len());
        let mut start = 0;
        for &size in &sizes {
            if size > DIGEST {
                open.push(&level[start..start + size]);
            }
            start += size;
        }
        let reduced = reduce_all(&open);
        let mut next = Vec::with_capacity(reduced.len() + sizes.len() * DIGEST);
        let (mut from_level, mut from_reduced) = (0, 0);
        for size in &mut sizes {
            if *size > DIGEST {
                let new = nodes(*size) * DIGEST;
                next.extend_from_slice(&reduced[from_reduced..from_reduced + new]);
                from_reduced += new;
                from_level += *size;
                *size = new;
            } else {
                next.extend_from_slice(&level[from_level..from_level + DIGEST]);
                from_level += DIGEST;
            }
        }
        level = next;
    }
    level.as_chunks::<DIGEST>().0.to_vec()
}

/// The fingerprint of a finished document (section 4 of the specification).
pub fn of_document(document: &[u8]) -> Fingerprint {
    let mut key = *b"llmcache_fast/fp\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    key[24..].copy_from_slice(&(document.len() as u64).to_le_bytes());
    if document.len() <= NODE {
        return *blake3::keyed_hash(&key, document).as_bytes();
    }
    if document.len() <= LANES / 2 * NODE {
        // A chat request of a few kilobytes: one pass over the lanes, nothing allocated.
        let mut tail = [0; 2 * NODE + BEYOND];
        let (lent, rest) = lendable(document);
        tail[..rest.len()].copy_from_slice(rest);
        let mut nodes = [ZERO; LANES / 2];
        for (lane, node) in nodes.iter_mut().zip(lent.iter().chain(tail.as_chunks().0)) {
            *lane = node;
        }
        let count = document.len().div_ceil(NODE);
        let mut digests = [0; LANES / 2 * DIGEST];
        let lanes = count.next_power_of_two();
        hash_lanes(
            Platform::detect(),
            &nodes[..lanes],
            &mut digests[..lanes * DIGEST],
        );
        return *blake3::keyed_hash(&key, &digests[..count * DIGEST]).as_bytes();
    }
    let mut level = reduce_all(&[document]);
    while level.len() > NODE {
        level = reduce_all(&[&level]);
    }
    *blake3::keyed_hash(&key, &level).as_bytes()
}
