//! The guards and the verifier, from outside: what they see in pairs of questions, and that any text will do.

use llmcache_core::guard::{
    COLD_START_SCORE, COSINE_FLOOR, Judgement, MAX_BYTES, MAX_TOKENS, Question, VETOES, Veto, judge,
};
use proptest::prelude::*;

fn of(one: &str, two: &str, cosine: f32) -> Judgement {
    judge(&Question::new(one), &Question::new(two), cosine)
}

fn vetoes(one: &str, two: &str) -> Vec<Veto> {
    of(one, two, 0.95).vetoes().collect()
}

#[test]
fn each_guard_sees_its_difference() {
    for (veto, one, two) in SEEN {
        let found = vetoes(one, two);
        assert!(found.contains(veto), "{veto:?}: {one} / {two}: {found:?}");
    }
}

const SEEN: &[(Veto, &str, &str)] = &[
    (
        Veto::Numbers,
        "How do I boil 3 eggs at once?",
        "How do I boil 4 eggs at once?",
    ),
    (
        Veto::Numbers,
        "Is a fine of ninety euros high?",
        "Is a fine of sixty euros high?",
    ),
    (
        Veto::Units,
        "Is a 12 inch pan large?",
        "Is a 12 cm pan large?",
    ),
    (
        Veto::Dates,
        "Is the library open on Monday?",
        "Is the library open on Friday?",
    ),
    (
        Veto::Dates,
        "Who led the club in March 2011?",
        "Who led the club in July 2011?",
    ),
    (
        Veto::Negation,
        "Why should I water a cactus?",
        "Why should I not water a cactus?",
    ),
    (
        Veto::Opposites,
        "How do I raise the volume?",
        "How do I lower the volume?",
    ),
    (
        Veto::Opposites,
        "Why is the lamp not turning on?",
        "Why is the lamp not turning off?",
    ),
    (
        Veto::Opposites,
        "How do I log in to the forum?",
        "How do I log out of the forum?",
    ),
    (
        Veto::Numbers,
        "Who fought in World War I?",
        "Who fought in World War II?",
    ),
    (
        Veto::Names,
        "Where did Marta Solberg study?",
        "Where did Paulo Ferreira study?",
    ),
    (
        Veto::Quotes,
        "Who sang \"Blue Meadow\" first?",
        "Who sang \"Red Meadow\" first?",
    ),
    (
        Veto::Code,
        "What does np.dot() return?",
        "What does np.outer() return?",
    ),
    (
        Veto::Order,
        "How do I get from Graz to Linz?",
        "How do I get from Linz to Graz?",
    ),
    (
        Veto::Order,
        "Can wolves hunt bears?",
        "Can bears hunt wolves?",
    ),
    (
        Veto::Order,
        "Was Henry VIII older than Henry VII?",
        "Was Henry VII older than Henry VIII?",
    ),
    (
        Veto::Order,
        "Is Apollo 12 heavier than Apollo 13?",
        "Is Apollo 13 heavier than Apollo 12?",
    ),
    (
        Veto::Question,
        "When was the bridge built?",
        "Where was the bridge built?",
    ),
    (
        Veto::Quantifier,
        "Do all planets have moons?",
        "Do only planets have moons?",
    ),
    (
        Veto::Conjunction,
        "Is it warm and dry there?",
        "Is it warm or dry there?",
    ),
    (Veto::Pronouns, "What does he sell?", "What does she sell?"),
    (
        Veto::Tense,
        "Is Rita a baker?",
        "Did Rita use to be a baker?",
    ),
    (Veto::Tense, "Is Rita a baker?", "Was Rita a baker?"),
    (Veto::Tense, "Is Rita a baker?", "Is Rita becoming a baker?"),
    (
        Veto::Conjunction,
        "Is Rita a baker?",
        "Is Rita a baker or a cook?",
    ),
    (
        Veto::Characters,
        "What does \u{3b1} stand for?",
        "What does \u{3b2} stand for?",
    ),
    (
        Veto::Language,
        "Wo ist der Bahnhof und die Post?",
        "Where is the station and the post office?",
    ),
    (
        Veto::Words,
        "How do I paint a fence?",
        "How do I paint a ceiling?",
    ),
];

