//! Rules: patterns of labels with a seq.

use std::cell::Cell;

use llmcache_core::markers::{MAX_RULES, Markers};

use crate::{EPOCH, NONE, SPACE, at};

#[test]
fn a_rule_covers_what_was_computed_before_it_and_fits() {
    let markers = Markers::new(EPOCH);
    markers.raise(SPACE, &[], &["content/*/2024-*"], 100);
    let valid = |snap, label| markers.valid(SPACE, at(snap), &[1], label);
    assert!(!valid(99, Some("content/blog/2024-05")));
    assert!(valid(100, Some("content/blog/2024-05")), "computed after");
    assert!(valid(99, Some("content/blog/2023-05")), "another label");
    assert!(valid(99, None), "no label");
    assert!(
        markers.valid(SPACE + 1, at(99), &[], Some("content/a/2024-")),
        "another namespace"
    );
    assert_eq!(markers.stamp(SPACE), at(100));
    markers.raise(SPACE, &[], &["content/*/2024-*"], 90);
    assert!(!valid(99, Some("content/blog/2024-05")), "never lowered");
    markers.forget_rules(SPACE, &["content/*/2024-*"]);
    assert!(valid(99, Some("content/blog/2024-05")));
}

#[test]
fn one_step_raises_targets_and_rules_to_one_seq() {
    let markers = Markers::new(EPOCH);
    let seq = markers.raise_here(SPACE, &[1], &["a/*"], 70);
    for valid_at in [seq - 1, seq] {
        let expected = valid_at >= seq;
        assert_eq!(markers.valid(SPACE, at(valid_at), &[1], None), expected);
        assert_eq!(
            markers.valid(SPACE, at(valid_at), &[], Some("a/b")),
            expected
        );
    }
}

#[test]
fn an_entry_is_judged_once_by_each_rule() {
    let markers = Markers::new(EPOCH);
    let asked = Cell::new(0);
    let valid = |since| {
        let label = || {
            asked.set(asked.get() + 1);
            Some("a/b")
        };
        markers.valid_entry(SPACE, at(5), &[0; 32], &[], label, since)
    };
    assert!(valid(0));
    assert_eq!(asked.get(), 0, "no rule, no look at the label");
    let since = markers.generation();
    markers.raise(SPACE, &[], &["a/*"], 9);
    assert!(!valid(since));
    // Had it been found valid after that rule, the rule need not be asked again.
    let since = markers.generation();
    assert!(valid(since));
    markers.raise(SPACE, &[], &["x/*"], 10);
    assert!(valid(since), "the new rule does not cover it");
    markers.raise(SPACE, &[], &["a/*"], 11);
    assert!(!valid(since), "a rule that was raised is asked again");
}

#[test]
fn a_repeated_rule_makes_no_new_generation() {
    let markers = Markers::new(EPOCH);
    markers.raise(SPACE, &[3], &["a/*"], 9);
    let generation = markers.generation();
    markers.raise(SPACE, &[3], &["a/*"], 9);
    markers.forget_rules(SPACE, &["a/*"]);
    assert_eq!(markers.generation(), generation);
}

#[test]
fn rules_are_bounded_and_what_was_forgotten_stays_forbidden() {
    let markers = Markers::new(EPOCH);
    let count = 3 * MAX_RULES as u64;
    for number in 1..=count {
        markers.raise(SPACE, &[], &[format!("a/{number}")], number);
    }
    for number in 1..=count {
        let label = format!("a/{number}");
        assert!(!markers.valid(SPACE, at(number - 1), &[], Some(&label)));
    }
    assert!(
        !markers.valid(SPACE, at(1), &[], None),
        "the floor is for all"
    );
    assert!(markers.valid(SPACE, markers.stamp(SPACE), &[], Some("a/7")));
    let all: Vec<String> = (0..2 * MAX_RULES)
        .map(|number| format!("b/{number}"))
        .collect();
    let generation = markers.generation();
    markers.raise(SPACE, &[], &all, count + 9);
    assert!(markers.generation() > generation);
    assert!(!markers.valid(SPACE, at(count + 8), &[], Some("b/300")));
}

#[test]
fn a_new_epoch_forgets_rules() {
    let markers = Markers::new(EPOCH);
    markers.raise(SPACE, &[], &["**"], 50);
    let mut stamp = at(1);
    stamp.epoch += 1;
    markers.adopt(SPACE, stamp);
    assert!(markers.valid(SPACE, stamp, &[], Some("a")));
    markers.raise(SPACE, &[2], NONE, 60);
    assert!(!markers.valid(SPACE, stamp, &[2], Some("a")));
}
