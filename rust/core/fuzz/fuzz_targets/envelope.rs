//! Hostile records: no panic, no read outside, no more memory than declared, and what is accepted is encoded
//! back to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmcache_core::envelope::{
    self, Asked, CHECKSUM_LEN, ContentType, Form, HEADER_LEN, Header, Kind, MAX_UNPACKED,
};
use llmcache_core::keyring::{Key, Keyring};

fuzz_target!(|data: &[u8]| {
    check(data);
    // A random checksum never fits: give the bytes one that does, so that what lies behind it is reached.
    check(&checked(data.to_vec()));
    // The bytes as a compressed payload; the first four say how long it is.
    if let Some((size, frame)) = data.split_first_chunk::<4>() {
        let mut record = envelope::encode(&header(), "n", b"", frame, Form::default()).unwrap();
        record.truncate(record.len() - CHECKSUM_LEN);
        record[6] = 1;
        record[76..80].copy_from_slice(size);
        check(&checked(record));
    }
    // What was written is read, in every form, and damage of a sealed record is not.
    let keys = keyring();
    for (compress, keyring) in [(true, None), (false, Some(&keys)), (true, Some(&keys))] {
        let form = Form { compress, keyring };
        let mut record = envelope::encode(&header(), "n", b"facts", data, form).unwrap();
        let asked = Asked {
            namespace: "n",
            fingerprint: &[8; 32],
            keyring,
        };
        let mut room = Vec::new();
        assert_eq!(
            envelope::decode(&record, asked, &mut room).unwrap().payload,
            data
        );
        let at = data.len() * 31 % record.len();
        record[at] ^= 1 + data.first().copied().unwrap_or(0) % 255;
        assert!(envelope::decode(&record, asked, &mut Vec::new()).is_err());
    }
});

fn check(bytes: &[u8]) {
    let keys = keyring();
    let namespace_end = HEADER_LEN
        + bytes
            .get(18..20)
            .map_or(0, |n| usize::from(n[0]) | usize::from(n[1]) << 8);
    let namespace = bytes
        .get(HEADER_LEN..namespace_end)
        .and_then(|name| std::str::from_utf8(name).ok());
    let fingerprint = bytes
        .get(80..112)
        .map_or([0; 32], |bytes| bytes.try_into().unwrap());
    let asked = Asked {
        namespace: namespace.unwrap_or("n"),
        fingerprint: &fingerprint,
        keyring: None,
    };
    assert!(
        envelope::decode(
            bytes,
            Asked {
                keyring: Some(&keys),
                ..asked
            },
            &mut Vec::new()
        )
        .is_err()
    );
    let mut seen_room = Vec::new();
    let seen = envelope::examine(bytes, Some(&keys), &mut seen_room);
    let mut room = Vec::new();
    if let Ok(view) = envelope::decode(bytes, asked, &mut room) {
        let seen = seen.unwrap();
        assert_eq!((seen.header, seen.namespace), (view.header, view.namespace));
        assert!(view.payload.len() <= bytes.len().max(MAX_UNPACKED));
        let again = envelope::encode(
            &view.header,
            view.namespace,
            view.facts,
            &view.payload,
            Form::default(),
        )
        .unwrap();
        // Of one payload there are many frames.
        if bytes[6] == 0 {
            assert_eq!(again, bytes);
        } else {
            let mut other = Vec::new();
            let found = envelope::decode(&again, asked, &mut other).unwrap();
            assert_eq!(found, view);
        }
    }
}

fn checked(mut record: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&record);
    record.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    record
}

fn keyring() -> Keyring {
    Keyring::new(vec![Key::new(&[1; 32])], false).unwrap()
}

fn header() -> Header {
    Header {
        kind: Kind::Value,
        content_type: ContentType::Text,
        epoch: 1,
        snap: 2,
        created: 3,
        fresh_until: 4,
        stale_until: 5,
        compute_micros: 6,
        cost: 7,
        fingerprint: [8; 32],
    }
}
