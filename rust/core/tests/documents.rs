//! Remembered fingerprints are those that hashing gives.

use llmcache_core::documents::Documents;
use llmcache_core::fingerprint::of_document;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_fingerprint_does_not_depend_on_what_is_remembered(
        documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 1..20),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
    ) {
        let mut remembered = Documents::default();
        for index in order {
            let document = index.get(&documents);
            prop_assert_eq!(remembered.fingerprint(document), of_document(document));
        }
    }
}

#[test]
fn more_documents_than_places_do_not_mix() {
    let mut remembered = Documents::default();
    for _ in 0..3 {
        for number in 0..5000_u32 {
            let document = number.to_le_bytes().repeat(20);
            assert_eq!(remembered.fingerprint(&document), of_document(&document));
        }
    }
}

#[test]
fn what_is_kept_is_not_shown() {
    let mut remembered = Documents::default();
    for _ in 0..3 {
        remembered.fingerprint(b"a secret");
    }
    assert!(!format!("{remembered:?}").contains("secret"));
}
