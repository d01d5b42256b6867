//! A question taken apart once, so that it can be compared with many.

use super::aspects::{Aspects, aspects};
use super::language::language;
use super::numbers::{Number, numbers};
use super::spans::{Spans, spans};
use super::stem::is_irregular;
use super::tokens::{MAX_BYTES, Token, tokens};
use super::words::{Class, value_of};

/// What a question asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Unknown,
    YesNo,
    Who,
    When,
    Where,
    Why,
    Count,
    Amount,
    Degree,
    How,
    What,
    Which,
    /// "Will Ann or Bob win?"
    Choice,
    /// "Who will win: Ann or Bob?"
    WhoOf,
}

impl Kind {
    /// Whether answers to the one cannot be answers to the other, however the rest is worded.
    pub(super) fn excludes(self, other: Self) -> bool {
        use Kind::{Amount, Choice, Count, Degree, When, Where, Which, Who, WhoOf, Why, YesNo};
        let narrow = |kind| {
            matches!(
                kind,
                Who | WhoOf | When | Where | Why | Count | Amount | Degree
            )
        };
        let pair = |one, two| {
            let decides = two == YesNo || two == Choice && one != WhoOf;
            narrow(one) && (narrow(two) || decides) || (one == Count && two == Which)
        };
        let people = |kind| matches!(kind, Who | WhoOf);
        if people(self) && people(other) {
            return false;
        }
        self != other && (pair(self, other) || pair(other, self))
    }
}

/// What guards look at of a question. Of more than `MAX_BYTES` or `MAX_TOKENS` only a part is looked at.
#[derive(Clone, Debug)]
pub struct Question {
    pub(super) tokens: Vec<Token>,
    /// How many of them are content words.
    pub(super) contents: usize,
    /// There is more of it than was looked at.
    pub(super) cut: bool,
    /// Of the whole text.
    pub(super) digest: [u8; 32],
    pub(super) numbers: Vec<Number>,
    /// Months, weekdays, and days relative to the asker, sorted.
    pub(super) dates: Vec<u32>,
    pub(super) spans: Spans,
    pub(super) language: u8,
    pub(super) kind: Kind,
    /// What is asked about the subject.
    pub(super) aspects: Aspects,
    pub(super) sentences: usize,
    pub(super) negations: usize,
    /// Somebody did something, and does it no more.
    pub(super) used_to: bool,
    pub(super) passive: bool,
    /// Stems of the words that say nothing of what is asked, sorted.
    pub(super) function_words: Vec<u32>,
}

impl Question {
    /// Whether there is more of the text than is looked at.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Takes a text apart. Costs about 50 ns a byte; a text of any length and content will do.
    pub fn new(text: &str) -> Self {
        let end = (0..=text.len().min(MAX_BYTES))
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        let (seen, cut) = (&text[..end], end < text.len());
        let (tokens, more) = tokens(seen);
        let (kind, asking, sentences) = asked(&tokens);
        Self {
            kind,
            aspects: aspects(asking, kind),
            sentences,
            cut: cut || more,
            contents: tokens.iter().filter(|token| token.is_content()).count(),
            digest: *blake3::hash(text.as_bytes()).as_bytes(),
            numbers: numbers(&tokens),
            dates: dates(&tokens),
            spans: spans(seen),
            language: language(&tokens),
            negations: negations(&tokens),
            used_to: used_to(&tokens),
            passive: passive(&tokens),
            function_words: function_words(&tokens),
            tokens,
        }
    }
}

/// How often a question says not. "Or not", "not only" and "nothing but" say the opposite, or nothing.
fn negations(tokens: &[Token]) -> usize {
    let word = |at: Option<usize>| {
        at.and_then(|at| tokens.get(at))
            .map_or("", |token| &token.text)
    };
    let negates = |&at: &usize| {
        let (before, after) = (word(at.checked_sub(1)), word(Some(at + 1)));
        tokens[at].class.intersects(Class::NEGATION)
            && before != "or"
            && before != "if"
            && !matches!(after, "only" | "just" | "doubt" | "matter")
    };
    (0..tokens.len()).filter(negates).count()
}

