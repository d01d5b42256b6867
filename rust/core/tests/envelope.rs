//! The wire form: round trips, every refusal, golden vectors, and hostile bytes.

use llmcache_core::envelope::{
    CHECKSUM_LEN, ContentType, DecodeError, EncodeError, HEADER_LEN, Header, Kind, OVERHEAD,
    decode, encode, inspect,
};
use proptest::prelude::*;

const FINGERPRINT: [u8; 32] = [0x5A; 32];

fn header() -> Header {
    Header {
        kind: Kind::Value,
        content_type: ContentType::Json,
        epoch: 0x0102_0304_0506_0708,
        snap: 1_700_000_000_000_001,
        created: 1_700_000_000_000_002,
        fresh_until: 1_700_000_600_000_002,
        stale_until: i64::MAX,
        compute_micros: 1_234_567,
        cost: 4_321,
        fingerprint: FINGERPRINT,
    }
}

fn sample() -> Vec<u8> {
    encode(
        &header(),
        "support-bot",
        b"\x81\xa1t\x01",
        b"{\"answer\":42}",
    )
    .unwrap()
}

fn reading(bytes: &[u8]) -> Result<(), DecodeError> {
    decode(bytes, "support-bot", &FINGERPRINT).map(|_| ())
}

/// The same record with a checksum that fits what was changed.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - CHECKSUM_LEN;
    let checksum = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    bytes
}

#[test]
fn a_record_comes_back_as_it_was() {
    let bytes = sample();
    let view = decode(&bytes, "support-bot", &FINGERPRINT).unwrap();
    assert_eq!(view.header, header());
    assert_eq!(view.namespace, "support-bot");
    assert_eq!(view.facts, b"\x81\xa1t\x01");
    assert_eq!(view.payload, b"{\"answer\":42}");
    assert_eq!(bytes.len(), OVERHEAD + 11 + 4 + 13);
    assert_eq!(inspect(&bytes).unwrap(), view);
}

#[test]
fn a_record_of_another_question_is_told_apart_from_damage() {
    let bytes = sample();
    assert_eq!(
        decode(&bytes, "support-bo", &FINGERPRINT).unwrap_err(),
        DecodeError::WrongNamespace
    );
    assert_eq!(
        decode(&bytes, "", &FINGERPRINT).unwrap_err(),
        DecodeError::WrongNamespace
    );
    let mut other = FINGERPRINT;
    other[31] ^= 1;
    assert_eq!(
        decode(&bytes, "support-bot", &other).unwrap_err(),
        DecodeError::WrongFingerprint
    );
}

#[test]
fn every_kind_of_damage_has_its_name() {
    let changed = |at: usize, value: u8| {
        let mut bytes = sample();
        bytes[at] = value;
        bytes
    };
    assert_eq!(reading(&[]), Err(DecodeError::Truncated));
    assert_eq!(reading(b"LCF"), Err(DecodeError::Truncated));
    assert_eq!(reading(&changed(0, b'X')), Err(DecodeError::BadMagic));
    assert_eq!(reading(&changed(4, 2)), Err(DecodeError::Version(2)));
    assert_eq!(reading(&changed(6, 1)), Err(DecodeError::Flags(1)));
    assert_eq!(reading(&changed(7, 0x80)), Err(DecodeError::Flags(0x8000)));
    assert_eq!(
        reading(&changed(HEADER_LEN + 20, 0)),
        Err(DecodeError::Checksum)
    );
    assert_eq!(reading(&resealed(changed(8, 3))), Err(DecodeError::Kind(3)));
    assert_eq!(
        reading(&resealed(changed(9, 5))),
        Err(DecodeError::ContentType(5))
    );
    assert_eq!(
        reading(&resealed(changed(HEADER_LEN, 0xFF))),
        Err(DecodeError::NamespaceText)
    );
    let mut longer = sample();
    longer.push(0);
    assert_eq!(reading(&longer), Err(DecodeError::Trailing));
    // Lengths that add up to more than there is, and to more than a number holds.
    assert_eq!(reading(&changed(72, 0xFF)), Err(DecodeError::Truncated));
    let mut huge = sample();
    huge[72..80].fill(0xFF);
    assert_eq!(reading(&resealed(huge)), Err(DecodeError::Truncated));
    // Lengths that add up right and cut elsewhere are caught by the checksum.
    let mut shifted = sample();
    shifted[10] -= 1;
    shifted[12] += 1;
    assert_eq!(reading(&shifted), Err(DecodeError::Checksum));
}

