//! What must be there letter for letter: quotations, code, and characters that embedders do not know.

/// The spans of a question, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub quotes: Vec<Box<str>>,
    pub code: Vec<Box<str>>,
    /// Characters beyond Latin letters, digits and common punctuation, in their order.
    pub strange: String,
}

/// The spans of a text.
pub(super) fn spans(text: &str) -> Spans {
    let mut found = Spans::default();
    for (open, close) in [('"', '"'), ('\u{201c}', '\u{201d}'), ('\u{ab}', '\u{bb}')] {
        delimited(text, open, close, |span| {
            let words = span.to_lowercase();
            let words = words
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty());
            let words = words.collect::<Vec<_>>().join(" ");
            if !words.is_empty() {
                found.quotes.push(words.into());
            }
        });
    }
    delimited(text, '`', '`', |span| found.code.push(span.trim().into()));
    for word in text.split_whitespace() {
        let word = word.trim_matches(|c: char| {
            matches!(
                c,
                '`' | '"' | '\'' | ',' | '?' | '!' | '(' | ')' | ';' | ':'
            )
        });
        let word = word.trim_end_matches('.');
        if is_code(word) && !found.code.iter().any(|span| &**span == word) {
            found.code.push(word.into());
        }
    }
    found.strange = text
        .char_indices()
        .filter(|&(at, c)| is_strange(c) && !(c == '#' && is_hashtag(text, at)))
        .flat_map(|(_, c)| c.to_lowercase())
        .collect();
    found.quotes.sort_unstable();
    found.code.sort_unstable();
    found
}

fn delimited(text: &str, open: char, close: char, mut each: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let inner = &rest[start + open.len_utf8()..];
        let Some(end) = inner.find(close) else { return };
        each(&inner[..end]);
        rest = &inner[end + close.len_utf8()..];
    }
}

/// Identifiers, paths, flags, versions, addresses.
fn is_code(word: &str) -> bool {
    let bytes = word.as_bytes();
    // Most words: a letter, and small letters behind it.
    let plain = bytes.iter().skip(1).all(u8::is_ascii_lowercase);
    if bytes.len() < 2 || plain && bytes[0].is_ascii_alphabetic() {
        return false;
    }
    let letters = bytes
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .count();
    let camel = bytes
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
        .count();
    word.contains('_')
        || word.contains("::")
        || word.contains("->")
        || word.contains("()")
        || word.contains('\\')
        || word.contains("./")
        || word.contains('@')
        || (bytes[0] == b'-' && letters > 0)
        || word.contains("://")
        || (bytes[0] == b'/' && letters > 0)
        || word.ends_with("++")
        || word.ends_with('#')
        || camel > 1
        || (word.contains('.') && letters > 0 && dotted(word))
        || word.split('.').count() > 2 && letters == 0
}

/// A hash before the first word says nothing: `#travel`. Elsewhere it may name something: `C#`, `#header`.
fn is_hashtag(text: &str, at: usize) -> bool {
    text[..at].trim().is_empty() && text[at + 1..].starts_with(char::is_alphabetic)
}

/// `file.ext`, `module.name`, but no abbreviation such as `e.g` or `U.S`.
fn dotted(word: &str) -> bool {
    let parts = || word.strip_prefix('.').unwrap_or(word).split('.');
    let part = |part: &str| {
        part.len() > 1 || part.len() == 1 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    parts().all(part) && !super::tokens::is_amount(word)
}

fn is_strange(c: char) -> bool {
    if c.is_ascii() {
        return matches!(
            c,
            '+' | '#' | '=' | '<' | '>' | '*' | '^' | '~' | '|' | '\\' | '@'
        );
    }
    let latin = matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
    let mark = matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{a0}' | '\u{ab}' | '\u{bb}' | '\u{b4}'
        | '\u{bf}' | '\u{a1}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{ad}' | '\u{feff}' | '€' | '£' | '¥' | '₹' | '°' | '×');
    !latin && !mark && !c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found() {
        let found = spans(
            "What does \"Carpe Diem\" mean in `main.rs` or snake_case, on v3.11 of C++ with --flag?",
        );
        assert_eq!(&*found.quotes[0], "carpe diem");
        for code in ["main.rs", "snake_case", "C++", "--flag"] {
            assert!(
                found.code.iter().any(|span| &**span == code),
                "{code} in {:?}",
                found.code
            );
        }
        assert_eq!(
            spans("I moved to the U.S. in May, e.g. for work.").code,
            Vec::<Box<str>>::new()
        );
    }

    #[test]
    fn strange_characters_are_kept_in_order() {
        assert_eq!(spans("Was ist größer: π oder 日本?").strange, "π日本");
        assert_eq!(spans("Don\u{2019}t \u{2014} really?").strange, "");
        assert_eq!(spans("an open \" only").quotes, Vec::<Box<str>>::new());
    }
}
