//! Numbers of a question, with their units: digits or words, ordinals, dates as what they are made of.

use super::tokens::Token;
use super::words::{Class, value_of};

/// A number in a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    /// The bits of a double.
    value: u64,
    /// Of a unit that stands beside it, or 0.
    pub unit: u32,
    /// Third, 3rd.
    ordinal: bool,
}

impl Number {
    /// Whether it is the same, but for its unit.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.value, self.ordinal) == (other.value, other.ordinal)
    }
}

/// All numbers, sorted.
pub(super) fn numbers(tokens: &[Token]) -> Vec<Number> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((value, ordinal, end)) = number(tokens, at) else {
            at += 1;
            continue;
        };
        let unit = |token: Option<&Token>| {
            token
                .filter(|token| token.class.intersects(Class::UNIT))
                .map_or(0, |token| value_of(&token.text))
        };
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let suffix = suffix(&tokens[end - 1].text);
        found.push(Number {
            value: value.to_bits(),
            unit: [value_of(suffix), unit(tokens.get(end)), unit(before)]
                .into_iter()
                .find(|&unit| unit != 0)
                .unwrap_or(0),
            ordinal,
        });
        at = end;
    }
    found.sort_unstable();
    found
}

/// The letters behind the digits of a word: `km` of `10km`.
fn suffix(word: &str) -> &str {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ',')
    } else {
        ""
    }
}

/// Value, whether it is an ordinal, and where the number that begins at a token ends.
fn number(tokens: &[Token], at: usize) -> Option<(f64, bool, usize)> {
    let token = &tokens[at];
    if token.number {
        let digits = token.text.len() - suffix(&token.text).len();
        let text: String = token.text[..digits].chars().filter(|&c| c != ',').collect();
        let mut value: f64 = text.trim_end_matches('.').parse().ok()?;
        let ordinal = matches!(suffix(&token.text), "st" | "nd" | "rd" | "th");
        value *= match suffix(&token.text) {
            "k" => 1e3,
            "m" | "mn" => 1e6,
            "bn" | "b" => 1e9,
            _ => 1.0,
        };
        let mut end = at + 1;
        while let Some(times) = tokens.get(end).and_then(times) {
            value *= times;
            end += 1;
        }
        return Some((value, ordinal, end));
    }
    if token.class.intersects(Class::ORDINAL) {
        return Some((f64::from(value_of(&token.text)), true, at + 1));
    }
    let begins = |token: &Token| token.class.intersects(Class::NUMBER);
    if !begins(token) {
        return None;
    }
    let (mut total, mut part, mut end) = (0.0, 0.0_f64, at);
    // "One" is a number only where it cannot be a pronoun.
    let one = |token: &Token, part: f64| &*token.text == "one" && part >= 20.0;
    while let Some(word) = tokens
        .get(end)
        .filter(|token| begins(token) || one(token, part))
    {
        match f64::from(value_of(&word.text).max(u32::from(one(word, part)))) {
            hundred @ 100.0 => part = part.max(1.0) * hundred,
            large if large >= 1000.0 => {
                total += part.max(1.0) * large;
                part = 0.0;
            }
            // Two numbers in a row that do not make one: "two three".
            small
                if part % 100.0 != 0.0
                    && (part % 10.0 != 0.0 || part % 100.0 < 20.0 || small >= 10.0) =>
            {
                break;
            }
            small => part += small,
        }
        end += 1;
    }
    Some((total + part, false, end))
}

fn times(token: &Token) -> Option<f64> {
    let value = value_of(&token.text);
    (token.class.intersects(Class::NUMBER) && value >= 100).then(|| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tokens::tokens;

    fn of(text: &str) -> Vec<(f64, bool)> {
        let (tokens, _) = tokens(text);
        let numbers = numbers(&tokens);
        numbers
            .iter()
            .map(|each| (f64::from_bits(each.value), each.ordinal))
            .collect()
    }

    #[test]
    fn numbers_are_read_in_any_spelling() {
        assert_eq!(of("three of 3 and 3.0"), [(3.0, false); 3]);
        assert_eq!(of("1,000 and one thousand and 1k"), [(1000.0, false); 3]);
        assert_eq!(of("twenty-one people, 21 seats"), [(21.0, false); 2]);
        assert_eq!(of("two hundred fifty, 250"), [(250.0, false); 2]);
        assert_eq!(of("third 3rd"), [(3.0, true); 2]);
        assert_eq!(of("$5 million, 5m"), [(5e6, false); 2]);
        assert_eq!(of("a question"), []);
    }

    #[test]
    fn units_belong_to_numbers() {
        let unit = |text: &str| numbers(&tokens(text).0)[0].unit;
        assert_eq!(unit("5 kilograms"), unit("5kg"));
        assert_ne!(unit("5 miles"), unit("5 km"));
        assert_eq!(unit("$5"), unit("5 dollars"));
        assert_eq!(unit("5 apples"), 0);
    }
}
