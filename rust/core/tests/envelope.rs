//! The wire form: round trips, every refusal, golden vectors, and hostile bytes.

use llmcache_core::envelope::{
    Asked, CHECKSUM_LEN, CLEAR_LEN, ContentType, DecodeError, EncodeError, Form, HEADER_LEN,
    Header, Kind, OVERHEAD, SALT_LEN, SEALED_OVERHEAD, decode, encode, encode_salted, examine,
    facts, intact,
};
use llmcache_core::keyring::{Key, Keyring};
use proptest::prelude::*;

const FINGERPRINT: [u8; 32] = [0x5A; 32];
const NAMESPACE: &str = "support-bot";
const FACTS: &[u8] = b"\x81\xa1t\x01";
const PAYLOAD: &[u8] = b"{\"answer\":42}";

fn ring(numbers: &[u8]) -> Keyring {
    let keys = numbers.iter().map(|&number| Key::new(&[number; 32]));
    Keyring::new(keys.collect(), false).unwrap()
}

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

fn written(form: Form<'_>) -> Vec<u8> {
    encode(&header(), NAMESPACE, FACTS, PAYLOAD, form).unwrap()
}

fn sample() -> Vec<u8> {
    written(Form::default())
}

fn read(
    bytes: &[u8],
    namespace: &str,
    fingerprint: &[u8; 32],
    keyring: Option<&Keyring>,
) -> Result<(Header, Vec<u8>, Vec<u8>), DecodeError> {
    let asked = Asked {
        namespace,
        fingerprint,
        keyring,
    };
    let mut room = Vec::new();
    let view = decode(bytes, asked, &mut room)?;
    assert_eq!(view.namespace, namespace);
    Ok((view.header, view.facts.to_vec(), view.payload.into_owned()))
}

fn reading(bytes: &[u8]) -> Result<(), DecodeError> {
    read(bytes, NAMESPACE, &FINGERPRINT, None).map(|_| ())
}

/// The same record with a checksum that fits what was changed.
fn rechecked(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - CHECKSUM_LEN;
    let checksum = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    bytes
}

#[test]
fn a_record_comes_back_as_it_was() {
    let keys = ring(&[1]);
    let lengths = NAMESPACE.len() + FACTS.len() + PAYLOAD.len();
    for (keyring, overhead) in [(None, OVERHEAD), (Some(&keys), SEALED_OVERHEAD)] {
        let bytes = written(Form {
            compress: true,
            keyring,
        });
        assert_eq!(bytes.len(), overhead + lengths);
        assert_eq!(
            read(&bytes, NAMESPACE, &FINGERPRINT, keyring).unwrap(),
            (header(), FACTS.to_vec(), PAYLOAD.to_vec())
        );
    }
}

#[test]
fn a_record_of_another_question_is_told_apart_from_damage() {
    let mut other = FINGERPRINT;
    other[31] ^= 1;
    let bytes = sample();
    let plain = |namespace, fingerprint| read(&bytes, namespace, fingerprint, None).unwrap_err();
    assert_eq!(
        plain("support-bo", &FINGERPRINT),
        DecodeError::WrongNamespace
    );
    assert_eq!(plain("", &FINGERPRINT), DecodeError::WrongNamespace);
    assert_eq!(plain(NAMESPACE, &other), DecodeError::WrongFingerprint);
    let keys = ring(&[1]);
    let bytes = written(Form {
        compress: false,
        keyring: Some(&keys),
    });
    let sealed = |namespace, fingerprint| read(&bytes, namespace, fingerprint, Some(&keys));
    assert_eq!(
        sealed("", &FINGERPRINT).unwrap_err(),
        DecodeError::Unauthentic
    );
    assert_eq!(
        sealed(NAMESPACE, &other).unwrap_err(),
        DecodeError::Unauthentic
    );
}

