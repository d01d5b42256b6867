//! What single words are: function words, negations, units, months, and the like.
//!
//! What belongs here: closed classes of English, each word once. What does not: open ones (`lexicon`).

use std::collections::HashMap;
use std::ops::BitOr;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

/// A set of classes a word is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class(u32);

impl Class {
    pub(super) const NONE: Self = Self(0);
    /// Says nothing about what is asked: articles, auxiliaries, politeness, the frames of questions.
    pub(super) const FUNCTION: Self = Self(1);
    pub(super) const NEGATION: Self = Self(1 << 1);
    /// He, him, his.
    pub(super) const HE: Self = Self(1 << 2);
    pub(super) const SHE: Self = Self(1 << 3);
    pub(super) const AND: Self = Self(1 << 4);
    pub(super) const OR: Self = Self(1 << 5);
    pub(super) const BE: Self = Self(1 << 6);
    pub(super) const BY: Self = Self(1 << 7);
    /// Prepositions whose object has a role of its own.
    pub(super) const ROLE: Self = Self(1 << 8);
    /// Its two arguments may change places: related to, married to, between.
    pub(super) const SYMMETRIC: Self = Self(1 << 9);
    /// A day or a time that moves with the one who asks.
    pub(super) const RELATIVE: Self = Self(1 << 10);
    pub(super) const MONTH: Self = Self(1 << 11);
    pub(super) const WEEKDAY: Self = Self(1 << 12);
    pub(super) const UNIT: Self = Self(1 << 13);
    pub(super) const NUMBER: Self = Self(1 << 14);
    /// How many, which share, how exclusive.
    pub(super) const QUANTIFIER: Self = Self(1 << 15);
    pub(super) const ORDINAL: Self = Self(1 << 16);
    /// Will, shall, going.
    pub(super) const FUTURE: Self = Self(1 << 17);
    /// Did, was, were, had.
    pub(super) const PAST: Self = Self(1 << 18);
    pub(super) const BECOMING: Self = Self(1 << 20);
    /// Who, when, where, why, how, which, what.
    pub(super) const QUESTION: Self = Self(1 << 19);

    /// Words that say nothing of what is asked, and yet have opposites.
    pub(super) const COMPARED: Self = Self(Self::ROLE.0 | Self::QUANTIFIER.0);
    /// Numbers, dates and units, which guards of their own compare.
    pub(super) const MEASURE: Self = Self(
        Self::NUMBER.0
            | Self::ORDINAL.0
            | Self::UNIT.0
            | Self::MONTH.0
            | Self::WEEKDAY.0
            | Self::RELATIVE.0,
    );

    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Class {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A word's classes, and within them its value: of a number, or which unit, month or quantifier it names.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    class: Class,
    value: u32,
}

pub(super) fn class_of(word: &str) -> Class {
    KNOWN.get(word).map_or(Class::NONE, |known| known.class)
}

pub(super) fn value_of(word: &str) -> u32 {
    KNOWN.get(word).map_or(0, |known| known.value)
}

/// The words of a contraction that stands for others.
pub(super) fn contraction(word: &str) -> Option<&'static [&'static str]> {
    Some(match word {
        "can't" | "cannot" | "cant" => &["can", "not"],
        "won't" | "wont" => &["will", "not"],
        "shan't" => &["shall", "not"],
        "don't" | "dont" => &["do", "not"],
        "doesn't" | "doesnt" => &["does", "not"],
        "didn't" | "didnt" => &["did", "not"],
        "isn't" | "isnt" | "ain't" => &["is", "not"],
        "i'm" | "im" => &["i", "am"],
        "i've" | "ive" => &["i", "have"],
        "i'll" => &["i", "will"],
        "i'd" => &["i", "would"],
        "you're" => &["you", "are"],
        "you've" => &["you", "have"],
        "you'll" => &["you", "will"],
        "they're" => &["they", "are"],
        "we're" => &["we", "are"],
        "we've" => &["we", "have"],
        "he's" => &["he", "is"],
        "she's" => &["she", "is"],
        "it's" => &["it", "is"],
        "that's" | "thats" => &["that", "is"],
        "there's" => &["there", "is"],
        "what's" | "whats" => &["what", "is"],
        "who's" => &["who", "is"],
        "where's" => &["where", "is"],
        "when's" => &["when", "is"],
        "how's" => &["how", "is"],
        "why's" => &["why", "is"],
        "let's" => &["let", "us"],
        "gonna" => &["going", "to"],
        "wanna" => &["want", "to"],
        "gotta" => &["got", "to"],
        _ => return None,
    })
}

