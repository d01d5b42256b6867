//! The writer of the canonical form: a decoder of the specification reads back what was written, so no two
//! values share a form; numbers have one form each.

use llmcache_core::canonical::{Blob, LONG, NotFinite, Writer};
use llmcache_core::fingerprint::tree_digests;
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Big(bool, Vec<u8>),
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    /// Of a long value the form holds the digest.
    Long(bool, u64, [u8; 32]),
    Array(Vec<Value>),
    Mapping(bool, Vec<(String, Value)>),
    Set(Vec<Value>),
}

fn write(writer: &mut Writer, value: &Value) {
    match value {
        Value::Null => writer.null(),
        Value::Bool(value) => writer.boolean(*value),
        Value::Integer(n) => writer.integer(*n),
        Value::Big(negative, magnitude) => writer.big_integer(*negative, magnitude),
        Value::Float(bits) => writer.float(f64::from_bits(*bits)).unwrap(),
        Value::Text(text) => writer.text(text),
        Value::Bytes(bytes) => writer.short_bytes(bytes),
        Value::Long(text, len, digest) => {
            let kind = if *text { Blob::Text } else { Blob::Bytes };
            writer.long(kind, usize::try_from(*len).unwrap(), digest);
        }
        Value::Array(items) => {
            writer.array(items.len());
            for item in items {
                write(writer, item);
            }
        }
        Value::Mapping(ordered, fields) => {
            writer.mapping(fields.len(), *ordered);
            for (key, item) in fields {
                writer.key(key.as_bytes());
                write(writer, item);
            }
        }
        Value::Set(items) => {
            writer.set(items.len());
            for item in items {
                write(writer, item);
            }
        }
    }
}

fn form(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer, value);
    writer.as_bytes().to_vec()
}

/// Reads one value off the front, by the tags of the specification.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front
    }

    fn varint(&mut self) -> u64 {
        let (mut n, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return n;
            }
            shift += 7;
        }
    }

    fn counted(&mut self) -> &'a [u8] {
        let count = usize::try_from(self.varint()).unwrap();
        self.take(count)
    }

    fn values(&mut self) -> Vec<Value> {
        (0..self.varint()).map(|_| self.value()).collect()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.counted().to_vec()).unwrap()
    }

    fn value(&mut self) -> Value {
        match self.take(1)[0] {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => {
                let n = self.varint();
                Value::Integer((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
            }
            4 => {
                let negative = self.take(1)[0] == 1;
                Value::Big(negative, self.counted().to_vec())
            }
            5 => Value::Float(u64::from_be_bytes(self.take(8).try_into().unwrap())),
            6 => Value::Text(self.text()),
            tag @ (7 | 9) => {
                let len = self.varint();
                Value::Long(tag == 7, len, self.take(32).try_into().unwrap())
            }
            8 => Value::Bytes(self.counted().to_vec()),
            10 => Value::Array(self.values()),
            tag @ (11 | 12) => Value::Mapping(
                tag == 12,
                (0..self.varint())
                    .map(|_| (self.text(), self.value()))
                    .collect(),
            ),
            13 => Value::Set(self.values()),
            tag => panic!("tag {tag}"),
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        (-70_i64..70).prop_map(Value::Integer),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 9..40)).prop_map(
            |(negative, mut magnitude)| {
                magnitude[0] |= 1;
                Value::Big(negative, magnitude)
            }
        ),
        any::<f64>()
            .prop_filter("has a fraction", |value| value.is_finite()
                && value.fract() != 0.0)
            .prop_map(|value| Value::Float(value.to_bits())),
        "\\PC{0,60}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..LONG).prop_map(Value::Bytes),
        (any::<bool>(), LONG as u64..1 << 40, any::<[u8; 32]>())
            .prop_map(|(text, len, digest)| Value::Long(text, len, digest)),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
            (
                any::<bool>(),
                prop::collection::vec(("\\PC{0,200}", inner), 0..6)
            )
                .prop_map(|(ordered, fields)| Value::Mapping(ordered, fields)),
        ]
    })
}

fn of_float(value: f64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.float(value).unwrap();
    writer.as_bytes().to_vec()
}

