//! Which words may stand for each other, and which are opposites.
//!
//! What belongs here: the open classes of English, from `WordNet` (Miller 1995; `lexicon.txt`, made by
//! `benches/semantic/lexicon.py`) and a few of our own. What does not: closed classes (`words`).

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::stem::stem;
use super::tokens::Token;

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
    // What is said, and its short form.
    "technology tech",
    "examination exam",
    "mathematics math maths",
    "information info",
    "advertisement ad advert",
    "university uni",
    "refrigerator fridge",
    "television tv",
    "preparation prep",
    "gymnasium gym",
    "bicycle bike",
    "motorcycle motorbike",
    "influenza flu",
    "gynecologist gynaecologist gyn",
];

/// How two different words relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// One may stand for the other.
    Synonym,
    Opposite,
    Unrelated,
}

/// What is known of a word's stem.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Words of one group may stand for each other.
    groups: SmallVec<[u32; 2]>,
    opposites: SmallVec<[u64; 2]>,
}

static LEXICON: LazyLock<HashMap<u64, Known, FixedState>> = LazyLock::new(|| {
    let mut lexicon: HashMap<u64, Known, _> = HashMap::with_hasher(FixedState::default());
    let lines = include_str!("lexicon.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let (opposites, groups): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains(" ! "));
    let opposites = opposites.iter().filter_map(|line| line.split_once(" ! "));
    for (one, two) in OPPOSITES.iter().copied().chain(opposites) {
        let (one, two) = (stem(one), stem(two));
        lexicon.entry(one).or_default().opposites.push(two);
        lexicon.entry(two).or_default().opposites.push(one);
    }
    for (group, line) in (0_u32..).zip(SYNONYMS.iter().copied().chain(groups)) {
        for word in line.split_whitespace() {
            lexicon.entry(stem(word)).or_default().groups.push(group);
        }
    }
    lexicon
});

/// What is known of a stem: looked up once for each word, not for each pair of words.
pub(super) fn known(stem: u64) -> Option<&'static Known> {
    LEXICON.get(&stem)
}

/// How two words of different stems relate.
pub(super) fn relation(one: &Token, two: &Token) -> Relation {
    let (Some(left), Some(right)) = (one.known, two.known) else {
        return Relation::Unrelated;
    };
    if left.opposites.contains(&two.stem) {
        Relation::Opposite
    } else if left.groups.iter().any(|group| right.groups.contains(group)) {
        Relation::Synonym
    } else {
        Relation::Unrelated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tokens::tokens;

    #[test]
    fn words_relate() {
        let related = |one, two| {
            let of = |word| tokens(word).0.remove(0);
            relation(&of(one), &of(two))
        };
        assert_eq!(related("buying", "purchase"), Relation::Synonym);
        assert_eq!(related("increase", "decreased"), Relation::Opposite);
        assert_eq!(related("happy", "unhappy"), Relation::Opposite);
        assert_eq!(related("table", "galaxy"), Relation::Unrelated);
    }
}
