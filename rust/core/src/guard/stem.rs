//! Stems: what the inflections of an English word share.
//!
//! What belongs here: taking off endings (after Porter 1980, far fewer of them: a stem that is too long costs a hit,
//! one that is too short takes two words for one). What does not: meanings (`lexicon`).

use super::tokens::hash;

/// The hash of a lower-case word's stem.
pub(super) fn stem(word: &str) -> u64 {
    if !word.is_ascii() || word.len() < 3 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return hash(word.as_bytes());
    }
    let word = irregular(word).unwrap_or(word);
    let mut buffer = [0_u8; 64];
    let bytes = word.as_bytes();
    let length = bytes.len().min(64);
    buffer[..length].copy_from_slice(&bytes[..length]);
    hash(british(stripped(&mut buffer, length)))
}

fn vowel(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

fn has_vowel(bytes: &[u8]) -> bool {
    bytes.iter().any(|&byte| vowel(byte))
}

/// Without plural, past, participle and adverb endings.
fn stripped(word: &mut [u8; 64], mut length: usize) -> &[u8] {
    let ends = |word: &[u8; 64], length: usize, end: &[u8]| word[..length].ends_with(end);
    if length == 3 {
        // Two letters and a plural: "iqs", "tvs"; but no "gas" and "yes".
        let plural = word[2] == b's' && !vowel(word[1]) && word[1] != b's';
        return &word[..length - usize::from(plural)];
    }
    if ends(word, length, b"ies") && length > 4 {
        length -= 2;
        word[length - 1] = b'y';
    } else if ends(word, length, b"sses")
        || ends(word, length, b"ches")
        || ends(word, length, b"shes")
        || ends(word, length, b"xes")
    {
        length -= 2;
    } else if ends(word, length, b"s")
        && !ends(word, length, b"ss")
        && !ends(word, length, b"us")
        && !ends(word, length, b"is")
    {
        length -= 1;
    }
    if ends(word, length, b"ied") && length > 4 {
        length -= 2;
        word[length - 1] = b'y';
    } else {
        for end in [b"ing".as_slice(), b"ed"] {
            if ends(word, length, end)
                && length > end.len() + 2
                && has_vowel(&word[..length - end.len()])
            {
                length -= end.len();
                let (last, before) = (word[length - 1], word[length - 2]);
                if last == before && !matches!(last, b'l' | b's' | b'z') {
                    length -= 1;
                }
                break;
            }
        }
    }
    if length > 3 && word[length - 1] == b'e' {
        length -= 1;
    }
    if length > 3 && word[length - 1] == b'y' && !vowel(word[length - 2]) {
        word[length - 1] = b'i';
    }
    &word[..length]
}

/// American spelling: `-our`, `-is-` and `-tre` in the middle of longer words.
fn british(word: &[u8]) -> &[u8] {
    match word {
        b"colour" => b"color",
        b"favour" => b"favor",
        b"favourit" => b"favorit",
        b"behaviour" => b"behavior",
        b"labour" => b"labor",
        b"neighbour" => b"neighbor",
        b"honour" => b"honor",
        b"humour" => b"humor",
        b"centr" => b"center",
        b"metr" => b"meter",
        b"litr" => b"liter",
        b"theatr" => b"theater",
        b"organis" => b"organiz",
        b"realis" => b"realiz",
        b"recognis" => b"recogniz",
        b"analys" => b"analyz",
        b"optimis" => b"optimiz",
        b"minimis" => b"minimiz",
        b"maximis" => b"maximiz",
        b"apologis" => b"apologiz",
        b"programm" => b"program",
        b"cancell" => b"cancel",
        b"travell" => b"travel",
        b"defenc" => b"defens",
        b"licenc" => b"licens",
        other => other,
    }
}

/// Whether a verb's form is one that no ending tells.
pub(super) fn is_irregular(word: &str) -> bool {
    irregular(word).is_some()
        || matches!(
            word,
            "hurt"
                | "hit"
                | "cut"
                | "put"
                | "read"
                | "beat"
                | "led"
                | "met"
                | "won"
                | "shot"
                | "hired"
        )
}

/// The base of common irregular forms.
pub(super) fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "children" => "child",
        "people" | "persons" => "person",
        "women" => "woman",
        "feet" => "foot",
        "teeth" => "tooth",
        "mice" => "mouse",
        "lives" => "life",
        "wives" => "wife",
        "knives" => "knife",
        "went" | "gone" | "goes" => "go",
        "made" => "make",
        "bought" => "buy",
        "sold" => "sell",
        "paid" => "pay",
        "said" => "say",
        "told" => "tell",
        "took" | "taken" => "take",
        "gave" | "given" => "give",
        "came" => "come",
        "became" => "become",
        "found" => "find",
        "felt" => "feel",
        "left" => "leave",
        "lost" => "lose",
        "kept" => "keep",
        "held" => "hold",
        "brought" => "bring",
        "thought" => "think",
        "taught" => "teach",
        "caught" => "catch",
        "fought" => "fight",
        "sent" => "send",
        "spent" => "spend",
        "built" => "build",
        "meant" => "mean",
        "slept" => "sleep",
        "knew" | "known" => "know",
        "grew" | "grown" => "grow",
        "wrote" | "written" => "write",
        "drove" | "driven" => "drive",
        "rode" | "ridden" => "ride",
        "rose" | "risen" => "rise",
        "spoke" | "spoken" => "speak",
        "broke" | "broken" => "break",
        "chose" | "chosen" => "choose",
        "stole" | "stolen" => "steal",
        "wore" | "worn" => "wear",
        "began" | "begun" => "begin",
        "drank" | "drunk" => "drink",
        "swam" | "swum" => "swim",
        "sang" | "sung" => "sing",
        "flew" | "flown" => "fly",
        "threw" | "thrown" => "throw",
        "fell" | "fallen" => "fall",
        "eaten" => "eat",
        "seen" => "see",
        "shown" => "show",
        "hidden" => "hide",
        "heard" => "hear",
        "stood" => "stand",
        "understood" => "understand",
        "learnt" => "learn",
        "burnt" => "burn",
        "dying" | "died" | "dies" => "die",
        "lying" => "lie",
        "using" | "used" => "use",
        _ => return None,
    })
}
