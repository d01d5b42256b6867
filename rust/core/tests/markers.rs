//! Markers: what an invalidation makes invalid, and what it leaves alone.

use llmcache_core::markers::{Markers, Stamp, Target, label_prefixes, target};

const EPOCH: u64 = 7;
const KEY: [u8; 32] = [1; 32];

fn entry_targets(namespace: &str, tag: &str, label: &str) -> Vec<u64> {
    let mut all = vec![
        target(namespace, Target::Namespace),
        target(namespace, Target::Key(&KEY)),
        target(namespace, Target::Tag(tag)),
    ];
    all.extend(label_prefixes(label).map(|prefix| target(namespace, Target::Label(prefix))));
    all
}

#[test]
fn a_raised_marker_ends_what_started_before_it_and_nothing_that_starts_after() {
    let space = target("a", Target::Namespace);
    for named in [
        Target::Namespace,
        Target::Key(&KEY),
        Target::Tag("doc:7"),
        Target::Label("content/blog/ai"),
        Target::Label("content/blog/"),
        Target::Label("content/"),
    ] {
        let markers = Markers::new(EPOCH);
        let targets = entry_targets("a", "doc:7", "content/blog/ai");
        let before = markers.stamp(space);
        assert!(markers.valid(space, before, &targets));
        let generation = markers.generation();
        markers.raise_here(space, &[target("a", named)], 1_000);
        assert!(
            markers.generation() > generation,
            "entries checked before must be checked again"
        );
        assert!(!markers.valid(space, before, &targets));
        assert!(markers.valid(space, markers.stamp(space), &targets));
    }
}

#[test]
fn what_is_not_named_stays_valid() {
    for named in [
        Target::Key(&[2; 32]),
        Target::Tag("doc:70"),
        Target::Tag("content/blog/ai"), // a tag is no label
        Target::Label("content/blog"),  // nor a prefix without its slash
        Target::Label("content/blog/a"),
        Target::Version("doc:7"),
    ] {
        let markers = Markers::new(EPOCH);
        let space = target("a", Target::Namespace);
        let targets = entry_targets("a", "doc:7", "content/blog/ai");
        let before = markers.stamp(space);
        markers.raise_here(space, &[target("a", named)], 1_000);
        assert!(markers.valid(space, before, &targets));
    }
}

#[test]
fn namespaces_are_strangers() {
    let markers = Markers::new(EPOCH);
    let (ours, theirs) = (
        target("a", Target::Namespace),
        target("b", Target::Namespace),
    );
    let before = markers.stamp(ours);
    markers.raise_here(theirs, &[theirs, target("b", Target::Tag("doc:7"))], 1_000);
    assert!(markers.valid(ours, before, &entry_targets("a", "doc:7", "x")));
}

#[test]
fn the_clock_never_stands_still_or_goes_back() {
    let markers = Markers::new(EPOCH);
    let space = target("a", Target::Namespace);
    let named = [target("a", Target::Tag("t"))];
    let first = markers.raise_here(space, &named, 5_000);
    let second = markers.raise_here(space, &named, 5_000);
    let third = markers.raise_here(space, &named, 1);
    assert!(first < second && second < third, "{first} {second} {third}");
    // An authority's older seq does not lower a marker.
    let before = markers.stamp(space);
    markers.raise(space, &named, 1);
    assert!(markers.valid(space, before, &named));
    assert!(!markers.valid(
        space,
        Stamp {
            epoch: EPOCH,
            snap: second
        },
        &named
    ));
}

#[test]
fn another_epoch_is_never_valid() {
    let markers = Markers::new(EPOCH);
    let space = target("a", Target::Namespace);
    let stamp = markers.stamp(space);
    assert!(!markers.valid(
        space,
        Stamp {
            epoch: EPOCH + 1,
            ..stamp
        },
        &[space]
    ));
}
