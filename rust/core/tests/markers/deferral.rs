//! What the authority could not be told yet is invalid whatever its stamp.

use llmcache_core::markers::{Markers, Stamp};
use proptest::prelude::*;

use crate::{EPOCH, NONE, SPACE, at};

const FAR: u64 = 1 << 60;

#[test]
fn a_deferred_target_is_invalid_whatever_its_stamp_until_delivered() {
    let markers = Markers::new(EPOCH);
    let generation = markers.generation();
    markers.defer(SPACE, &[1], &["a/*"]);
    assert!(markers.generation() > generation);
    for snap in [0, FAR] {
        assert!(!markers.valid(SPACE, at(snap), &[2, 1], None));
        assert!(!markers.valid(SPACE, at(snap), &[2], Some("a/b")));
        assert!(markers.valid(SPACE, at(snap), &[2], Some("b/b")));
    }
    assert!(markers.valid(SPACE + 1, at(0), &[1], Some("a/b")));
    assert_eq!(markers.stamp(SPACE), at(0), "no seq of this process' own");

    let generation = markers.generation();
    markers.deliver(SPACE, &[1], &["a/*"], at(500));
    assert!(markers.generation() > generation);
    for (targets, label) in [(&[1][..], None), (&[][..], Some("a/b"))] {
        assert!(!markers.valid(SPACE, at(499), targets, label));
        assert!(markers.valid(SPACE, at(500), targets, label));
    }
    // Told twice, it holds once.
    markers.deliver(SPACE, &[1], &["a/*"], at(500));
    assert!(markers.valid(SPACE, at(500), &[1], Some("a/b")));
}

#[test]
fn namespace_and_key_can_be_deferred() {
    let markers = Markers::new(EPOCH);
    let key = [9; 32];
    let valid = || markers.valid_entry(SPACE, at(FAR), &key, &[], || None, 0);
    for target in [SPACE, u64::from_le_bytes([9; 8])] {
        markers.defer(SPACE, &[target], NONE);
        assert!(!valid());
        markers.deliver(SPACE, &[target], NONE, at(7));
        assert!(valid());
    }
}

#[test]
fn what_is_deferred_again_meanwhile_waits_for_its_own_delivery() {
    let markers = Markers::new(EPOCH);
    markers.defer(SPACE, &[1], &["a/*"]);
    markers.defer(SPACE, &[1], &["a/*"]);
    markers.deliver(SPACE, &[1], &["a/*"], at(500));
    assert!(!markers.valid(SPACE, at(FAR), &[1], None));
    assert!(!markers.valid(SPACE, at(FAR), &[], Some("a/b")));
    markers.deliver(SPACE, &[1], &["a/*"], at(600));
    assert!(markers.valid(SPACE, at(600), &[1], Some("a/b")));
    assert!(!markers.valid(SPACE, at(599), &[1], None));
}

#[test]
fn deferral_outlives_an_epoch_and_delivery_brings_one() {
    let markers = Markers::new(EPOCH);
    markers.defer(SPACE, &[1], &["a/*"]);
    let other = Stamp {
        epoch: EPOCH + 1,
        snap: 40,
    };
    markers.adopt(SPACE, other);
    assert!(!markers.valid(SPACE, other, &[1], None));
    assert!(!markers.valid(SPACE, other, &[], Some("a/b")));
    assert!(markers.valid(SPACE, other, &[2], Some("b")));
    let third = Stamp {
        epoch: EPOCH + 2,
        snap: 90,
    };
    markers.deliver(SPACE, &[1], &["a/*"], third);
    assert!(
        !markers.valid(SPACE, other, &[2], None),
        "of an older epoch"
    );
    assert!(markers.valid(SPACE, third, &[1], Some("a/b")));
}

#[test]
fn a_delivery_without_a_seq_takes_back_and_raises_nothing() {
    let markers = Markers::new(EPOCH);
    markers.defer(SPACE, &[1, 2], &["a/*"]);
    markers.defer(SPACE, &[SPACE], NONE);
    let generation = markers.generation();
    markers.deliver(SPACE, &[1, 2], &["a/*"], Stamp::default());
    assert!(
        !markers.valid(SPACE, at(5), &[SPACE], None),
        "the wider one stands"
    );
    markers.deliver(SPACE, &[SPACE], NONE, Stamp::default());
    assert!(markers.valid(SPACE, at(0), &[1, SPACE], Some("a/b")));
    assert!(markers.is_empty());
    assert_eq!(markers.generation(), generation, "nothing became invalid");
}

#[derive(Clone, Debug)]
enum Step {
    Defer(u64),
    Deliver(u64),
    Raise(u64),
    Adopt,
}

proptest! {
    /// Against counts and a list of what was raised.
    #[test]
    fn agrees_with_a_plain_count(steps in prop::collection::vec(
        prop_oneof![
            (0_u64..3).prop_map(Step::Defer),
            (0_u64..3).prop_map(Step::Deliver),
            (0_u64..3).prop_map(Step::Raise),
            Just(Step::Adopt),
        ],
        0..40,
    )) {
        let markers = Markers::new(EPOCH);
        let (mut waiting, mut raised, mut epoch) = ([0_u32; 3], [0_u64; 3], EPOCH);
        for (seq, step) in (1_u64..).zip(steps) {
            match step {
                Step::Defer(target) => {
                    markers.defer(SPACE, &[target], NONE);
                    waiting[usize::try_from(target)?] += 1;
                }
                Step::Deliver(target) => {
                    markers.deliver(SPACE, &[target], NONE, Stamp { epoch, snap: seq });
                    let at = usize::try_from(target)?;
                    waiting[at] = waiting[at].saturating_sub(1);
                    raised[at] = seq;
                }
                Step::Raise(target) => {
                    markers.raise(SPACE, &[target], NONE, seq);
                    raised[usize::try_from(target)?] = seq;
                }
                Step::Adopt => {
                    epoch += 1;
                    markers.adopt(SPACE, Stamp { epoch, snap: seq });
                    raised = [0; 3];
                }
            }
            for target in 0..3 {
                let at = usize::try_from(target)?;
                for snap in [seq - 1, seq, FAR] {
                    let stamp = Stamp { epoch, snap };
                    let allowed = waiting[at] == 0 && raised[at] <= snap;
                    prop_assert_eq!(markers.valid(SPACE, stamp, &[target], None), allowed);
                }
            }
        }
    }
}