#[test]
fn any_key_of_the_ring_opens_and_the_first_seals() {
    let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
    let [by_old, by_new] = [&old, &both].map(|keyring| {
        written(Form {
            compress: false,
            keyring: Some(keyring),
        })
    });
    let opens = |bytes: &[u8], keyring: &Keyring| {
        read(bytes, NAMESPACE, &FINGERPRINT, Some(keyring)).map(|_| ())
    };
    assert_eq!(opens(&by_old, &both), Ok(()));
    assert_eq!(opens(&by_new, &both), Ok(()));
    assert_eq!(opens(&by_new, &new), Ok(()));
    assert_eq!(opens(&by_old, &new), Err(DecodeError::UnknownKey));
    assert_eq!(opens(&by_new, &old), Err(DecodeError::UnknownKey));
    assert_eq!(reading(&by_new), Err(DecodeError::NoKey));
    assert_eq!(opens(&sample(), &both), Err(DecodeError::Unsealed));
    let lenient = Keyring::new(vec![Key::new(&[2; 32])], true).unwrap();
    assert_eq!(opens(&sample(), &lenient), Ok(()));
    assert_eq!(opens(&by_new, &lenient), Ok(()));
    // Saying that a sealed record is not, does not help.
    let mut said = by_new;
    said[6] = 0;
    assert_eq!(opens(&said, &both), Err(DecodeError::Unsealed));
    assert!(opens(&said, &lenient).is_err());
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
    assert_eq!(reading(&changed(6, 4)), Err(DecodeError::Flags(4)));
    assert_eq!(reading(&changed(7, 0x80)), Err(DecodeError::Flags(0x8000)));
    assert_eq!(
        reading(&changed(HEADER_LEN + 20, 0)),
        Err(DecodeError::Checksum)
    );
    assert_eq!(
        reading(&rechecked(changed(16, 3))),
        Err(DecodeError::Kind(3))
    );
    assert_eq!(
        reading(&rechecked(changed(17, 5))),
        Err(DecodeError::ContentType(5))
    );
    assert_eq!(
        reading(&rechecked(changed(HEADER_LEN, 0xFF))),
        Err(DecodeError::NamespaceText)
    );
    let mut longer = sample();
    longer.push(0);
    assert_eq!(reading(&longer), Err(DecodeError::Trailing));
    // Lengths that add up to more than there is.
    assert_eq!(reading(&changed(75, 0xFF)), Err(DecodeError::Truncated));
    let mut huge = sample();
    huge[20..24].fill(0xFF);
    huge[72..76].fill(0xFF);
    assert_eq!(reading(&rechecked(huge)), Err(DecodeError::Truncated));
    // Lengths that add up right and cut elsewhere are caught by the checksum.
    let mut shifted = sample();
    shifted[18] -= 1;
    shifted[20] += 1;
    assert_eq!(reading(&shifted), Err(DecodeError::Checksum));
}

#[test]
fn every_prefix_is_refused_and_every_flipped_bit_is_seen() {
    let keys = ring(&[1]);
    let payload = b"tide tables ".repeat(100);
    for keyring in [None, Some(&keys)] {
        for compress in [false, true] {
            let form = Form { compress, keyring };
            let bytes = encode(&header(), NAMESPACE, FACTS, &payload, form).unwrap();
            let refused = |bytes: &[u8]| {
                read(bytes, NAMESPACE, &FINGERPRINT, keyring)
                    .unwrap_err()
                    .reason()
            };
            for end in 0..bytes.len() {
                let reason = refused(&bytes[..end]);
                assert!(["truncated", "unauthentic"].contains(&reason), "{end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                refused(&flipped);
            }
        }
    }
}

/// Each field of one record put into another, whole or cut: nothing that was not written is read.
#[test]
fn fields_of_two_sealed_records_do_not_mix() {
    let keys = ring(&[1, 2]);
    let form = Form {
        compress: false,
        keyring: Some(&keys),
    };
    let other_header = Header {
        epoch: 9,
        ..header()
    };
    let one = written(form);
    let two = encode(&other_header, NAMESPACE, FACTS, PAYLOAD, form).unwrap();
    let by_two = written(Form {
        keyring: Some(&ring(&[2])),
        ..form
    });
    let end = one.len() - 16;
    let parts = [
        0..6,
        6..8,
        8..16,
        16..24,
        24..CLEAR_LEN,
        CLEAR_LEN..end,
        end..one.len(),
    ];
    for source in [&two, &by_two] {
        for chosen in 1..(1_u32 << parts.len()) - 1 {
            let mut mixed = one.clone();
            for (number, part) in parts.iter().enumerate() {
                if chosen & 1 << number != 0 {
                    mixed[part.clone()].copy_from_slice(&source[part.clone()]);
                }
            }
            let whole = mixed == one || mixed == *source;
            let found = read(&mixed, NAMESPACE, &FINGERPRINT, Some(&keys));
            assert_eq!(found.is_ok(), whole, "parts {chosen:b}");
        }
    }
}

#[test]
fn salts_are_not_used_twice() {
    let keys = ring(&[1]);
    let form = Form {
        compress: false,
        keyring: Some(&keys),
    };
    let salts: std::collections::HashSet<Vec<u8>> = (0..1000)
        .map(|_| written(form)[CLEAR_LEN - SALT_LEN..CLEAR_LEN].to_vec())
        .collect();
    assert_eq!(salts.len(), 1000);
}

#[test]
fn what_cannot_be_a_record_is_refused() {
    let name = "x".repeat(65_536);
    let written = |name| encode(&header(), name, b"", b"", Form::default());
    assert_eq!(written(&name).unwrap_err(), EncodeError::Namespace(65_536));
    let bytes = written(&name[1..]).unwrap();
    assert!(read(&bytes, &name[1..], &FINGERPRINT, None).is_ok());
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("\"{name}\": "))?;
    let rest = &line[start + name.len() + 4..];
    let end = if let Some(text) = rest.strip_prefix('"') {
        text.find('"').unwrap() + 2
    } else {
        rest.find([',', '}']).unwrap()
    };
    Some(rest[..end].trim_matches('"'))
}

