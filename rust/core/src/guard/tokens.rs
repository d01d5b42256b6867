//! Words of a question: where they end, what kind they are, what they are compared by.

use super::lexicon::{Known, known};
use super::stem::{irregular, stem};
use super::words::{Class, class_of, contraction};

/// Tokens that are looked at; a question with more is only ever equal to itself.
pub const MAX_TOKENS: usize = 192;
/// Bytes of text that are looked at; likewise.
pub const MAX_BYTES: usize = 4096;

/// A word, number or symbol of a question.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent of each other"
)]
pub(super) struct Token {
    /// In lower case.
    pub text: Box<str>,
    /// Of the word's stem: what inflections share.
    pub stem: u64,
    pub class: Class,
    /// What the lexicon knows of the stem.
    pub known: Option<&'static Known>,
    /// Written with a capital, and not because a sentence begins.
    pub named: bool,
    pub number: bool,
    /// Written in capitals alone.
    pub capitals: bool,
    /// The first of its sentence.
    pub initial: bool,
}

impl Token {
    fn word(text: &str, named: bool) -> Self {
        // What a slipped finger left within a word.
        let mut text = std::borrow::Cow::Borrowed(text);
        let number = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit());
        if !number && text.contains([',', '.']) {
            text = text.replace([',', '.'], "").into();
        }
        let text = &*text;
        let (stem, class) = (stem(text), base_class(text));
        let compared = !class.intersects(Class::FUNCTION) || class.intersects(Class::COMPARED);
        Self {
            stem,
            class,
            known: if compared { known(stem) } else { None },
            named,
            number,
            capitals: false,
            initial: false,
            text: text.into(),
        }
    }

    /// Makes it a word that says nothing of what is asked.
    fn empty(&mut self) {
        self.class = Class::FUNCTION;
        self.known = None;
    }

    /// Whether the word is compared with those of other questions one by one: it carries meaning, or there are
    /// opposites of it, as of "before" and "all".
    pub(super) fn is_compared(&self) -> bool {
        self.is_content() || self.class.intersects(Class::COMPARED)
    }

    /// Whether the word carries meaning of its own.
    pub(super) fn is_content(&self) -> bool {
        !self.class.intersects(Class::FUNCTION)
    }

    /// Whether it is a number, a date or a unit.
    pub(super) fn is_measure(&self) -> bool {
        self.number || self.class.intersects(Class::MEASURE)
    }
}

/// The class of a word, or of what it is a form of: "found" is as empty as "find".
fn base_class(word: &str) -> Class {
    let class = class_of(word);
    match irregular(word) {
        Some(base) if class == Class::NONE && class_of(base) == Class::FUNCTION => Class::FUNCTION,
        _ => class,
    }
}

/// 64-bit FNV-1a: the same on every machine, for tables made elsewhere.
pub(super) const fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        state = (state ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    state
}

/// A question's tokens, and whether it had more.
pub(super) fn tokens(text: &str) -> (Vec<Token>, bool) {
    let mut found = Vec::with_capacity(32);
    let mut initial = true;
    for raw in text.split_whitespace() {
        for part in raw.split(['/', '\u{2013}', '\u{2014}', '(', ')', '[', ']', '{', '}']) {
            let inner = part.trim_matches(|c: char| !c.is_alphanumeric() && c != '+' && c != '#');
            let inner = inner
                .strip_prefix('#')
                .filter(|rest| rest.starts_with(char::is_alphabetic))
                .unwrap_or(inner);
            let ends = part
                .trim_end_matches(['"', '\'', ')'])
                .ends_with(['.', '?', '!', ':', ';']);
            let sign = |sign: Option<char>| sign.filter(|&c| "$€£¥₹%".contains(c));
            if let Some(sign) = sign(part.chars().next()) {
                found.push(Token::word(sign.encode_utf8(&mut [0; 4]), false));
            }
            if !inner.is_empty() {
                let first = found.len();
                match inner.split_once('.').filter(|_| is_amount(inner)) {
                    Some((unit, amount)) => {
                        push(&mut found, unit, true);
                        push(&mut found, amount, true);
                    }
                    None => push(&mut found, inner, initial),
                }
                if let Some(token) = found.get_mut(first).filter(|_| initial) {
                    token.initial = true;
                }
                initial = ends && !is_abbreviation(inner);
                if part
                    .trim_end_matches(|c| ".?!,;:".contains(c))
                    .ends_with('%')
                {
                    found.push(Token::word("%", false));
                }
            }
            if found.len() > MAX_TOKENS {
                found.truncate(MAX_TOKENS);
                return (found, true);
            }
        }
    }
    idioms(&mut found);
    (found, false)
}

