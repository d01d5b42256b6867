//! Which words may stand for each other, and which are opposites.
//!
//! What belongs here: the open classes of English, from `WordNet` (Miller 1995; `lexicon.txt`, made by
//! `benches/semantic/lexicon.py`) and a few of our own. What does not: closed classes (`words`).

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::stem::stem;

/// Opposites that `WordNet` does not have, or has in rare senses only.
const OPPOSITES: &[(&str, &str)] = &[
    ("cause", "cure"),
    ("cause", "treatment"),
    ("cause", "prevent"),
    ("earlier", "later"),
    ("before", "after"),
    ("more", "less"),
    ("more", "fewer"),
    ("most", "least"),
    ("most", "fewest"),
    ("many", "few"),
    ("first", "last"),
    ("over", "under"),
    ("above", "below"),
    ("longest", "shortest"),
    ("longer", "shorter"),
    ("oldest", "youngest"),
    ("older", "younger"),
    ("highest", "lowest"),
    ("higher", "lower"),
    ("largest", "smallest"),
    ("larger", "smaller"),
    ("bigger", "smaller"),
    ("biggest", "smallest"),
    ("better", "worse"),
    ("best", "worst"),
    ("fastest", "slowest"),
    ("faster", "slower"),
    ("cheapest", "expensive"),
    ("cheap", "expensive"),
    ("upload", "download"),
    ("encrypt", "decrypt"),
    ("encode", "decode"),
    ("install", "uninstall"),
    ("enable", "disable"),
    ("activate", "deactivate"),
    ("deposit", "withdraw"),
    ("send", "receive"),
    ("lend", "borrow"),
    ("import", "export"),
    ("increase", "decrease"),
    ("increase", "reduce"),
    ("gain", "lose"),
    ("win", "lose"),
    ("gained", "lost"),
    ("won", "lost"),
    ("open", "close"),
    ("start", "stop"),
    ("start", "end"),
    ("arrive", "depart"),
    ("input", "output"),
    ("left", "right"),
    ("husband", "wife"),
    ("men", "women"),
    ("man", "woman"),
    ("boy", "girl"),
    ("male", "female"),
    ("father", "mother"),
    ("son", "daughter"),
    ("brother", "sister"),
    ("advantage", "disadvantage"),
    ("pro", "con"),
    ("hot", "cold"),
    ("north", "south"),
    ("east", "west"),
    ("morning", "evening"),
    ("day", "night"),
    ("breakfast", "dinner"),
    ("legal", "illegal"),
    ("add", "remove"),
    ("push", "pull"),
    ("weight", "height"),
];

/// Words that may stand for each other in questions, beyond `WordNet`.
const SYNONYMS: &[&str] = &[
    "cheap cheapest inexpensive affordable",
    "happy joyful glad",
    "fix repair solve resolve",
    "buy purchase get",
    "improve enhance better increase",
    "phone smartphone mobile cellphone",
    "car automobile vehicle",
    "quick quickly fast rapidly",
    "start begin commence",
    "job career employment work",
    "doctor physician",
    "movie film",
    "photo picture image photograph",
    "delete remove erase",
    "reason cause why",
    "reduce decrease lower",
    "earn make",
    "sick ill",
    "learn study",
    "kid child",
    "mom mother mum",
    "dad father",
    "usa us america american",
    "uk britain british",
    "laptop notebook",
    "app application",
    "symptom sign",
    "important vital crucial essential significant",
    "big large huge",
    "small little tiny",
    "hard difficult tough",
    "easy simple",
    "smart intelligent clever",
    "wrong incorrect",
    "right correct",
    "scared afraid frightened",
    "pretty beautiful attractive",
    "effect impact consequence result",
    "advantage benefit pro",
    "disadvantage drawback con",
    "weird strange odd",
    "rich wealthy",
    "famous popular",
    "safe secure",
    "dangerous unsafe risky hazardous",
    "medicine medication drug",
    "stop quit",
    "exercise workout",
    "treat cure remedy treatment",
    "create make build",
    "password passcode",
    "cost price fee charge",
    "transaction payment",
    "occur happen",
];

/// How two different words relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// One may stand for the other.
    Synonym,
    Opposite,
    Unrelated,
}

struct Lexicon {
    groups: HashMap<u64, SmallVec<[u32; 2]>, FixedState>,
    opposites: HashSet<(u64, u64), FixedState>,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
    let mut lexicon = Lexicon {
        groups: HashMap::with_hasher(FixedState::default()),
        opposites: HashSet::with_hasher(FixedState::default()),
    };
    let mut oppose = |one: &str, two: &str| {
        let (one, two) = (stem(one), stem(two));
        lexicon.opposites.insert((one.min(two), one.max(two)));
    };
    for (one, two) in OPPOSITES {
        oppose(one, two);
    }
    let lines = include_str!("lexicon.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    for (group, line) in (0_u32..).zip(SYNONYMS.iter().copied().chain(lines)) {
        if let Some((one, two)) = line.split_once(" ! ") {
            oppose(one, two);
            continue;
        }
        for word in line.split_whitespace() {
            lexicon.groups.entry(stem(word)).or_default().push(group);
        }
    }
    lexicon
});

/// How the words of two stems relate.
pub(super) fn relation(one: u64, two: u64) -> Relation {
    if one == two {
        return Relation::Synonym;
    }
    let lexicon = &*LEXICON;
    if lexicon.opposites.contains(&(one.min(two), one.max(two))) {
        return Relation::Opposite;
    }
    match (lexicon.groups.get(&one), lexicon.groups.get(&two)) {
        (Some(one), Some(two)) if one.iter().any(|group| two.contains(group)) => Relation::Synonym,
        _ => Relation::Unrelated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_relate() {
        let related = |one, two| relation(stem(one), stem(two));
        assert_eq!(related("buying", "purchase"), Relation::Synonym);
        assert_eq!(related("increase", "decreased"), Relation::Opposite);
        assert_eq!(related("happy", "unhappy"), Relation::Opposite);
        assert_eq!(related("table", "galaxy"), Relation::Unrelated);
    }
}