#[test]
fn every_prefix_is_truncated_and_every_flipped_bit_is_seen() {
    let bytes = sample();
    for end in 0..bytes.len() {
        assert_eq!(reading(&bytes[..end]), Err(DecodeError::Truncated), "{end}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(reading(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn what_cannot_be_a_record_is_refused() {
    let name = "x".repeat(65_536);
    assert_eq!(
        encode(&header(), &name, b"", b"").unwrap_err(),
        EncodeError::Namespace(65_536)
    );
    let bytes = encode(&header(), &name[1..], b"", b"").unwrap();
    assert_eq!(
        decode(&bytes, &name[1..], &FINGERPRINT).unwrap().payload,
        b""
    );
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = line
        .find(&format!("\"{name}\": "))
        .unwrap_or_else(|| panic!("{name} in {line}"));
    let rest = &line[start + name.len() + 4..];
    let end = if let Some(text) = rest.strip_prefix('"') {
        text.find('"').unwrap() + 2
    } else {
        rest.find([',', '}']).unwrap()
    };
    rest[..end].trim_matches('"')
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn the_golden_vectors_hold() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/envelope_v1.json"
    );
    let text =
        std::fs::read_to_string(path).expect("the golden vectors are beside the Python tests");
    let mut seen = 0;
    for line in text.lines().filter(|line| line.contains("\"record\"")) {
        let header = Header {
            kind: Kind::from_code(field(line, "kind").parse().unwrap()).unwrap(),
            content_type: ContentType::from_code(field(line, "content_type").parse().unwrap())
                .unwrap(),
            epoch: field(line, "epoch").parse().unwrap(),
            snap: field(line, "snap").parse().unwrap(),
            created: field(line, "created").parse().unwrap(),
            fresh_until: field(line, "fresh_until").parse().unwrap(),
            stale_until: field(line, "stale_until").parse().unwrap(),
            compute_micros: field(line, "compute_micros").parse().unwrap(),
            cost: field(line, "cost").parse().unwrap(),
            fingerprint: hex(field(line, "fingerprint")).try_into().unwrap(),
        };
        let namespace = String::from_utf8(hex(field(line, "namespace"))).unwrap();
        let (facts, payload) = (hex(field(line, "facts")), hex(field(line, "payload")));
        let record = hex(field(line, "record"));
        assert_eq!(
            encode(&header, &namespace, &facts, &payload).unwrap(),
            record,
            "{line}"
        );
        let view = decode(&record, &namespace, &header.fingerprint).unwrap();
        assert_eq!(
            (view.header, view.facts, view.payload),
            (header, &facts[..], &payload[..])
        );
        seen += 1;
    }
    assert!(seen >= 5);
    for line in text.lines().filter(|line| line.contains("\"refused\"")) {
        let bytes = hex(field(line, "bytes"));
        assert_eq!(
            inspect(&bytes).unwrap_err().reason(),
            field(line, "refused"),
            "{line}"
        );
        seen += 1;
    }
    assert!(seen >= 12);
}

fn any_header() -> impl Strategy<Value = Header> {
    let stamp = (any::<u64>(), any::<u64>(), any::<[u8; 32]>());
    let times = (any::<i64>(), any::<i64>(), any::<i64>());
    (0_u8..3, 0_u8..5, stamp, times, any::<u64>(), any::<u64>()).prop_map(
        |(kind, content_type, (epoch, snap, fingerprint), times, compute_micros, cost)| Header {
            kind: Kind::from_code(kind).unwrap(),
            content_type: ContentType::from_code(content_type).unwrap(),
            epoch,
            snap,
            created: times.0,
            fresh_until: times.1,
            stale_until: times.2,
            compute_micros,
            cost,
            fingerprint,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_record_comes_back(
        header in any_header(),
        namespace in any::<String>(),
        facts in prop::collection::vec(any::<u8>(), 0..200),
        payload in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let bytes = encode(&header, &namespace, &facts, &payload).unwrap();
        let view = decode(&bytes, &namespace, &header.fingerprint).unwrap();
        prop_assert_eq!((view.header, view.facts, view.payload), (header, &facts[..], &payload[..]));
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(inspect(&bytes).is_err());
    }

    /// Damage behind a checksum that fits, which random bytes never have.
    #[test]
    fn resealed_damage_never_panics_nor_reads_outside(
        changes in prop::collection::vec((0..HEADER_LEN + 28, any::<u8>()), 1..6),
        cut in 0_usize..20,
    ) {
        let mut bytes = sample();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        let bytes = resealed(bytes);
        if let Ok(view) = inspect(&bytes) {
            let total = OVERHEAD + view.namespace.len() + view.facts.len() + view.payload.len();
            prop_assert_eq!(total, bytes.len());
        }
    }
}