fn dates(tokens: &[Token]) -> Vec<u32> {
    const SPAN: u32 = 100;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let of = |class: Class| token.class.intersects(class).then(|| value_of(&token.text));
        let beside = |at: Option<usize>| {
            at.and_then(|at| tokens.get(at))
                .is_some_and(|token| token.number)
        };
        if let Some(month) = of(Class::MONTH) {
            // May and march are verbs, too.
            if !token.class.intersects(Class::FUNCTION) && &*token.text != "march"
                || token.named
                || beside(at.checked_sub(1))
                || beside(Some(at + 1))
            {
                found.push(month);
            }
        } else if let Some(day) = of(Class::WEEKDAY) {
            found.push(SPAN + day);
        } else if let Some(day) = of(Class::RELATIVE) {
            found.push(2 * SPAN + day);
        }
    }
    found.sort_unstable();
    found
}

/// The kind of the last sentence that has one, that sentence, and how many there are: what comes before it is why it
/// is asked.
fn asked(tokens: &[Token]) -> (Kind, &[Token], usize) {
    let (mut found, mut asking, mut count) = (Kind::Unknown, tokens, 0);
    let mut start = 0;
    while start < tokens.len() {
        let end = (start + 1..tokens.len())
            .find(|&at| tokens[at].initial)
            .unwrap_or(tokens.len());
        let sentence = kind_of_sentence(&tokens[start..end]);
        if sentence != Kind::Unknown {
            (found, asking) = (sentence, &tokens[start..end]);
        }
        count += 1;
        start = end;
    }
    if found == Kind::Who && ends_in_choice(tokens) {
        found = Kind::WhoOf;
    }
    (found, asking, count)
}

/// Whether nothing but a name stands behind the last "or".
fn ends_in_choice(tokens: &[Token]) -> bool {
    let last = tokens.iter().rposition(|token| &*token.text == "or");
    last.is_some_and(|at| {
        let chosen = &tokens[at + 1..];
        !chosen.is_empty() && chosen.iter().all(|token| token.named)
    })
}

fn kind_of_sentence(tokens: &[Token]) -> Kind {
    const ASKING: [&str; 24] = [
        "is", "are", "am", "was", "were", "do", "does", "did", "can", "could", "should", "would",
        "will", "has", "have", "had", "may", "might", "must", "shall", "be", "isn't", "need",
        "any",
    ];
    let tokens = asked_politely(tokens);
    if tokens
        .first()
        .is_some_and(|token| ASKING.contains(&&*token.text))
    {
        // "Will Ann or Bob win?" asks which of them.
        let named = |at: usize| tokens.get(at).is_some_and(|token| token.named);
        let chosen = |at: usize| &*tokens[at].text == "or" && named(at - 1) && named(at + 1);
        return if (1..tokens.len()).any(chosen) {
            Kind::Choice
        } else {
            Kind::YesNo
        };
    }
    let Some(at) = tokens
        .iter()
        .position(|token| token.class.intersects(Class::QUESTION))
    else {
        return Kind::Unknown;
    };
    let [next, then] = [at + 1, at + 2].map(|at| tokens.get(at).map_or("", |token| &*token.text));
    match &*tokens[at].text {
        "who" | "whom" | "whose" => Kind::Who,
        "when" => Kind::When,
        "where" => Kind::Where,
        "why" => Kind::Why,
        "which" => Kind::Which,
        "how" => match next {
            // How many days is how long.
            "many"
                if matches!(
                    then,
                    "days" | "weeks" | "months" | "years" | "hours" | "minutes"
                ) =>
            {
                Kind::Degree
            }
            "many" => Kind::Count,
            "much" if matches!(then, "time" | "longer") => Kind::Degree,
            "much" => Kind::Amount,
            "long" | "old" | "far" | "often" | "tall" | "big" | "large" | "fast" | "high"
            | "deep" | "heavy" | "soon" => Kind::Degree,
            "come" => Kind::Why,
            _ => Kind::How,
        },
        "what" if matches!(next, "time" | "year" | "date" | "day") => Kind::When,
        _ => Kind::What,
    }
}

