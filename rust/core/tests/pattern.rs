//! Patterns of labels against a plain reference, and a bound on the work at the worst of them.

#[allow(
    unreachable_pub,
    reason = "included for its count of comparisons, which no one outside sees"
)]
#[path = "../src/markers/pattern.rs"]
mod pattern;

use pattern::{matches, matches_counted};
use proptest::prelude::*;

#[test]
fn examples() {
    for (wanted, fitting, others) in [
        (
            "content/*/2024-*",
            &["content/blog/2024-05", "content//2024-", "content/é/2024-*"][..],
            &[
                "content/blog/2023-05",
                "content/a/b/2024-05",
                "content/blog/2024-05/x",
                "Content/blog/2024-05",
            ][..],
        ),
        ("a/**", &["a", "a/b", "a/b/c", "a/"], &["ab", "b/a", ""]),
        ("**/z", &["z", "a/z", "a/b/z"], &["a/z/b", "az"]),
        (
            "a/**/b/**/c",
            &["a/b/c", "a/x/b/y/y/c", "a/b/b/c"],
            &["a/c/b", "a/b/c/d"],
        ),
        ("?/?", &["a/b", "é/漢"], &["a", "/b", "ab/c", "a/b/"]),
        ("a**b", &["ab", "axxb"], &["a/b", "a/x/b"]),
        ("*", &["", "a"], &["a/b"]),
        ("**", &["", "a", "a/b"], &[]),
        ("a/*/", &["a/b/", "a//"], &["a/b", "a/b/c"]),
        ("", &[""], &["a", "/"]),
        ("[a-z]\\*", &["[a-z]\\", "[a-z]\\x"], &["b"]),
    ] {
        for label in fitting {
            assert!(matches(wanted, label), "{wanted} {label}");
        }
        for label in others {
            assert!(!matches(wanted, label), "{wanted} {label}");
        }
    }
}

/// By the definition, with all its branches.
fn reference(wanted: &str, label: &str) -> bool {
    let wanted: Vec<&str> = wanted.split('/').collect();
    let label: Vec<&str> = label.split('/').collect();
    segments(&wanted, &label)
}

fn segments(wanted: &[&str], label: &[&str]) -> bool {
    match (wanted, label) {
        ([], _) => label.is_empty(),
        (["**", rest @ ..], _) => (0..=label.len()).any(|taken| segments(rest, &label[taken..])),
        ([_, ..], []) => false,
        ([one, rest @ ..], [given, more @ ..]) => {
            let (one, given): (Vec<char>, Vec<char>) =
                (one.chars().collect(), given.chars().collect());
            characters(&one, &given) && segments(rest, more)
        }
    }
}

fn characters(wanted: &[char], given: &[char]) -> bool {
    match (wanted, given) {
        ([], _) => given.is_empty(),
        (['*', rest @ ..], _) => (0..=given.len()).any(|taken| characters(rest, &given[taken..])),
        ([_, ..], []) => false,
        ([one, rest @ ..], [first, more @ ..]) => {
            (*one == '?' || one == first) && characters(rest, more)
        }
    }
}

/// The judgement, having checked what it took.
fn within_bound(wanted: &str, label: &str) -> bool {
    let mut steps = 0;
    let result = matches_counted(wanted, label, &mut || steps += 1);
    let bound = (wanted.chars().count() + 1) * (label.chars().count() + 1);
    assert!(
        steps <= bound,
        "{steps} comparisons, bound {bound}: {wanted:?} {label:?}"
    );
    result
}

#[test]
fn the_worst_patterns_take_no_more_than_length_times_length() {
    let label = "a".repeat(512);
    let path = "a/".repeat(255);
    for wanted in [
        "*a".repeat(250) + "b",
        "*".repeat(500) + "b",
        format!("*{}b", "a".repeat(256)),
        "**/".repeat(150) + "b",
        "**/a*/".repeat(80) + "b",
        "**/*a*a*b/".repeat(40) + "**",
        format!("**/{}b", "a/".repeat(128)),
        "?*".repeat(250) + "b",
    ] {
        for label in [&label, &path, &format!("{path}{label}")] {
            assert!(!within_bound(&wanted, label), "{wanted}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_reference(wanted in "[ab*?/]{0,12}", label in "[ab/é]{0,12}") {
        prop_assert_eq!(within_bound(&wanted, &label), reference(&wanted, &label));
    }

    #[test]
    fn agrees_where_segments_are_what_varies(
        wanted in prop::collection::vec(prop_oneof![Just("**"), Just("a"), Just("*"), Just("a*b")], 1..7),
        label in prop::collection::vec(prop_oneof![Just("a"), Just("ab"), Just("")], 1..9),
    ) {
        let (wanted, label) = (wanted.join("/"), label.join("/"));
        prop_assert_eq!(within_bound(&wanted, &label), reference(&wanted, &label));
    }

    #[test]
    fn long_ones_keep_the_bound(wanted in "[ab*?/]{0,300}", label in "[ab/]{0,512}") {
        within_bound(&wanted, &label);
    }
}
