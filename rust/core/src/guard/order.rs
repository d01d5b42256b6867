//! Who does what to whom: the same words in another order.

use smallvec::SmallVec;

use super::difference::Difference;
use super::question::Question;
use super::words::{Class, value_of};

/// Whether the two say the same words of each other's arguments: "A to B" and "B to A".
pub(super) fn swapped(one: &Question, two: &Question, difference: &Difference<'_>) -> bool {
    if roles_swapped(one, two) {
        return true;
    }
    let has = |question: &Question, class| {
        question
            .tokens
            .iter()
            .any(|token| token.class.intersects(class))
    };
    let symmetric = Class::SYMMETRIC | Class::AND | Class::OR;
    if has(one, symmetric) && has(two, symmetric) {
        return false;
    }
    let named = |&&(at, to): &&(usize, usize)| {
        one.tokens[at].named && two.tokens[to].named || numbers_name(one, at, two, to)
    };
    let proper = || difference.shared.iter().filter(named);
    let keeps = |at: usize, to: usize| {
        // Of two behind the same preposition each may be the other's.
        let alone = |role| {
            proper()
                .filter(|&&(at, _)| role_of(one, at) == role)
                .count()
                == 1
        };
        let role = role_of(one, at);
        role.is_some() && role == role_of(two, to) && alone(role)
    };
    let places: Vec<usize> = proper()
        .filter(|&&(at, to)| !keeps(at, to))
        .map(|&(_, to)| to)
        .collect();
    let content = |&&(at, to): &&(usize, usize)| one.tokens[at].is_content() && !keeps(at, to);
    let contents: Vec<usize> = difference
        .shared
        .iter()
        .filter(content)
        .map(|&(_, to)| to)
        .collect();
    let same_words = difference.only.iter().all(SmallVec::is_empty);
    let moved = same_words && exchanged(&contents);
    let inverted = if places.len() > 1 {
        inverts(&places) || moved
    } else if proper().count() > 1 {
        return moved;
    } else if same_words {
        moved
    } else {
        return false;
    };
    // In the passive, the one who does it comes last.
    inverted != (one.passive != two.passive)
}

/// Whether a number belongs to the same name in both: "Henry 8".
fn numbers_name(one: &Question, at: usize, two: &Question, to: usize) -> bool {
    let name = |question: &Question, at: usize| {
        let before = at.checked_sub(1).map(|at| &question.tokens[at]);
        before
            .filter(|token| token.named && question.tokens[at].number)
            .map(|token| token.stem)
    };
    name(one, at).is_some_and(|stem| name(two, to) == Some(stem))
}

/// The preposition that a name stands behind: "in Lyon" and "for Ann" may come in any order.
fn role_of(question: &Question, at: usize) -> Option<usize> {
    const ROLES: [&str; 4] = ["in", "for", "at", "with"];
    let before = question.tokens[..at].iter().rev();
    let mut before = before.filter(|token| !matches!(&*token.text, "the" | "a" | "an"));
    before
        .next()
        .and_then(|token| ROLES.iter().position(|role| *role == &*token.text))
}

fn inverts(places: &[usize]) -> bool {
    places.windows(2).any(|pair| pair[0] > pair[1])
}

/// Whether two that do not stand side by side have changed places, and all else is where it was: "do dogs chase
/// cats" and "do cats chase dogs", but not "in Paris, where to eat" and "where to eat in Paris".
fn exchanged(places: &[usize]) -> bool {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    let moved: Vec<usize> = (0..places.len())
        .filter(|&at| places[at] != sorted[at])
        .collect();
    matches!(moved[..], [first, last] if last > first + 1)
}

/// Whether what stood behind one preposition of a role stands elsewhere, and something else behind it.
fn roles_swapped(one: &Question, two: &Question) -> bool {
    let objects = |question: &Question| -> Vec<(u32, u64)> {
        let role = |at: usize| {
            let token = &question.tokens[at];
            let object = || {
                question.tokens[at + 1..]
                    .iter()
                    .find(|token| token.is_content())
            };
            token
                .class
                .intersects(Class::ROLE)
                .then(|| Some((value_of(&token.text), object()?.stem)))
                .flatten()
        };
        (0..question.tokens.len()).filter_map(role).collect()
    };
    let (left, right) = (objects(one), objects(two));
    let holds = |question: &Question, stem| question.tokens.iter().any(|token| token.stem == stem);
    left.iter().any(|&(role, object)| {
        let other = right.iter().find(|(other, _)| *other == role);
        other.is_some_and(|&(_, other)| other != object && holds(two, object) && holds(one, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::difference::difference;

    fn of(one: &str, two: &str) -> bool {
        let (one, two) = (Question::new(one), Question::new(two));
        swapped(&one, &two, &difference(&one, &two))
    }

    #[test]
    fn arguments_that_changed_places_are_seen() {
        assert!(of(
            "How far is it from Lyon to Nice?",
            "How far is it from Nice to Lyon?"
        ));
        assert!(of("why do dogs chase cats", "why do cats chase dogs"));
        assert!(of("Is Ann taller than Bob?", "Is Bob taller than Ann?"));
        assert!(of("Does Ann teach Bob?", "Is Ann taught by Bob?"));
        assert!(of("convert from yaml to json", "convert from json to yaml"));
    }

    #[test]
    fn other_syntax_is_no_change_of_places() {
        assert!(!of("Did Ann invite Bob?", "Was Bob invited by Ann?"));
        assert!(!of("Is Ann married to Bob?", "Is Bob married to Ann?"));
        assert!(!of("In Lyon, where can I eat?", "Where can I eat in Lyon?"));
        assert!(!of("salt and pepper", "pepper and salt"));
    }
}
