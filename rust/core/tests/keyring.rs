//! Keys: what they show of themselves, and what a ring refuses.

use llmcache_core::keyring::{Key, Keyring, KeyringError};

#[test]
fn a_ring_has_keys_and_each_once() {
    let keys = |numbers: &[u8]| numbers.iter().map(|&n| Key::new(&[n; 32])).collect();
    assert_eq!(
        Keyring::new(keys(&[]), false).unwrap_err(),
        KeyringError::Empty
    );
    assert_eq!(
        Keyring::new(keys(&[1, 2, 1]), false).unwrap_err(),
        KeyringError::Twice
    );
    let ring = Keyring::new(keys(&[1, 2, 3]), true).unwrap();
    assert!(ring.accepts_plain());
    assert_eq!(ring.current().id(), Key::new(&[1; 32]).id());
    for number in [1, 2, 3] {
        let id = Key::new(&[number; 32]).id();
        assert_eq!(ring.find(id).unwrap().id(), id);
    }
    assert!(ring.find(Key::new(&[4; 32]).id()).is_none());
}

#[test]
fn a_ring_shows_ids_and_no_key() {
    let ring = Keyring::new(vec![Key::new(&[0x41; 32])], false).unwrap();
    let shown = format!("{ring:?}");
    let id = format!("{:016x}", u64::from_be_bytes(ring.current().id()));
    assert!(shown.contains(&id));
    let sealing = blake3::derive_key(
        "llmcache_fast 2026-11-24 sealing of stored records, version 1",
        &[0x41; 32],
    );
    for secret in [&[0x41; 32], &sealing] {
        assert!(!shown.contains(&format!("{secret:?}")[1..20]));
        let digits = format!("{:08x}", u32::from_be_bytes(*secret.first_chunk().unwrap()));
        assert!(!shown.contains(&digits));
    }
}
