//! Tree digests and fingerprints against a plain recursive reference over `blake3::hash`.

use llmcache_core::fingerprint::{NODE, of_document, tree_digests};
use proptest::prelude::*;

/// Section 3 of the specification, as it reads: nodes of 256 bytes, the last filled up with zeros.
fn reduce(bytes: &[u8]) -> Vec<u8> {
    let mut level = Vec::new();
    let mut node = |piece: &[u8]| {
        let mut full = [0; NODE];
        full[..piece.len()].copy_from_slice(piece);
        level.extend_from_slice(blake3::hash(&full).as_bytes());
    };
    if bytes.is_empty() {
        node(&[]);
    } else {
        bytes.chunks(NODE).for_each(node);
    }
    level
}

fn reference_digest(bytes: &[u8]) -> [u8; 32] {
    let level = reduce(bytes);
    if level.len() == 32 {
        level.try_into().unwrap()
    } else {
        reference_digest(&level)
    }
}

/// Section 4: the level of at most one node, keyed with the length of the document.
fn reference_fingerprint(document: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(b"llmcache_fast/fp");
    key[24..].copy_from_slice(&u64::try_from(document.len()).unwrap().to_le_bytes());
    let mut level = document.to_vec();
    while level.len() > NODE {
        level = reduce(&level);
    }
    *blake3::keyed_hash(&key, &level).as_bytes()
}

/// Bytes without a period that a mixed-up node could hide in.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect()
}

const LARGE: [usize; 8] = [
    4095,
    4096,
    4097,
    8192,
    65_535,
    65_537,
    1 << 20,
    (3 << 20) + 1,
];

#[test]
fn digests_of_every_short_length() {
    let all = bytes(3000);
    for length in 0..=3000 {
        assert_eq!(
            tree_digests(&[&all[..length]]),
            [reference_digest(&all[..length])],
            "{length} bytes"
        );
    }
}

#[test]
fn digests_of_large_inputs() {
    for length in LARGE {
        let input = bytes(length);
        assert_eq!(
            tree_digests(&[&input]),
            [reference_digest(&input)],
            "{length} bytes"
        );
    }
}

#[test]
fn a_batch_equals_its_singles() {
    let all = bytes(20_000);
    let inputs: Vec<&[u8]> = [0, 1, 255, 256, 257, 2048, 2049, 19_999, 0, 300]
        .iter()
        .map(|&length| &all[all.len() - length..])
        .collect();
    let singles: Vec<[u8; 32]> = inputs
        .iter()
        .map(|input| tree_digests(&[input])[0])
        .collect();
    assert_eq!(tree_digests(&inputs), singles);
    assert!(tree_digests(&[]).is_empty());
}

#[test]
fn fingerprints_of_every_short_length() {
    // Over all three ways: one node, eight lanes, the tree.
    let all = bytes(3000);
    for length in 0..=3000 {
        assert_eq!(
            of_document(&all[..length]),
            reference_fingerprint(&all[..length]),
            "{length} bytes"
        );
    }
}

#[test]
fn fingerprints_of_large_documents() {
    for length in LARGE {
        let document = bytes(length);
        assert_eq!(
            of_document(&document),
            reference_fingerprint(&document),
            "{length} bytes"
        );
    }
}

#[test]
fn filling_up_with_zeros_is_not_filling_in_zeros() {
    // A digest alone does not tell a short node from one that ends in zeros: the length beside it does.
    assert_eq!(tree_digests(&[b"abc"]), tree_digests(&[b"abc\0"]));
    assert_ne!(of_document(b"abc"), of_document(b"abc\0"));
    for length in [NODE, NODE + 1, 8 * NODE - 1, 8 * NODE, 20 * NODE + 7] {
        let mut document = bytes(length);
        let before = of_document(&document);
        document.push(0);
        assert_ne!(of_document(&document), before, "{length} bytes");
    }
}

proptest! {
    #[test]
    fn any_batch_equals_the_reference(inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..12)) {
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let expected: Vec<[u8; 32]> = slices.iter().map(|input| reference_digest(input)).collect();
        prop_assert_eq!(tree_digests(&slices), expected);
    }

    #[test]
    fn one_changed_byte_changes_the_fingerprint(length in 1_usize..9000, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut document = bytes(length);
        let before = of_document(&document);
        document[at.index(length)] ^= flip;
        prop_assert_ne!(of_document(&document), before);
    }
}
