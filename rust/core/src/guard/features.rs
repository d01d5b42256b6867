//! Numbers that say how two questions differ: what the verifier decides by.

use super::difference::Difference;
use super::question::{Kind, Question};
use super::words::Class;

/// Names of the features, in their order: shares of 0 to 1, and counts. Few, and each of a meaning that does not
/// depend on what is spoken of: what is fitted to made-up questions has to hold for real ones.
pub const FEATURES: [&str; 19] = [
    "cosine",
    "covered_least",
    "changed_least",
    "changed_most",
    "synonyms",
    "words_least",
    "words_ratio",
    "order",
    "bigrams",
    "function_words",
    "kinds",
    "conjunctions_differ",
    "names_only_most",
    "numbers_only_most",
    "opposites",
    "negations_differ",
    "aspects_shared",
    "aspects_apart",
    "sentences",
];

/// The features of a pair. Symmetric: which of the two is asked makes no difference.
#[expect(clippy::cast_precision_loss, reason = "counts of words")]
pub(super) fn features(
    one: &Question,
    two: &Question,
    found: &Difference<'_>,
    cosine: f32,
) -> [f32; FEATURES.len()] {
    let (left, right) = (one.contents, two.contents);
    let only = [found.only[0].len(), found.only[1].len()];
    let share = |part: usize, whole: usize| {
        if whole == 0 {
            1.0
        } else {
            (part as f32 / whole as f32).min(1.0)
        }
    };
    let covered = [
        share(left.saturating_sub(only[0]), left),
        share(right.saturating_sub(only[1]), right),
    ];
    let names = |side: usize| found.only[side].iter().filter(|token| token.named).count();
    let numbers = common(&one.numbers, &two.numbers);
    let numbers = [one.numbers.len() - numbers, two.numbers.len() - numbers];
    let count = |question: &Question, class: Class| {
        let tokens = question.tokens.iter();
        tokens.filter(|token| token.class.intersects(class)).count()
    };
    let least = |of: [usize; 2]| of[0].min(of[1]) as f32;
    let most = |of: [usize; 2]| of[0].max(of[1]) as f32;
    [
        cosine,
        covered[0].min(covered[1]),
        least(found.changed),
        most(found.changed),
        found.synonyms as f32,
        left.min(right) as f32,
        share(left.min(right), left.max(right)),
        order(found),
        bigrams(one, two, found),
        overlap(&one.function_words, &two.function_words),
        kinds(one.kind, two.kind),
        count(one, Class::AND).abs_diff(count(two, Class::AND)) as f32,
        most([names(0), names(1)]),
        most(numbers),
        found.opposites as f32,
        f32::from(u8::from(one.negations % 2 != two.negations % 2)),
        one.aspects.shared(two.aspects),
        one.aspects.apart(two.aspects) as f32,
        one.sentences.max(two.sentences) as f32,
    ]
}

/// 1 for the same kind, 0 for two that exclude each other.
fn kinds(one: Kind, two: Kind) -> f32 {
    if one == two {
        1.0
    } else if one.excludes(two) {
        0.0
    } else if one == Kind::Unknown || two == Kind::Unknown {
        0.75
    } else {
        0.5
    }
}

/// Dice's coefficient of two sorted lists.
#[expect(clippy::cast_precision_loss, reason = "counts of words")]
fn overlap(one: &[u32], two: &[u32]) -> f32 {
    if one.is_empty() && two.is_empty() {
        return 1.0;
    }
    2.0 * common(one, two) as f32 / (one.len() + two.len()) as f32
}

/// How many items two sorted lists share.
pub(super) fn common<T: Ord>(one: &[T], two: &[T]) -> usize {
    let (mut at, mut to, mut found) = (0, 0, 0);
    while at < one.len() && to < two.len() {
        match one[at].cmp(&two[to]) {
            std::cmp::Ordering::Less => at += 1,
            std::cmp::Ordering::Greater => to += 1,
            std::cmp::Ordering::Equal => {
                found += 1;
                at += 1;
                to += 1;
            }
        }
    }
    found
}

/// Share of neighbouring shared words that are in the same order.
#[expect(clippy::cast_precision_loss, reason = "counts of words")]
fn order(found: &Difference<'_>) -> f32 {
    if found.shared.len() < 2 {
        return 1.0;
    }
    let kept = found
        .shared
        .windows(2)
        .filter(|pair| pair[0].1 < pair[1].1)
        .count();
    kept as f32 / (found.shared.len() - 1) as f32
}

/// Share of the shared words that also share the next word.
#[expect(clippy::cast_precision_loss, reason = "counts of words")]
fn bigrams(one: &Question, two: &Question, found: &Difference<'_>) -> f32 {
    if found.shared.is_empty() {
        return 0.0;
    }
    let next =
        |question: &Question, at: usize| question.tokens.get(at + 1).map_or(0, |token| token.stem);
    let kept = found
        .shared
        .iter()
        .filter(|&&(at, to)| next(one, at) == next(two, to))
        .count();
    kept as f32 / found.shared.len() as f32
}