#[test]
fn rewordings_pass() {
    let cases = [
        (
            "How do I paint a wooden fence?",
            "What is the best way to paint a fence made of wood?",
        ),
        ("How can I fix a flat tyre?", "How do I repair a flat tyre?"),
        (
            "What's the tallest tower in Spain?",
            "Which is the tallest tower in Spain?",
        ),
        (
            "Could you tell me how long eggs keep?",
            "How long do eggs keep?",
        ),
        ("how do i peel a mango", "How do I peel a mango?"),
        (
            "Is it 3 km to the lake?",
            "Is it three kilometres to the lake?",
        ),
        ("Can Ann beat Bob?", "Can Bob be beaten by Ann?"),
        ("Was Ann invited by Bob?", "Did Bob invite Ann?"),
        (
            "What do the initials of the International Space Station mean for ISS crews?",
            "What do the initials of ISS mean for crews?",
        ),
        (
            "How long was World War II?",
            "How long did World War 2 last?",
        ),
        (
            "Which tent is good under Rs.500?",
            "Which tent is good under Rs 500?",
        ),
        (
            "What are the differences between figs and dates?",
            "What are the main differences between figs and dates?",
        ),
        (
            "What are the types of bread?",
            "What are the different types of bread?",
        ),
        ("#How do bees find flowers?", "How do bees find flowers?"),
        (
            "How do I calm down..like before exams?",
            "How do I calm down before exams?",
        ),
        (
            "What is meant by gravity?",
            "What is the meaning of gravity?",
        ),
        (
            "Which is the best choir in Lyon for Bach?",
            "What is the best choir for Bach in Lyon?",
        ),
        (
            "Who is faster, Ann or Bob?",
            "Who is faster between Ann and Bob?",
        ),
        (
            "Who will win: Ann or Bob?",
            "Do you think Ann or Bob will win?",
        ),
        (
            "How do I know whether figs are ripe?",
            "How do I know if figs are ripe or not?",
        ),
        (
            "Which tech fairs are worth it?",
            "Which technology fairs are worth it?",
        ),
        ("What can I do right now?", "What can I do now?"),
    ];
    for (one, two) in cases {
        assert_eq!(vetoes(one, two), [], "{one} / {two}");
    }
}

/// What makes no difference in one place does in another.
#[test]
fn words_that_say_nothing_there_count_elsewhere() {
    for (one, two) in [
        ("Do all birds fly?", "Do only birds fly?"),
        (
            "What is the main street of Linz?",
            "What is the side street of Linz?",
        ),
        ("Is C# fast?", "Is C fast?"),
        ("How do I style #header?", "How do I style header?"),
        ("Why does ../a.py fail?", "Why does ../../a.py fail?"),
        (
            "Will I lose all of my photos?",
            "Will I lose any of my photos?",
        ),
        (
            "Are more people in Chile than in Peru?",
            "Are more people in Peru than in Chile?",
        ),
        (
            "Can I take figs and dates between meals?",
            "Can I take figs or dates between meals?",
        ),
        (
            "Do adults have different symptoms?",
            "Do adults have symptoms?",
        ),
        ("Did Ann or Bob marry?", "Who did Ann or Bob marry?"),
        (
            "How do I turn on Bluetooth on my phone?",
            "How do I turn off Bluetooth on my phone?",
        ),
        (
            "How do I move data to my phone?",
            "How do I move data from my phone?",
        ),
        (
            "Do renters owe landlords in New York?",
            "Do landlords owe renters in New York?",
        ),
        ("Does the right arm hurt?", "Does the left arm hurt?"),
        (
            "How do I find flights to Lyon for Nice?",
            "How do I find flights to Nice for Lyon?",
        ),
        (
            "Did they reach Lyon or Nice first?",
            "When did they reach Lyon or Nice first?",
        ),
        ("Is vitamin B6 healthy?", "Is vitamin B12 healthy?"),
    ] {
        assert_ne!(vetoes(one, two), [], "{one} / {two}");
    }
}

#[test]
fn what_a_retold_question_leaves_out_is_no_edit() {
    let short = "Can an ankle that was sprained be trained again?";
    let long = "I slipped on a path 3 weeks ago while hiking and did not see anybody about it. The swelling went down \
                since. Can a sprained ankle be trained again?";
    assert_eq!(vetoes(short, long), []);
    // In a question that is edited, not retold, it is one.
    assert!(
        vetoes(
            "Can an ankle be trained?",
            "Can an ankle be trained after 3 weeks?"
        )
        .contains(&Veto::Numbers)
    );
    // A contradiction stays one, however much is told.
    let other = "I slipped on a path 5 days ago when I fell off a ladder. It still looks thick and blue. Can a sprained \
                 ankle be trained again?";
    assert!(vetoes(long, other).contains(&Veto::Numbers));
}