fn wanted<'a>(line: &'a str, name: &str) -> &'a str {
    field(line, name).unwrap_or_else(|| panic!("{name} in {line}"))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn keyring_of(line: &str, name: &str) -> Option<Keyring> {
    let key: [u8; 32] = hex(field(line, name)?).try_into().ok()?;
    Some(Keyring::new(vec![Key::new(&key)], false).unwrap())
}

fn vectors() -> Vec<String> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/envelope_v1.json"
    );
    let text =
        std::fs::read_to_string(path).expect("the golden vectors are beside the Python tests");
    text.lines().map(str::to_owned).collect()
}

fn header_of(line: &str) -> Header {
    let number = |name| wanted(line, name).parse::<u64>().unwrap();
    let time = |name| wanted(line, name).parse::<i64>().unwrap();
    let code = |name| wanted(line, name).parse::<u8>().unwrap();
    Header {
        kind: Kind::from_code(code("kind")).unwrap(),
        content_type: ContentType::from_code(code("content_type")).unwrap(),
        epoch: number("epoch"),
        snap: number("snap"),
        created: time("created"),
        fresh_until: time("fresh_until"),
        stale_until: time("stale_until"),
        compute_micros: number("compute_micros"),
        cost: number("cost"),
        fingerprint: hex(wanted(line, "fingerprint")).try_into().unwrap(),
    }
}

#[test]
fn the_golden_records_hold() {
    let mut seen = 0;
    for line in vectors().iter().filter(|line| line.contains("\"record\"")) {
        let header = header_of(line);
        let namespace = String::from_utf8(hex(wanted(line, "namespace"))).unwrap();
        let (facts, payload) = (hex(wanted(line, "facts")), hex(wanted(line, "payload")));
        let record = hex(wanted(line, "record"));
        let keyring = keyring_of(line, "key");
        // A frame need not be the one that this version of zstd makes.
        if field(line, "frame").is_none() {
            let form = Form {
                compress: false,
                keyring: keyring.as_ref(),
            };
            let salt =
                field(line, "salt").map_or([0; SALT_LEN], |salt| hex(salt).try_into().unwrap());
            assert_eq!(
                encode_salted(&header, &namespace, &facts, &payload, form, &salt).unwrap(),
                record,
                "{line}"
            );
        }
        assert_eq!(
            read(&record, &namespace, &header.fingerprint, keyring.as_ref()),
            Ok((header, facts, payload)),
            "{line}"
        );
        seen += 1;
    }
    assert!(seen >= 15);
}

