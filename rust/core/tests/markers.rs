//! Markers against an oracle that remembers everything: what it forbids is never valid.

#[path = "markers/deferral.rs"]
mod deferral;
#[path = "markers/rules.rs"]
mod rules;

use std::collections::HashMap;

use llmcache_core::markers::{MAX_MARKERS, Markers, Stamp, Target, label_prefixes, target};
use proptest::prelude::*;

const SPACE: u64 = 7;
const EPOCH: u64 = 11;
const NONE: &[&str] = &[];

fn at(snap: u64) -> Stamp {
    Stamp { epoch: EPOCH, snap }
}

#[test]
fn a_value_computed_before_an_invalidation_is_invalid_and_one_computed_after_is_not() {
    let markers = Markers::new(EPOCH);
    let before = markers.stamp(SPACE);
    assert!(markers.valid(SPACE, before, &[1, 2], None));
    let seq = markers.raise_here(SPACE, &[2], NONE, 1000);
    assert_eq!(seq, 1000);
    assert!(!markers.valid(SPACE, before, &[1, 2], None));
    assert!(markers.valid(SPACE, before, &[1], None), "another target");
    let after = markers.stamp(SPACE);
    assert_eq!(
        after,
        Stamp {
            epoch: EPOCH,
            snap: 1000
        }
    );
    assert!(markers.valid(SPACE, after, &[1, 2], None));
    assert!(
        markers.valid(SPACE + 1, before, &[2], None),
        "another namespace"
    );
}

#[test]
fn the_clock_grows_though_the_time_goes_back() {
    let markers = Markers::new(EPOCH);
    let seqs: Vec<u64> = [50, 50, 10, -5, 51]
        .map(|now| markers.raise_here(SPACE, &[1], NONE, now))
        .into();
    assert_eq!(seqs, [50, 51, 52, 53, 54]);
}

#[test]
fn a_marker_is_never_lowered() {
    let markers = Markers::new(EPOCH);
    markers.raise(SPACE, &[1], NONE, 100);
    markers.raise(SPACE, &[1], NONE, 90);
    assert!(!markers.valid(
        SPACE,
        Stamp {
            epoch: EPOCH,
            snap: 99
        },
        &[1],
        None
    ));
    assert_eq!(markers.stamp(SPACE).snap, 100);
}

#[test]
fn a_new_epoch_makes_everything_older_invalid() {
    let markers = Markers::new(EPOCH);
    markers.raise(SPACE, &[1], NONE, 100);
    let old = markers.stamp(SPACE);
    markers.adopt(
        SPACE,
        Stamp {
            epoch: EPOCH + 1,
            snap: 5,
        },
    );
    assert!(!markers.valid(SPACE, old, &[9], None));
    assert_eq!(
        markers.stamp(SPACE),
        Stamp {
            epoch: EPOCH + 1,
            snap: 5
        }
    );
    assert!(markers.valid(SPACE, markers.stamp(SPACE), &[1], None));
    assert!(markers.is_empty());
    // The same epoch moves the clock forward only.
    markers.adopt(
        SPACE,
        Stamp {
            epoch: EPOCH + 1,
            snap: 3,
        },
    );
    assert_eq!(markers.stamp(SPACE).snap, 5);
}

#[test]
fn what_can_make_an_entry_invalid_makes_a_new_generation() {
    let markers = Markers::new(EPOCH);
    let mut last = markers.generation();
    let mut grown = || {
        let now = markers.generation();
        assert!(now > last);
        last = now;
    };
    markers.raise(SPACE, &[1], NONE, 5);
    grown();
    markers.raise_here(SPACE, &[1], NONE, 6);
    grown();
    markers.adopt(SPACE, Stamp { epoch: 1, snap: 1 });
    grown();
    let before = markers.generation();
    // The clock moves on, and what is told twice was known: no entry can have become invalid.
    markers.adopt(SPACE, Stamp { epoch: 1, snap: 2 });
    markers.raise(SPACE, &[], NONE, 7);
    markers.valid(SPACE, Stamp::default(), &[1], None);
    markers.stamp(SPACE);
    assert_eq!(markers.generation(), before);
}

#[test]
fn markers_are_bounded_and_what_was_forgotten_stays_forbidden() {
    let markers = Markers::new(EPOCH);
    let count = 3 * MAX_MARKERS as u64;
    for number in 1..=count {
        markers.raise(SPACE, &[number], NONE, number);
        assert!(markers.len() <= MAX_MARKERS);
    }
    for number in (1..=count).step_by(97) {
        assert!(
            !markers.valid(
                SPACE,
                Stamp {
                    epoch: EPOCH,
                    snap: number - 1
                },
                &[number],
                None
            ),
            "{number}"
        );
    }
    assert!(
        markers.valid(SPACE, markers.stamp(SPACE), &[1, count], None),
        "what starts now is valid"
    );
}

