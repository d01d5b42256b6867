//! Blinded names: a permutation that its secret alone undoes.

use std::collections::HashSet;

use llmcache_core::blinding::Blinding;
use proptest::prelude::*;

#[test]
fn targets_are_found_again_and_never_collide() {
    let blinding = Blinding::new(&[3; 32]);
    let edges = [
        0,
        1,
        u64::from(u32::MAX),
        1 << 32,
        u64::MAX - 1,
        u64::MAX,
        u64::MAX << 32,
    ];
    let targets: Vec<u64> = (0..10_000).chain(edges).collect();
    let blinded: HashSet<u64> = targets.iter().map(|&t| blinding.tier_target(t)).collect();
    let different: HashSet<u64> = targets.iter().copied().collect();
    assert_eq!(blinded.len(), different.len());
    for target in targets {
        assert_eq!(blinding.target(blinding.tier_target(target)), target);
        assert_eq!(blinding.tier_target(blinding.target(target)), target);
    }
}

/// A changed input bit changes each output bit about half of the time, both ways.
#[test]
fn every_bit_depends_on_every_bit() {
    let blinding = Blinding::new(&[4; 32]);
    for (name, permute) in [
        (
            "there",
            &(|x| blinding.tier_target(x)) as &dyn Fn(u64) -> u64,
        ),
        ("back", &|x| blinding.target(x)),
    ] {
        for bit in 0..64 {
            let mut flips = [0_u32; 64];
            for sample in 0..256_u64 {
                let input = sample.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let changed = permute(input) ^ permute(input ^ 1 << bit);
                for (out, flips) in flips.iter_mut().enumerate() {
                    *flips += u32::from(changed >> out & 1 == 1);
                }
            }
            // Seven standard deviations of 256 fair coins.
            assert!(
                flips.iter().all(|flips| (72..=184).contains(flips)),
                "{name}, bit {bit}: {flips:?}"
            );
        }
    }
}

#[test]
fn names_depend_on_the_secret_and_on_nothing_else() {
    let (one, same, other) = (
        Blinding::new(&[5; 32]),
        Blinding::new(&[5; 32]),
        Blinding::new(&[6; 32]),
    );
    let fingerprint = [7; 32];
    assert_eq!(one.tier_key(&fingerprint), same.tier_key(&fingerprint));
    assert_ne!(one.tier_key(&fingerprint), other.tier_key(&fingerprint));
    assert_ne!(one.tier_key(&fingerprint), fingerprint);
    assert_ne!(one.tier_target(1), other.tier_target(1));
    assert_eq!(format!("{one:?}"), "Blinding");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_target_is_found_again(secret in any::<[u8; 32]>(), target in any::<u64>()) {
        let blinding = Blinding::new(&secret);
        prop_assert_eq!(blinding.target(blinding.tier_target(target)), target);
    }
}
