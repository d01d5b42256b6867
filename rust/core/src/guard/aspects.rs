//! What is asked about a subject: its causes, its price, how it is done.
//!
//! What belongs here: words that tell it. What does not: the subject itself, which the verifier knows by the words both
//! questions share.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

use super::question::Kind;
use super::tokens::Token;

/// A set of what may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aspects(u32);

impl Aspects {
    /// The share that two have in common of what is in either: 1 where nothing is.
    pub(super) fn shared(self, other: Self) -> f32 {
        let (both, either) = (
            (self.0 & other.0).count_ones(),
            (self.0 | other.0).count_ones(),
        );
        if either == 0 {
            1.0
        } else {
            #[expect(clippy::cast_precision_loss, reason = "at most 32")]
            let share = both as f32 / either as f32;
            share
        }
    }

    /// How many are in each alone, of the one that has fewer.
    pub(super) fn apart(self, other: Self) -> u32 {
        (self.0 & !other.0)
            .count_ones()
            .min((other.0 & !self.0).count_ones())
    }
}

/// Words of each aspect.
const WORDS: [&str; 20] = [
    // what it is
    "mean means meaning define defined definition explain explanation",
    // why
    "why cause causes caused reason reasons due because",
    // how it is done
    "way ways method methods tip tips step steps trick tricks",
    // whether it can be
    "possible can able could may",
    // whether it must be
    "should necessary need needed must required require requirement requirements",
    // which to take
    "best top good recommend recommended suggest suggested favorite favourite greatest better worst",
    // how two differ
    "differ differs difference differences different distinguish versus vs compare compared comparison than",
    // what follows
    "effect effects affect affects consequence consequences impact impacts influence happens happen result results",
    // how it shows
    "symptom symptoms sign signs",
    // what helps
    "treat treated treatment treatments cure cures cured heal heals healed remedy remedies medication medications \
     medicine medicines relieve relief fix fixed solve reduce improve rid",
    // what averts it
    "prevent prevents prevention avoid avoiding stop stops protect protection",
    // what it costs
    "cost costs price prices expensive cheap cheaper cheapest salary worth fee fees pay paid",
    // when, how long
    "when long soon time year date often",
    // where
    "where place places site sites website websites",
    // who
    "who whom person people",
    // how many
    "many number percent percentage",
    // what it is for
    "used use uses purpose application applications benefit benefits advantage advantages important importance useful",
    // how it works
    "work works working mechanism function functions",
    // which there are
    "type types kind kinds example examples list names name categories",
    // whether it is bad
    "bad harmful dangerous danger safe safely risk risks worry worried serious concern concerned normal",
];

static BITS: LazyLock<HashMap<&'static str, u32, FixedState>> = LazyLock::new(|| {
    let mut bits: HashMap<_, u32, _> = HashMap::with_hasher(FixedState::default());
    for (aspect, words) in WORDS.iter().enumerate() {
        for word in words.split_whitespace() {
            *bits.entry(word).or_default() |= 1 << aspect;
        }
    }
    bits
});

/// What a sentence asks.
pub(super) fn aspects(sentence: &[Token], kind: Kind) -> Aspects {
    let words = sentence.iter().filter_map(|token| BITS.get(&*token.text));
    let how = match kind {
        Kind::How => 1 << 2,
        Kind::Amount => 1 << 11,
        _ => 0,
    };
    Aspects(words.fold(how, |found, bits| found | bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Question;

    fn of(text: &str) -> Aspects {
        Question::new(text).aspects
    }

    #[test]
    fn what_is_asked_is_told_by_words_and_by_the_kind_of_question() {
        let (cause, reason, price) = (
            of("Why do figs split?"),
            of("What is the reason that figs split?"),
            of("How much are figs?"),
        );
        assert!((cause.shared(reason) - 1.0).abs() < f32::EPSILON);
        assert_eq!(cause.apart(price), 1);
        assert!(cause.shared(price) < f32::EPSILON);
        let nothing = of("figs");
        assert!((nothing.shared(nothing) - 1.0).abs() < f32::EPSILON);
        assert_eq!(nothing.apart(cause), 0);
    }

    #[test]
    fn the_sentence_that_asks_counts() {
        let (short, long) = (
            of("Can figs be frozen?"),
            of("They cost more each year, and I worry. Can figs be frozen?"),
        );
        assert_eq!(short, long);
    }
}
