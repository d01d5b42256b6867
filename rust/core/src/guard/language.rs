//! Which language a question is in, from its function words alone: enough to keep two languages apart.

use super::tokens::Token;
use super::words::Class;

const WORDS: [&[&str]; 7] = [
    &[
        "the", "is", "what", "how", "do", "are", "of", "to", "and", "in", "my", "i", "does", "can",
        "why", "a",
    ],
    &[
        "el", "la", "los", "las", "de", "que", "qué", "cómo", "es", "en", "un", "una", "por",
        "para", "mi", "cuál",
    ],
    &[
        "le", "la", "les", "des", "est", "que", "quel", "quelle", "comment", "je", "un", "une",
        "pour", "mon", "dans", "du",
    ],
    &[
        "der", "die", "das", "ist", "wie", "was", "ein", "eine", "ich", "und", "zu", "mein", "den",
        "nicht", "warum", "von",
    ],
    &[
        "o", "os", "as", "que", "como", "um", "uma", "é", "para", "do", "da", "meu", "qual", "não",
        "em", "por",
    ],
    &[
        "il", "lo", "gli", "che", "come", "è", "un", "una", "per", "di", "mio", "qual", "non",
        "perché", "sono", "della",
    ],
    &[
        "de", "het", "een", "is", "wat", "hoe", "ik", "en", "van", "niet", "mijn", "waarom",
        "voor", "zijn", "kan", "welke",
    ],
];

pub(super) const ENGLISH: u8 = 1;
/// None of those that are known.
const OTHER: u8 = 255;

/// The index of a language, from 1; 0 is anybody's guess: too short, or as much of one as of another.
pub(super) fn language(tokens: &[Token]) -> u8 {
    let mut counts = [0_u32; WORDS.len()];
    for token in tokens {
        for (count, words) in counts.iter_mut().zip(WORDS) {
            *count += u32::from(words.contains(&&*token.text));
        }
    }
    let (best, &most) = counts
        .iter()
        .enumerate()
        .max_by_key(|&(at, count)| (*count, std::cmp::Reverse(at)))
        .unwrap_or((0, &0));
    let second = counts
        .iter()
        .enumerate()
        .filter(|&(at, _)| at != best)
        .map(|(_, &count)| count)
        .max();
    let english = |token: &Token| token.class.intersects(Class::FUNCTION);
    if tokens.len() > 3 && !tokens.iter().any(english) {
        // Hardly four words of English go without one that only holds the others together.
        if most < 2 || best == 0 {
            OTHER
        } else {
            u8::try_from(best + 1).unwrap_or(OTHER)
        }
    } else if most >= 2 && second < Some(most) {
        u8::try_from(best + 1).unwrap_or(OTHER)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tokens::tokens;

    #[test]
    fn languages_are_told_apart() {
        let of = |text| language(&tokens(text).0);
        assert_eq!(
            of("What is the capital of Spain?"),
            of("How do I get to the station?")
        );
        let others = [
            "¿Cuál es la capital de España?",
            "Was ist die Hauptstadt von Spanien?",
            "Wat is het weer van vandaag, een storm?",
        ];
        for other in others {
            assert!(
                ![0, of("What is the capital of Spain?")].contains(&of(other)),
                "{other}"
            );
        }
        assert_eq!(of("weather Paris"), 0);
    }
}
