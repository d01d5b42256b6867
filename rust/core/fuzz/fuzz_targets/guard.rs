//! Hostile questions and models: no panic, no difference between asking the one and the other, scores that are shares.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmcache_core::guard::{FEATURES, Question, Trees, judge};

fuzz_target!(|data: &[u8]| {
    if let Ok(trees) = Trees::read(data) {
        assert!((0.0..=1.0).contains(&trees.score(&[0.5; FEATURES.len()])));
    }
    let Some((&cut, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let mut at = text.len() * usize::from(cut) / 256;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let (one, two) = text.split_at(at);
    let (one, two) = (Question::new(one), Question::new(two));
    let (there, back) = (judge(&one, &two, 0.9), judge(&two, &one, 0.9));
    assert!(there.vetoes().eq(back.vetoes()));
    assert_eq!(there.score.to_bits(), back.score.to_bits());
    assert!((0.0..=1.0).contains(&there.score));
    assert!(!judge(&one, &one, 1.0).is_vetoed());
});
