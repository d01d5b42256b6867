//! The rules of the profiles: what the quick test for "no rule" may not get wrong. Their content is compared
//! with the published data by `tests/unit/test_profiles.py`.

use llmcache_core::profile::{Constant, PROFILES, Profile, Rule};
use proptest::prelude::*;

#[test]
fn profiles_are_found_by_name_and_no_other() {
    let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
    assert_eq!(
        names,
        [
            "generic",
            "openai.chat",
            "openai.responses",
            "anthropic.messages"
        ]
    );
    for name in names {
        assert_eq!(Profile::named(name).unwrap().name, name);
    }
    assert!(Profile::named("openai").is_none());
    assert!(Profile::named("").is_none());
}

#[test]
fn every_listed_field_has_its_rule() {
    for profile in PROFILES {
        for &(field, rule) in profile.fields {
            assert_eq!(
                profile.rule(field.as_bytes()),
                Some(rule),
                "{} {field}",
                profile.name
            );
            let twice = profile
                .fields
                .iter()
                .filter(|(name, _)| *name == field)
                .count();
            assert_eq!(twice, 1, "{} {field}", profile.name);
        }
    }
}

#[test]
fn transport_fields_are_dropped_by_every_profile_and_content_by_none() {
    for profile in PROFILES {
        for field in [
            "stream",
            "stream_options",
            "timeout",
            "extra_headers",
            "max_retries",
        ] {
            assert_eq!(
                profile.rule(field.as_bytes()),
                Some(Rule::Drop("transport"))
            );
        }
        for field in [
            "model",
            "messages",
            "input",
            "tools",
            "system",
            "user",
            "response_format",
            "",
        ] {
            assert_eq!(
                profile.rule(field.as_bytes()),
                None,
                "{} {field}",
                profile.name
            );
        }
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let rule = |profile: &str, field: &str| Profile::named(profile).unwrap().rule(field.as_bytes());
    assert_eq!(
        rule("openai.chat", "temperature"),
        Some(Rule::DefaultOrNull(Constant::Number(1.0)))
    );
    assert_eq!(
        rule("anthropic.messages", "temperature"),
        Some(Rule::Default(Constant::Number(1.0)))
    );
    assert_eq!(
        rule("openai.responses", "store"),
        Some(Rule::DefaultOrNull(Constant::Bool(true)))
    );
    assert_eq!(rule("openai.chat", "seed"), Some(Rule::Nullable));
    assert_eq!(rule("generic", "temperature"), None);
}

proptest! {
    #[test]
    fn what_is_not_listed_has_no_rule(field in "[a-z_]{0,24}") {
        for profile in PROFILES {
            let listed = profile.fields.iter().find(|(name, _)| *name == field).map(|&(_, rule)| rule);
            prop_assert_eq!(profile.rule(field.as_bytes()), listed);
        }
    }

    #[test]
    fn any_bytes_are_a_field(field in prop::collection::vec(any::<u8>(), 0..300)) {
        for profile in PROFILES {
            let listed = profile.fields.iter().any(|(name, _)| name.as_bytes() == field);
            prop_assert_eq!(profile.rule(&field).is_some(), listed);
        }
    }
}
