//! Hostile records: no panic, no read outside, and what is accepted is encoded back to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmcache_core::envelope::{self, CHECKSUM_LEN};

fuzz_target!(|data: &[u8]| {
    check(data);
    // A random checksum never fits: give the bytes one that does, so that what lies behind it is reached.
    let checksum = blake3::hash(data);
    let mut sealed = data.to_vec();
    sealed.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    check(&sealed);
});

fn check(bytes: &[u8]) {
    if let Ok(view) = envelope::inspect(bytes) {
        let again = envelope::encode(&view.header, view.namespace, view.facts, view.payload);
        assert_eq!(again.as_deref(), Ok(bytes));
        let found = envelope::decode(bytes, view.namespace, &view.header.fingerprint);
        assert_eq!(found, Ok(view));
    }
}
