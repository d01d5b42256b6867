//! The checksums of many records, side by side.
//!
//! A record of some kilobytes has two or three of BLAKE3's chunks, and its vector code takes eight or sixteen at
//! once: alone, a record leaves most of it idle. Chunks of several records fill it. `benches/test_redis.py` has
//! what that spares a read.

use blake3::IncrementCounter;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::platform::Platform;

use super::CHECKSUM_LEN;
use crate::lanes::{BEYOND, CHUNK_END, CHUNK_START, DIGEST, IV, LANES};

/// Bytes of one of BLAKE3's chunks.
const CHUNK: usize = 1024;
/// Chunks of a record that are hashed beside those of others; with more, it fills the vectors by itself.
const BESIDE: usize = 8;

/// Of each record whether it ends with the checksum of what is before it: says of records that are not sealed
/// what [`super::decode`] checks. Costs half a pass over the bytes of records of two kilobytes, for eight or more.
#[must_use]
pub fn intact(records: &[&[u8]]) -> Vec<bool> {
    let platform = Platform::detect();
    let mut digests = vec![[[0; DIGEST]; BESIDE]; records.len()];
    let beside: Vec<usize> = records.iter().map(|record| lendable(record)).collect();
    // Chunks that are at one place of their records have one number, which is what vectors share.
    for place in 0..BESIDE {
        let mut lanes = Vec::with_capacity(LANES);
        for (at, record) in records.iter().enumerate() {
            if place < beside[at]
                && let Some(chunk) = record[place * CHUNK..].first_chunk::<CHUNK>()
            {
                lanes.push((at, chunk));
            }
        }
        for lanes in lanes.chunks(LANES) {
            let mut out = [0; LANES * DIGEST];
            let chunks: Vec<&[u8; CHUNK]> = lanes.iter().map(|(_, chunk)| *chunk).collect();
            platform.hash_many(
                &chunks,
                &IV,
                place as u64,
                IncrementCounter::No,
                0,
                CHUNK_START,
                CHUNK_END,
                &mut out[..lanes.len() * DIGEST],
            );
            for ((at, _), digest) in lanes.iter().zip(out.as_chunks::<DIGEST>().0) {
                digests[*at][place] = *digest;
            }
        }
    }
    records
        .iter()
        .zip(&digests)
        .zip(&beside)
        .map(|((record, digests), &beside)| is_intact(record, &digests[..beside]))
        .collect()
}

/// How many of a record's first chunks may be hashed beside others: all but what its last chunk is, and `BEYOND`
/// bytes follow each.
fn lendable(record: &[u8]) -> usize {
    let body = record.len().saturating_sub(CHECKSUM_LEN);
    if body <= CHUNK || body > BESIDE * CHUNK {
        return 0;
    }
    let inner = (body - 1) / CHUNK;
    inner.min(record.len().saturating_sub(BEYOND) / CHUNK)
}

fn is_intact(record: &[u8], digests: &[[u8; DIGEST]]) -> bool {
    let Some((body, checksum)) = record.split_at_checked(record.len().wrapping_sub(CHECKSUM_LEN))
    else {
        return false;
    };
    let hash = if digests.is_empty() {
        blake3::hash(body)
    } else {
        let rest = body[digests.len() * CHUNK..].chunks(CHUNK);
        let mut all: Vec<[u8; DIGEST]> = digests.to_vec();
        all.extend(rest.enumerate().map(|(at, chunk)| {
            blake3::Hasher::new()
                .set_input_offset(((digests.len() + at) * CHUNK) as u64)
                .update(chunk)
                .finalize_non_root()
        }));
        let (left, right) = all.split_at(left(all.len()));
        merge_subtrees_root(&merged(left), &merged(right), Mode::Hash)
    };
    hash.as_bytes()[..CHECKSUM_LEN] == *checksum
}

/// The chaining value over those of some chunks.
fn merged(digests: &[[u8; DIGEST]]) -> [u8; DIGEST] {
    if let [one] = digests {
        return *one;
    }
    let (left, right) = digests.split_at(left(digests.len()));
    merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
}

/// How many chunks are in the left part of a tree: the largest power of two that leaves some (section 2.1 of the
/// BLAKE3 paper).
fn left(chunks: usize) -> usize {
    chunks.next_power_of_two() / 2
}
