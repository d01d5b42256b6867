//! What one question has that another has not, word by word.

use smallvec::SmallVec;

use super::lexicon::{Relation, relation};
use super::question::Question;
use super::tokens::Token;
use super::words::Class;

/// Content words of two questions, told apart.
#[derive(Debug, Default)]
pub(super) struct Difference<'a> {
    /// Words of one that nothing in the other stands for.
    pub only: [SmallVec<[&'a Token; 8]>; 2],
    /// Pairs of places, in the order of the first question: the same word, or one that may stand for it.
    pub shared: SmallVec<[(usize, usize); 16]>,
    /// How many of `shared` are other words.
    pub synonyms: usize,
    pub opposites: usize,
    /// Content words of `only` that are no number, date or unit.
    pub changed: [usize; 2],
}

/// From so many changed words on, in both together or in one, a question is told anew, and what it leaves out of the
/// other, or adds, is no edit of it. Of medical questions that doctors told anew, with other numbers and a cosine above
/// 0.8, nine in ten mean the same from six changed words on; of those with one to three, hardly any.
const RETOLD: usize = 6;
const RETOLD_BY_ONE: usize = 4;
/// Up to so many changed words the two follow each other word by word.
const NEAR: usize = 3;

impl Difference<'_> {
    /// Whether one is told in words of its own, not edited from the other.
    pub(super) fn is_retold(&self) -> bool {
        let [left, right] = self.changed;
        left + right >= RETOLD || left.max(right) >= RETOLD_BY_ONE
    }

    /// Whether the two are so much alike that the order of their words means something.
    pub(super) fn is_near(&self) -> bool {
        self.changed.iter().sum::<usize>() <= NEAR
    }
}

/// Content words; and words that are compared because their opposites exist: before, all.
fn compared(token: &Token) -> bool {
    token.is_content() || token.class.intersects(Class::ROLE | Class::QUANTIFIER)
}

/// Compares all words of two questions. At most `MAX_TOKENS` squared steps, far fewer as a rule.
pub(super) fn difference<'a>(one: &'a Question, two: &'a Question) -> Difference<'a> {
    let mut found = Difference::default();
    let places = |question: &'a Question| -> SmallVec<[(usize, &'a Token); 32]> {
        question
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| compared(token))
            .collect()
    };
    let (mut left, mut right) = (places(one), places(two));
    pair(&mut left, &mut right, &mut found.shared, |one, two| {
        one.stem == two.stem
    });
    found.opposites = left
        .iter()
        .filter(|(_, one)| {
            right
                .iter()
                .any(|(_, two)| relation(one.stem, two.stem) == Relation::Opposite)
        })
        .count();
    let same = found.shared.len();
    pair(&mut left, &mut right, &mut found.shared, |one, two| {
        // Names have no synonyms, and numbers no spelling mistakes.
        let plain = !(one.named || two.named || one.number || two.number);
        plain && relation(one.stem, two.stem) == Relation::Synonym
    });
    pair(&mut left, &mut right, &mut found.shared, slip);
    found.synonyms = found.shared.len() - same;
    found.shared.sort_unstable();
    let [only_one, only_two] = &mut found.only;
    for (rest, only, other) in [(left, only_one, two), (right, only_two, one)] {
        let rest = rest
            .into_iter()
            .map(|(_, token)| token)
            .filter(|token| token.is_content());
        only.extend(rest.filter(|token| {
            !other
                .tokens
                .iter()
                .any(|word| !word.is_content() && slip(token, word))
        }));
    }
    joined(&mut found.only, [one, two]);
    found.changed = [0, 1].map(|side| {
        let changed = found.only[side].iter().filter(|token| !token.is_measure());
        changed.count()
    });
    found
}

/// Drops words that the other writes as two, and their parts: "notebook" and "note book".
fn joined<'a>(only: &mut [SmallVec<[&'a Token; 8]>; 2], questions: [&'a Question; 2]) {
    for side in [0, 1] {
        let words = std::mem::take(&mut only[side]);
        for word in words {
            let parts = questions[1 - side].tokens.windows(2).find(|pair| {
                word.text
                    .strip_prefix(&*pair[0].text)
                    .is_some_and(|rest| rest == &*pair[1].text)
            });
            match parts {
                Some(parts) if word.text.len() > 4 => {
                    only[1 - side]
                        .retain(|token| !parts.iter().any(|part| std::ptr::eq(part, *token)));
                }
                _ => only[side].push(word),
            }
        }
    }
}

type Places<'a> = SmallVec<[(usize, &'a Token); 32]>;

/// Moves pairs that match out of both lists, each word once.
fn pair<'a>(
    left: &mut Places<'a>,
    right: &mut Places<'a>,
    shared: &mut SmallVec<[(usize, usize); 16]>,
    matches: impl Fn(&Token, &Token) -> bool,
) {
    left.retain(|(at, one)| {
        let found = right.iter().position(|(_, two)| matches(one, two));
        if let Some(found) = found {
            shared.push((*at, right.remove(found).0));
        }
        found.is_none()
    });
}

/// Whether two words differ by one slip of a finger: a letter too many, too few, another, or two changed about
/// (Damerau 1964). Short words have too many neighbours to tell, and a wrong first letter is another word.
pub(super) fn slip(one: &Token, two: &Token) -> bool {
    let (a, b) = (one.text.as_bytes(), two.text.as_bytes());
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.len() < 4
        || long.len() - short.len() > 1
        || short[0] != long[0]
        || one.number
        || two.number
    {
        return false;
    }
    if one.named && two.named && short.len() < 6 {
        return false;
    }
    if short[0] != long[0]
        && !(short.len() == long.len() && short[0] == long[1] && short[1] == long[0])
    {
        return false;
    }
    let start = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let end = short[start..]
        .iter()
        .rev()
        .zip(long[start..].iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let (short, long) = (
        &short[start..short.len() - end],
        &long[start..long.len() - end],
    );
    match (short, long) {
        ([], [_] | []) => true,
        ([a, b], [c, d]) => a == d && b == c,
        // Another letter makes another word too often.
        ([_], [_]) => one.text.len() > 6,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(one: &str, two: &str) -> (Vec<String>, Vec<String>, usize) {
        let (one, two) = (Question::new(one), Question::new(two));
        let found = difference(&one, &two);
        let words = |side: usize| {
            found.only[side]
                .iter()
                .map(|token| token.text.to_string())
                .collect()
        };
        (words(0), words(1), found.opposites)
    }

    #[test]
    fn words_that_stand_for_each_other_are_no_difference() {
        assert_eq!(
            only("How do I buy a car?", "How can I purchase an automobile?"),
            (vec![], vec![], 0)
        );
        assert_eq!(
            only("the colors of birds", "the colours of a bird"),
            (vec![], vec![], 0)
        );
        assert_eq!(
            only("How do I instal Python?", "How do I install Python?"),
            (vec![], vec![], 0)
        );
    }

    #[test]
    fn other_words_are() {
        let (left, right, opposites) = only("Where is the museum?", "Where is the station?");
        assert_eq!(
            (left, right, opposites),
            (vec!["museum".to_owned()], vec!["station".to_owned()], 0)
        );
        assert_eq!(only("Do prices increase?", "Do prices decrease?").2, 1);
        assert_eq!(only("open before noon", "open after noon").2, 1);
    }
}