#[test]
fn the_golden_refusals_hold() {
    let fingerprint: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let mut seen = 0;
    for line in vectors().iter().filter(|line| line.contains("\"refused\"")) {
        let bytes = hex(wanted(line, "bytes"));
        let keys = line.split_once("\"keys\": [").unwrap().1;
        let key = keys.split_once(']').unwrap().0.trim_matches('"');
        let ring: Option<Keyring> = <[u8; 32]>::try_from(hex(key))
            .ok()
            .map(|key| Keyring::new(vec![Key::new(&key)], false).unwrap());
        assert_eq!(
            read(&bytes, "default", &fingerprint, ring.as_ref())
                .unwrap_err()
                .reason(),
            wanted(line, "refused"),
            "{line}"
        );
        seen += 1;
    }
    assert!(seen >= 40);
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
        repeated in 1_usize..5,
        compress in any::<bool>(),
        sealed in any::<bool>(),
    ) {
        let keys = ring(&[7]);
        let keyring = sealed.then_some(&keys);
        let payload = payload.repeat(repeated);
        let bytes = encode(&header, &namespace, &facts, &payload, Form { compress, keyring }).unwrap();
        let found = read(&bytes, &namespace, &header.fingerprint, keyring);
        prop_assert_eq!(found, Ok((header, facts, payload)));
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        sealed in any::<bool>(),
        begun in any::<bool>(),
    ) {
        let keys = ring(&[7]);
        let mut bytes = bytes;
        if begun {
            let start = written(Form { compress: false, keyring: sealed.then_some(&keys) });
            bytes.splice(0..0, start[..CLEAR_LEN].iter().copied());
        }
        prop_assert!(read(&bytes, NAMESPACE, &FINGERPRINT, Some(&keys)).is_err());
        prop_assert!(read(&bytes, NAMESPACE, &FINGERPRINT, None).is_err());
    }

    /// Damage behind a checksum that fits, which random bytes never have.
    #[test]
    fn rechecked_damage_never_panics_nor_reads_outside(
        changes in prop::collection::vec((0..HEADER_LEN + 28, any::<u8>()), 1..6),
        cut in 0_usize..20,
    ) {
        let mut bytes = sample();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        let bytes = rechecked(bytes);
        if let Ok((_, facts, payload)) = read(&bytes, NAMESPACE, &FINGERPRINT, None)
            && bytes[6] == 0
        {
            prop_assert_eq!(OVERHEAD + NAMESPACE.len() + facts.len() + payload.len(), bytes.len());
        }
    }

    /// Damage in a compressed payload, behind a checksum that fits.
    #[test]
    fn damaged_frames_give_what_was_declared_or_nothing(
        changes in prop::collection::vec((0_usize..600, any::<u8>()), 1..4),
        size in prop::option::of(any::<u32>()),
    ) {
        let text = b"The tide tables are published every quarter. ".repeat(40);
        let form = Form { compress: true, keyring: None };
        let mut bytes = encode(&header(), NAMESPACE, FACTS, &text, form).unwrap();
        prop_assert_eq!(bytes[6], 1);
        let start = HEADER_LEN + NAMESPACE.len() + FACTS.len();
        let end = bytes.len() - CHECKSUM_LEN;
        for (at, value) in changes {
            bytes[start + at % (end - start)] = value;
        }
        if let Some(size) = size {
            bytes[76..80].copy_from_slice(&size.to_le_bytes());
        }
        match read(&rechecked(bytes), NAMESPACE, &FINGERPRINT, None) {
            Ok((_, _, payload)) => prop_assert_eq!(payload.len(), size.map_or(text.len(), |size| size as usize)),
            Err(error) => prop_assert!(["frame", "too_large"].contains(&error.reason())),
        }
    }
}

#[test]
fn a_record_on_a_walk_says_what_it_is() {
    let keys = ring(&[1, 2]);
    let old = ring(&[2]);
    for (compress, keyring) in [
        (false, None),
        (true, None),
        (false, Some(&keys)),
        (true, Some(&old)),
    ] {
        let form = Form { compress, keyring };
        let payload = vec![b'x'; 4096];
        let bytes = encode(&header(), NAMESPACE, FACTS, &payload, form).unwrap();
        let mut room = Vec::new();
        let seen = examine(&bytes, Some(&keys), &mut room).unwrap();
        assert_eq!(seen.header, header());
        assert_eq!((seen.namespace, seen.facts), (NAMESPACE, FACTS));
    }
}

