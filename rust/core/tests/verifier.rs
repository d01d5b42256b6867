//! The verifier's model: read as it was written, or refused.

use llmcache_core::guard::{FEATURES, Trees, TreesError};
use proptest::prelude::*;

/// A model of one tree, `nodes` of which each is feature, left, right, value.
fn model(nodes: &[(u16, u16, u16, f32)]) -> Vec<u8> {
    let mut bytes = b"LCFV".to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(u16::try_from(FEATURES.len()).unwrap().to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(0_f32.to_le_bytes());
    bytes.extend(0_f32.to_le_bytes());
    bytes.extend(u16::try_from(nodes.len()).unwrap().to_le_bytes());
    for (feature, left, right, value) in nodes {
        bytes.extend(feature.to_le_bytes());
        bytes.extend(left.to_le_bytes());
        bytes.extend(right.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

#[test]
fn a_model_is_read_as_it_was_written() {
    let leaf = |value| (u16::MAX, 0, 0, value);
    let trees = Trees::read(&model(&[(0, 1, 2, 0.5), leaf(-3.0), leaf(3.0)])).unwrap();
    let score = |cosine| {
        let mut features = [0.0; FEATURES.len()];
        features[0] = cosine;
        trees.score(&features)
    };
    assert!(score(0.5) < 0.05 && score(0.6) > 0.95);
}

#[test]
fn what_is_no_model_is_refused() {
    let good = model(&[(u16::MAX, 0, 0, 1.0)]);
    assert!(Trees::read(&good).is_ok());
    for end in 0..good.len() {
        assert!(Trees::read(&good[..end]).is_err(), "{end} bytes");
    }
    let read = |bytes: &[u8]| Trees::read(bytes).unwrap_err();
    assert_eq!(read(&[&good[..], b"x"].concat()), TreesError::Length);
    assert_eq!(read(b"LCFX rest"), TreesError::Header);
    assert_eq!(read(&model(&[(0, 0, 0, 1.0)])), TreesError::Node(0));
    assert_eq!(
        read(&model(&[(0, 1, 2, 1.0), (u16::MAX, 0, 0, 1.0)])),
        TreesError::Node(0)
    );
    assert_eq!(
        read(&model(&[(u16::MAX, 0, 0, f32::NAN)])),
        TreesError::Number
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_model_or_are_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Trees::read(&bytes);
    }
}