/// What is asked behind "could you tell me" and the like, from its question word on.
fn asked_politely(tokens: &[Token]) -> &[Token] {
    const ASKED: [&str; 8] = [
        "you", "anyone", "anybody", "someone", "somebody", "i", "we", "there",
    ];
    const TELL: [&str; 16] = [
        "tell", "explain", "know", "say", "advise", "suggest", "describe", "ask", "help", "show",
        "clarify", "reason", "idea", "inform", "be", "please",
    ];
    let word = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    if !ASKED.contains(&word(1)) && !ASKED.contains(&word(0)) {
        return tokens;
    }
    let told = tokens
        .iter()
        .take(6)
        .position(|token| TELL.contains(&&*token.text));
    let asked = tokens
        .iter()
        .position(|token| token.class.intersects(Class::QUESTION));
    match (told, asked) {
        (Some(told), Some(asked)) if told < asked && asked < 10 => &tokens[asked..],
        _ => tokens,
    }
}

fn used_to(tokens: &[Token]) -> bool {
    (1..tokens.len()).any(|at| {
        let [before, after] = [at - 1, at].map(|at| &*tokens[at].text);
        let first = at.checked_sub(2).map_or("", |at| &*tokens[at].text);
        matches!(before, "used" | "use")
            && after == "to"
            && !matches!(
                first,
                "is" | "are" | "be" | "was" | "get" | "i" | "to" | "can"
            )
            || before == "formerly"
    })
}

/// "was seen by": an auxiliary, a participle, and `by`.
fn passive(tokens: &[Token]) -> bool {
    let by = tokens
        .iter()
        .position(|token| token.class.intersects(Class::BY));
    by.is_some_and(|by| {
        let be = tokens[..by]
            .iter()
            .any(|token| token.class.intersects(Class::BE | Class::PAST));
        let participle = by.checked_sub(1).is_some_and(|at| {
            let word = &*tokens[at].text;
            word.ends_with("ed")
                || word.ends_with("en")
                || word.ends_with("wn")
                || word.ends_with("ght")
                || is_irregular(word) && word != "meant" // a word means nothing to anybody
        });
        be && participle
    })
}

/// Stems of the words that say nothing of what is asked, sorted.
fn function_words(tokens: &[Token]) -> Vec<u32> {
    let tokens = tokens.iter().filter(|token| !token.is_content());
    #[expect(clippy::cast_possible_truncation, reason = "a hash")]
    let mut stems: Vec<u32> = tokens.map(|token| token.stem as u32).collect();
    stems.sort_unstable();
    stems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_of_the_last_sentence() {
        let kind = |text| Question::new(text).kind;
        assert_eq!(kind("I have a cold. How long does it last?"), Kind::Degree);
        assert_eq!(kind("Is it true?"), Kind::YesNo);
        assert_eq!(kind("What year did it end?"), Kind::When);
        assert_eq!(kind("how many of them?"), Kind::Count);
        assert_eq!(kind("weather"), Kind::Unknown);
    }

    #[test]
    fn may_is_a_month_beside_a_number_only() {
        assert_eq!(Question::new("What may I do?").dates, Vec::<u32>::new());
        assert_eq!(Question::new("What happened on May 5?").dates, [5]);
    }

    #[test]
    fn any_text_is_taken_apart() {
        for text in [
            "",
            " ",
            "\u{0}\u{300}",
            "ß".repeat(5000).as_str(),
            "a b ".repeat(3000).as_str(),
            "-'-' ''n't 's",
        ] {
            let _ = Question::new(text);
        }
        assert!(Question::new(&"word ".repeat(2000)).cut);
    }
}