/// What questions ask lists of.
const LISTED: [&str; 13] = [
    "types",
    "differences",
    "similarities",
    "causes",
    "reasons",
    "effects",
    "features",
    "advantages",
    "disadvantages",
    "benefits",
    "symptoms",
    "components",
    "factors",
];

/// What words mean by those beside them.
fn idioms(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let (before, rest) = tokens.split_at_mut(at);
        let Some((token, rest)) = rest.split_first_mut() else {
            return;
        };
        let next = rest.first().map_or("", |token| &*token.text);
        let listed = before.last().is_some_and(|token| {
            matches!(
                &*token.text,
                "what" | "which" | "are" | "the" | "many" | "some"
            )
        });
        match &*token.text {
            // "What are the different types" asks for the types.
            "different" if matches!(next, "types" | "kinds" | "sorts" | "ways") && listed => {
                token.empty();
            }
            "main" | "major" | "key" | "various" if LISTED.contains(&next) && listed => {
                token.empty();
            }
            "all" if next == "over" => token.empty(),
            "right" if matches!(next, "now" | "away") => token.empty(),
            text => {
                let last = before.last().map(|token| (token.named, &*token.text));
                if let Some(value) = roman(text, last) {
                    *token = Token {
                        initial: token.initial,
                        ..Token::word(value, false)
                    };
                }
            }
        }
    }
}

/// The digits of a Roman numeral. What may be another word is one behind a name or a word that is counted only.
fn roman(text: &str, before: Option<(bool, &str)>) -> Option<&'static str> {
    const COUNTED: [&str; 10] = [
        "war", "type", "stage", "part", "chapter", "class", "phase", "grade", "level", "volume",
    ];
    let counted = before.is_some_and(|(named, word)| named || COUNTED.contains(&word));
    Some(match text {
        "ii" => "2",
        "iii" => "3",
        "vii" => "7",
        "viii" => "8",
        "iv" if counted => "4",
        "vi" if counted => "6",
        "ix" if counted => "9",
        _ => return None,
    })
}

/// Whether a word is a unit and a number behind it: `rs.500`.
pub(super) fn is_amount(word: &str) -> bool {
    word.split_once('.').is_some_and(|(unit, amount)| {
        amount.starts_with(|c: char| c.is_ascii_digit())
            && class_of(&unit.to_ascii_lowercase()).intersects(Class::UNIT)
    })
}

/// Whether a full stop behind a word belongs to it: "U.S.", "Dr.".
fn is_abbreviation(word: &str) -> bool {
    const TITLES: [&str; 10] = [
        "dr", "mr", "mrs", "ms", "st", "vs", "no", "jr", "sr", "prof",
    ];
    word.contains('.') && word.split('.').all(|part| part.len() < 2)
        || TITLES.iter().any(|title| word.eq_ignore_ascii_case(title))
}

fn push(found: &mut Vec<Token>, word: &str, initial: bool) {
    let capital = word.chars().next().is_some_and(char::is_uppercase);
    // A second capital within is a name wherever it stands: NATO, iPhone.
    let inner = word.chars().skip(1).any(char::is_uppercase);
    let lower = if word.is_ascii() {
        word.to_ascii_lowercase()
    } else {
        word.to_lowercase().replace('\u{2019}', "'")
    };
    if let Some(parts) = contraction(&lower) {
        for (at, part) in parts.iter().enumerate() {
            found.push(Token::word(part, at == 0 && capital && !initial));
        }
        return;
    }
    let bare = lower
        .strip_suffix("'s")
        .or_else(|| lower.strip_suffix('\''))
        .unwrap_or(&lower);
    let bare = bare.strip_suffix("n't").map_or_else(
        || bare.to_owned(),
        |verb| {
            found.push(Token::word("not", false));
            verb.to_owned()
        },
    );
    let capitals = inner && word.len() < 8 && !word.chars().take(2).any(char::is_lowercase);
    let numeral = bare
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_digit());
    let named = (capital && !initial) || (inner && !numeral);
    for piece in bare.split('-').filter(|piece| !piece.is_empty()) {
        let mut token = Token::word(piece, named && !class_of(piece).intersects(Class::FUNCTION));
        token.capitals = capitals;
        found.push(token);
    }
}