/// Quantifiers whose presence alone says little: many, most, sometimes, often, once, about, other.
pub(super) const WEAK: &[u32] = &[3, 4, 10, 11, 13, 15, 16];

type Table = &'static [(Class, &'static str)];

const F: Class = Class::FUNCTION;

/// Words without a value of their own within their class.
const PLAIN: Table = &[
    (
        F,
        "a an the this that these those it its itself i me my mine myself you your yours yourself we us our ours \
         they them their theirs one ones someone somebody anyone anybody everyone everybody something anything \
         there here such so as than then thus also too very quite rather really actually basically simply just \
         even still yet already exactly possibly maybe perhaps truly indeed fact case please kindly thanks thank \
         hello hi hey dear ok okay well now is's s t re ve ll d m etc eg ie",
    ),
    (
        F,
        "of to in on at for with about into onto upon off out up down through during via per within along across \
         around among toward towards like if whether while because since until till though although but",
    ),
    (
        F,
        "do does can could would should may might must shall have has having get gets got getting let lets want \
         wants wanted wish need needs needed know tell explain describe say give show help find see think mean \
         means meaning wonder wondering ask asking question questions answer answers possible able any some way \
         ways best good better method methods thing things kind kinds sort sorts type types use used using go \
         going make makes making take come try trying work works look looking recommended suggest",
    ),
    (
        F,
        "ever obviously certainly definitely literally apparently clearly honestly somehow currently presently nowadays now \
         anyhow anyway",
    ),
    (F, "become becomes"),
];

/// Words of classes that guards compare.
const CLASSED: &[(Class, bool, &str)] = &[
    // class, also a function word, words
    (
        Class::NEGATION,
        true,
        "not no never without neither nor none nobody nothing nowhere hardly barely cannot",
    ),
    (Class::HE, true, "he him his himself"),
    (Class::SHE, true, "she her hers herself"),
    (Class::AND, true, "and both together &"),
    (Class::OR, true, "or either"),
    (Class::BE, true, "be am is are being been"),
    (Class::BY, true, "by"),
    (
        Class::SYMMETRIC,
        false,
        "connected married related similar same equal identical engaged opposite adjacent friends friend siblings \
         cousin cousins dating between different difference compare compared comparison versus vs meet met close near next acquaintance acquaintances partner partners colleague colleagues \
         neighbor neighbors neighbour neighbours relative relatives twin twins",
    ),
    (Class::FUTURE, true, "will"),
    (Class::PAST, true, "did was were had"),
    (Class::BECOMING, true, "becoming"),
    (
        Class::QUESTION,
        true,
        "who whom whose when where why how which what whatever",
    ),
];