fn of_integer(n: i64) -> Vec<u8> {
    form(&Value::Integer(n))
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(value in values()) {
        let form = form(&value);
        let mut reader = Reader(&form);
        prop_assert_eq!(reader.value(), value);
        prop_assert!(reader.0.is_empty());
    }

    #[test]
    fn different_values_have_different_forms(one in values(), other in values()) {
        prop_assert_eq!(form(&one) == form(&other), one == other);
    }

    #[test]
    fn an_integral_float_is_its_integer(n in -(1_i64 << 53)..=1_i64 << 53) {
        #[expect(clippy::cast_precision_loss, reason = "within 53 bits there is none")]
        let float = n as f64;
        prop_assert_eq!(of_float(float), of_integer(n));
    }

    #[test]
    fn a_huge_float_is_its_big_integer(mantissa in 1_u64 << 52..1 << 53, exponent in 11_u32..971, negative: bool) {
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let float = (mantissa as f64) * f64::from(exponent).exp2();
        let mut magnitude = vec![0; 144];
        let shifted = u128::from(mantissa) << (exponent % 8);
        let end = magnitude.len() - (exponent / 8) as usize;
        magnitude[end - 16..end].copy_from_slice(&shifted.to_be_bytes());
        let float = if negative { -float } else { float };
        let magnitude: Vec<u8> = magnitude.into_iter().skip_while(|&byte| byte == 0).collect();
        // From -2^63 on, the integer has 64 bits.
        prop_assume!(float.to_bits() != (-9_223_372_036_854_775_808.0_f64).to_bits());
        prop_assert_eq!(of_float(float), form(&Value::Big(negative, magnitude)));
    }
}

#[test]
fn the_borders_of_64_bits() {
    assert_eq!(of_float(-9_223_372_036_854_775_808.0), of_integer(i64::MIN));
    assert_eq!(
        of_float(9_223_372_036_854_774_784.0),
        of_integer(9_223_372_036_854_774_784)
    );
    assert_eq!(
        of_float(9_223_372_036_854_775_808.0),
        form(&Value::Big(false, vec![0x80, 0, 0, 0, 0, 0, 0, 0]))
    );
    assert_ne!(of_float(9_223_372_036_854_775_808.0), of_integer(i64::MAX));
    assert_eq!(of_float(-0.0), of_integer(0));
    assert_eq!(of_float(1e0), of_integer(1));
    assert_ne!(form(&Value::Bool(true)), of_integer(1));
}

#[test]
fn leading_zeros_of_a_big_integer_are_dropped() {
    let form = |magnitude: &[u8]| form(&Value::Big(false, magnitude.to_vec()));
    assert_eq!(
        form(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        form(&[1, 0, 0, 0, 0, 0, 0, 0, 0])
    );
    assert_ne!(
        form(&[1, 0, 0, 0, 0, 0, 0, 0, 0]),
        form(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    );
}

#[test]
fn what_is_not_finite_has_no_form() {
    let mut writer = Writer::default();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(writer.float(value), Err(NotFinite));
    }
    assert!(writer.is_empty(), "nothing was written");
}

#[test]
fn long_text_enters_by_its_digest() {
    for length in [LONG - 1, LONG, LONG + 1, 10_000] {
        let text = "x".repeat(length);
        let form = form(&Value::Text(text.clone()));
        let expected = if length < LONG {
            Value::Text(text)
        } else {
            Value::Long(true, length as u64, tree_digests(&[text.as_bytes()])[0])
        };
        assert_eq!(Reader(&form).value(), expected, "{length} bytes");
    }
}

#[test]
fn a_digest_is_put_in_later() {
    let digest = [7; 32];
    let mut writer = Writer::default();
    writer.array(2);
    let at = writer.long(Blob::Text, 1000, &[0; 32]);
    writer.integer(5);
    writer.patch(at, &digest);
    let expected = Value::Array(vec![Value::Long(true, 1000, digest), Value::Integer(5)]);
    assert_eq!(writer.as_bytes(), form(&expected));
    writer.truncate(1);
    assert_eq!(writer.len(), 1);
}