#[test]
fn a_record_on_a_walk_is_believed_only_if_it_is_intact_and_its_key_is_there() {
    let keys = ring(&[1]);
    for keyring in [None, Some(&keys)] {
        let bytes = written(Form {
            compress: false,
            keyring,
        });
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                assert!(
                    examine(&damaged, Some(&keys), &mut Vec::new()).is_err(),
                    "{at}"
                );
            }
            assert!(
                examine(&bytes[..at], Some(&keys), &mut Vec::new()).is_err(),
                "{at}"
            );
        }
    }
    let sealed = written(Form {
        compress: false,
        keyring: Some(&keys),
    });
    let examined = |ring| examine(&sealed, ring, &mut Vec::new()).map(|_| ());
    assert_eq!(examined(None), Err(DecodeError::NoKey));
    assert_eq!(examined(Some(&ring(&[2]))), Err(DecodeError::UnknownKey));
}

proptest! {
    #[test]
    fn hostile_bytes_on_a_walk_are_refused(bytes: Vec<u8>, cut in 0..200usize, sealed: bool) {
        let keys = ring(&[1]);
        let form = Form { compress: false, keyring: sealed.then_some(&keys) };
        let mut record = written(form);
        record.truncate(cut.min(record.len() - 1));
        record.extend_from_slice(&bytes);
        for bytes in [&bytes, &record] {
            // Whatever is accepted, its owner finds, too.
            let mut room = Vec::new();
            if let Ok(seen) = examine(bytes, Some(&keys), &mut room) {
                let fingerprint = seen.header.fingerprint;
                let ring = sealed.then_some(&keys);
                prop_assert!(read(bytes, seen.namespace, &fingerprint, ring).is_ok());
            }
        }
    }
}

/// Bytes with the checksum of a record behind them.
fn checked(length: usize, seed: usize) -> Vec<u8> {
    let body = (0..length).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap());
    let mut bytes: Vec<u8> = body.collect();
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    bytes
}

#[test]
fn checksums_side_by_side_are_those_of_each_alone() {
    let lengths = [
        0, 1, 1023, 1024, 1025, 1071, 1072, 1073, 2047, 2048, 2049, 2180, 3072, 5000, 8191, 8192,
        8193, 9000,
    ];
    for count in [1, 2, 3, 15, 16, 17, 40] {
        for shift in 0..lengths.len() {
            let records: Vec<Vec<u8>> = (0..count)
                .map(|at| checked(lengths[(at + shift) % lengths.len()], at))
                .collect();
            let lent: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            assert_eq!(intact(&lent), vec![true; count]);
        }
    }
}

#[test]
fn a_flipped_bit_is_seen_among_others_and_concerns_no_other() {
    for length in [0, 700, 1500, 2180, 8192, 9000] {
        let mut records = vec![checked(length, 1); 5];
        for at in (0..records[2].len()).step_by(97) {
            records[2][at] ^= 0x10;
            let lent: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            assert_eq!(intact(&lent), [true, true, false, true, true]);
            records[2][at] ^= 0x10;
        }
    }
    assert_eq!(intact(&[b"", b"short"]), [false, false]);
    assert!(intact(&[]).is_empty());
}

#[test]
fn names_in_facts_are_read_and_the_rest_is_skipped() {
    let packed = b"\x96\x92\xa1a\xa2bc\xa3x/y\x91\xa1v\xa1m\xc0\xcd\x01\x02";
    let named = facts::Named {
        tags: vec!["a", "bc"],
        label: Some("x/y"),
        versions: vec!["v"],
    };
    assert_eq!(facts::named(packed), Some(named));
    let none = Some(facts::Named::default());
    assert_eq!(facts::named(b"\x96\x90\xc0\x90\xc0\xc0\x07"), none);
    assert_eq!(facts::named(b"\x90"), none);
}

#[test]
fn facts_that_are_not_just_so_are_left_to_others() {
    let whole = b"\x96\x91\xa1a\xc0\x90\xa1m\xc0\x07";
    for length in 0..whole.len() {
        assert_eq!(facts::named(&whole[..length]), None);
    }
    for other in [
        &b"\x96\x90\xc0\x90\xc0\x94\x01\x02\x03\x04\x07"[..],
        b"\x97\x90\xc0\x90\xc0\xc0\x07\x07",
        b"\x96\x90\xc0\x90\xc0\xc0\x07\x00",
        b"\x96\x90\xc0\x90\xc0\xc0\xff",
        b"\x91\x91\xa1\xff",
        b"\xc0",
    ] {
        assert_eq!(facts::named(other), None);
    }
}