/// Words whose value within their class is that of their place in the list: `|` separates, a space joins synonyms.
const VALUED: &[(Class, bool, &str)] = &[
    (
        Class::MONTH,
        false,
        "january jan|february feb|march|april apr|may.|june jun|july jul|august aug|september sep sept|october oct|\
         november nov|december dec",
    ),
    (
        Class::WEEKDAY,
        false,
        "monday mon|tuesday tue tues|wednesday wed|thursday thu thurs|friday fri|saturday sat|sunday",
    ),
    (
        Class::RELATIVE,
        false,
        "today|yesterday|tomorrow|tonight|ago|formerly previously",
    ),
    (
        Class::QUANTIFIER,
        true,
        "all every each entire whole|few|many much lots several|most mostly majority|only solely exclusively|half|least minimum|maximum|\
         always|sometimes occasionally|often usually frequently|rarely seldom|once|twice double|approximately|other another else",
    ),
    (
        Class::ROLE,
        true,
        "from|before|after|over above|under below beneath|against|behind|ahead|outside|inside|despite",
    ),
    (
        Class::UNIT,
        false,
        "km kilometer kilometers kilometre kilometres kms|mile miles mi|meter meters metre metres|cm centimeter centimeters centimetre \
         centimetres|mm millimeter millimeters|foot feet ft|inch inches|yard yards yd|kg kgs kilo kilos kilogram kilograms|g gram grams gm|\
         lb lbs pound pounds|ounce ounces oz|ton tons tonne tonnes|liter liters litre litres|gallon gallons|ml milliliter milliliters|\
         hour hours hr hrs|minute minutes min mins|sec secs seconds|day days|week weeks|month months|year years yr yrs|decade decades|\
         century centuries|percent percentage % pct|celsius centigrade|fahrenheit|kelvin|dollar dollars usd $ bucks|euro euros eur €|gbp £|\
         rupee rupees rs inr ₹|yen jpy ¥|yuan rmb|cent cents|gb gigabyte gigabytes|mb megabyte megabytes|kb kilobyte kilobytes|tb terabyte \
         terabytes|mph|kph kmh|watt watts|volt volts|calorie calories kcal|lakh lakhs|crore crores|am a.m|pm p.m|degree degrees|acre acres|\
         hectare hectares|bitcoin btc|ms millisecond milliseconds",
    ),
];

/// Words for numbers; from 1,000,000 on in thousands would not fit, so the value is an exponent there (`numbers`).
const NUMBERS: &[(&str, u32)] = &[
    ("zero", 0),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
    ("nine", 9),
    ("ten", 10),
    ("eleven", 11),
    ("twelve", 12),
    ("dozen", 12),
    ("thirteen", 13),
    ("fourteen", 14),
    ("fifteen", 15),
    ("sixteen", 16),
    ("seventeen", 17),
    ("eighteen", 18),
    ("nineteen", 19),
    ("twenty", 20),
    ("thirty", 30),
    ("forty", 40),
    ("fifty", 50),
    ("sixty", 60),
    ("seventy", 70),
    ("eighty", 80),
    ("ninety", 90),
    ("hundred", 100),
    ("thousand", 1000),
    ("million", 1_000_000),
    ("billion", 1_000_000_000),
];

const ORDINALS: &str =
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth";

static KNOWN: LazyLock<HashMap<&'static str, Known, FixedState>> = LazyLock::new(|| {
    let mut known: HashMap<_, Known, _> = HashMap::with_hasher(FixedState::default());
    let mut add = |word: &'static str, class: Class, value: u32| {
        let entry = known.entry(word.trim_end_matches('.')).or_default();
        entry.class = entry.class | class;
        if value != 0 {
            entry.value = value;
        }
    };
    for (class, words) in PLAIN {
        words
            .split_whitespace()
            .for_each(|word| add(word, *class, 0));
    }
    for (class, function, words) in CLASSED {
        let class = if *function { *class | F } else { *class };
        words
            .split_whitespace()
            .for_each(|word| add(word, class, 0));
    }
    for (class, function, groups) in VALUED {
        let class = if *function { *class | F } else { *class };
        for (group, value) in groups.split('|').zip(1..) {
            group
                .split_whitespace()
                .for_each(|word| add(word, class, value));
        }
    }
    for &(word, value) in NUMBERS {
        add(word, Class::NUMBER, value);
    }
    for (word, value) in ORDINALS.split('|').zip(1..) {
        add(word, Class::ORDINAL, value);
    }
    known
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_one_value() {
        let mut seen = HashMap::new();
        for (class, _, groups) in VALUED {
            for (group, value) in groups.split('|').zip(1_u32..) {
                for word in group.split_whitespace() {
                    assert_eq!(
                        seen.insert(word, (class.0, value)),
                        None,
                        "{word} is listed twice"
                    );
                }
            }
        }
        assert_eq!(value_of("kilometres"), value_of("km"));
        assert_ne!(value_of("mile"), value_of("km"));
        assert_eq!(value_of("seventy"), 70);
    }

    #[test]
    fn classes_are_told_apart() {
        assert!(class_of("never").intersects(Class::NEGATION));
        assert!(class_of("the").intersects(Class::FUNCTION));
        assert!(!class_of("engine").intersects(Class::FUNCTION));
        assert!(class_of("before").intersects(Class::ROLE));
    }
}