#[test]
fn kinds_of_targets_and_namespaces_do_not_meet() {
    let key = [b'a'; 32];
    let name = std::str::from_utf8(&key).unwrap();
    let kinds = [
        Target::Namespace,
        Target::Tag(name),
        Target::Label(name),
        Target::Version(name),
    ];
    let mut seen: Vec<u64> = ["n", "m", "", "na"]
        .iter()
        .flat_map(|space| kinds.map(|kind| target(space, kind)))
        .collect();
    // A key holds its namespace already: one target, whatever the namespace said beside it.
    assert_eq!(
        target("n", Target::Key(&key)),
        target("m", Target::Key(&key))
    );
    assert_ne!(
        target("n", Target::Key(&key)),
        target("n", Target::Key(&[b'b'; 32]))
    );
    // A name must not slide into the namespace's.
    seen.extend([
        target("n", Target::Key(&key)),
        target("x", Target::Tag("yz")),
        target("xy", Target::Tag("z")),
        target("xyz", Target::Tag("")),
    ]);
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert_eq!(target("n", Target::Tag("t")), target("n", Target::Tag("t")));
}

#[test]
fn prefixes_of_labels() {
    let prefixes = |label| label_prefixes(label).collect::<Vec<_>>();
    assert_eq!(prefixes("a/b/c"), ["a/", "a/b/", "a/b/c"]);
    assert_eq!(prefixes("a/b/"), ["a/", "a/b/"]);
    assert_eq!(prefixes("a"), ["a"]);
    assert_eq!(
        prefixes("content/été/x"),
        ["content/", "content/été/", "content/été/x"]
    );
}

/// Everything that ever happened.
#[derive(Default)]
struct Oracle {
    epoch: u64,
    seq: u64,
    raised: HashMap<u64, u64>,
}

#[derive(Clone, Debug)]
enum Step {
    RaiseHere(Vec<u64>, i64),
    Raise(Vec<u64>, u64),
    Adopt(u64, u64),
    Ask(u64, u64, Vec<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let targets = || prop::collection::vec(0_u64..6, 0..4);
    prop::collection::vec(
        prop_oneof![
            (targets(), -10_i64..60).prop_map(|(targets, now)| Step::RaiseHere(targets, now)),
            (targets(), 0_u64..80).prop_map(|(targets, seq)| Step::Raise(targets, seq)),
            (EPOCH..EPOCH + 2, 0_u64..80).prop_map(|(epoch, seq)| Step::Adopt(epoch, seq)),
            (EPOCH..EPOCH + 2, 0_u64..90, targets())
                .prop_map(|(epoch, snap, targets)| Step::Ask(epoch, snap, targets)),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn markers_agree_with_the_oracle(steps in steps()) {
        let markers = Markers::new(EPOCH);
        let mut oracle = Oracle { epoch: EPOCH, ..Oracle::default() };
        for step in steps {
            match step {
                Step::RaiseHere(targets, now) => {
                    let seq = markers.raise_here(SPACE, &targets, NONE, now);
                    prop_assert!(seq > oracle.seq);
                    oracle.seq = seq;
                    oracle.raised.extend(targets.into_iter().map(|target| (target, seq)));
                }
                Step::Raise(targets, seq) => {
                    markers.raise(SPACE, &targets, NONE, seq);
                    oracle.seq = oracle.seq.max(seq);
                    for target in targets {
                        let marker = oracle.raised.entry(target).or_default();
                        *marker = seq.max(*marker);
                    }
                }
                Step::Adopt(epoch, snap) => {
                    markers.adopt(SPACE, Stamp { epoch, snap });
                    if epoch == oracle.epoch {
                        oracle.seq = oracle.seq.max(snap);
                    } else {
                        oracle = Oracle { epoch, seq: snap, raised: HashMap::new() };
                    }
                }
                Step::Ask(epoch, snap, targets) => {
                    let allowed = epoch == oracle.epoch
                        && targets.iter().all(|target| oracle.raised.get(target).is_none_or(|&seq| seq <= snap));
                    prop_assert_eq!(markers.valid(SPACE, Stamp { epoch, snap }, &targets, None), allowed);
                }
            }
            prop_assert_eq!(markers.stamp(SPACE), Stamp { epoch: oracle.epoch, snap: oracle.seq });
        }
    }
}

proptest! {
    // Each case raises 80,000 markers.
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Beyond the bound markers may be too strict, never too lax.
    #[test]
    fn the_floor_never_allows_what_was_forbidden(seed in any::<u64>(), probes in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..1000), 40)) {
        let markers = Markers::new(EPOCH);
        let count = MAX_MARKERS + MAX_MARKERS / 4;
        let mut raised = Vec::with_capacity(count);
        let mut state = seed | 1;
        for number in 0..count as u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let seq = 1 + (state >> 44);
            markers.raise(SPACE, &[number], NONE, seq);
            raised.push((number, seq));
        }
        for (index, less) in probes {
            let (target, seq) = raised[index.index(raised.len())];
            let snap = seq.saturating_sub(less);
            let stamp = Stamp { epoch: EPOCH, snap };
            prop_assert!(!markers.valid(SPACE, stamp, &[target], None));
        }
    }
}