#[test]
fn other_languages_pass_only_when_nearly_the_same() {
    let one = "¿Cómo puedo limpiar una sartén de hierro?";
    assert_eq!(vetoes(one, "¿cómo puedo limpiar una sartén de hierro"), []);
    let reworded = "¿Cuál es la mejor manera de limpiar una sartén de hierro?";
    assert!(vetoes(one, reworded).contains(&Veto::Language));
    assert!(
        vetoes("鉄のフライパンの洗い方は？", "鉄のフライパンはどう洗う？")
            .contains(&Veto::Characters)
    );
}

#[test]
fn the_same_text_is_the_same() {
    let long = "word ".repeat(MAX_TOKENS * 2);
    for text in ["", "?", "Do 3 or 4 of \"them\" not fly?", &long] {
        assert_eq!(vetoes(text, text), []);
    }
    // Of a longer text only a part is looked at: nothing else is equal to it.
    assert!(vetoes(&long, &format!("{long}?")).contains(&Veto::Length));
}

#[test]
fn scores_are_shares_and_rise_with_the_cosine() {
    let score = |cosine| {
        of(
            "How do I store garlic?",
            "What is a good way to keep garlic?",
            cosine,
        )
        .score
    };
    let scores: Vec<f32> = [COSINE_FLOOR, 0.7, 0.8, 0.9, 1.0].map(score).to_vec();
    assert!(
        scores.iter().all(|score| (0.0..=1.0).contains(score)),
        "{scores:?}"
    );
    assert!(
        scores.windows(2).all(|pair| pair[0] <= pair[1]),
        "{scores:?}"
    );
    assert!(
        scores[4] > COLD_START_SCORE && scores[0] < COLD_START_SCORE,
        "{scores:?}"
    );
}

#[test]
fn a_cosine_that_is_no_number_accepts_nothing() {
    for cosine in [f32::NAN, f32::NEG_INFINITY] {
        let score = of(
            "How do I store garlic?",
            "What is a good way to keep garlic?",
            cosine,
        )
        .score;
        assert!(
            score.is_nan() || score < COLD_START_SCORE,
            "{cosine}: {score}"
        );
    }
}

#[test]
fn guards_are_numbered_as_they_are_listed() {
    for (at, (veto, _)) in VETOES.iter().enumerate() {
        assert_eq!(*veto as usize, at);
    }
}

proptest! {
    #[test]
    fn any_two_texts_are_judged_alike_both_ways(one in ".{0,120}", two in ".{0,120}", cosine in -1.0_f32..1.0) {
        check(&one, &two, cosine);
    }

    #[test]
    fn any_two_questions_are_judged_alike_both_ways(
        one in question(), two in question(), cosine in -1.0_f32..1.0
    ) {
        check(&one, &two, cosine);
    }
}

fn question() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "how", "do", "I", "not", "never", "from", "to", "and", "or", "Ann", "Bob", "Paris", "NATO",
        "3", "3rd", "four", "km", "$", "is", "was", "by", "seen", "\"a\"", "`x`", "May", "monday",
        "buy", "purchase", "up", "down", "he", "she", "all", "only", "before", "after", "U.S.",
        "e.g.", "?", ".", "can't", "'s", "-", "ISS", "\u{3b1}", "5kg",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.join(" "))
}

fn check(one: &str, two: &str, cosine: f32) {
    let (there, back) = (of(one, two, cosine), of(two, one, cosine));
    let list = |judgement: &Judgement| judgement.vetoes().collect::<Vec<_>>();
    assert_eq!(list(&there), list(&back), "{one:?} / {two:?}");
    assert_eq!(
        there.features.map(f32::to_bits),
        back.features.map(f32::to_bits),
        "{one:?} / {two:?}"
    );
    assert!((there.score - back.score).abs() < f32::EPSILON);
    assert!((0.0..=1.0).contains(&there.score));
    assert_eq!(list(&of(one, one, 1.0)), []);
}

fn other_words() -> String {
    let words: Vec<String> = (0..4000).map(|n| format!("w{n}")).collect();
    words.join(" ")
}

/// What costs most to compare: many words, none of them shared, or all of them the same.
#[test]
fn long_texts_cost_no_more_than_the_part_that_is_looked_at() {
    let texts: Vec<String> = vec![
        other_words(),
        "a ".repeat(4000),
        "\"".repeat(8000),
        "`a".repeat(4000),
        "one hundred ".repeat(700),
        "from a to b ".repeat(700),
        "x".repeat(8000),
        "-".repeat(8000),
        "\u{3b1}".repeat(4000),
    ];
    for one in &texts {
        assert!(
            Question::new(one).is_cut()
                || one.len() <= MAX_BYTES
                || one.split_whitespace().count() < MAX_TOKENS
        );
        for two in &texts {
            check(one, two, 0.9);
        }
    }
}
