//! Varints in every form and every split.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at what it did not expect")]

use bytes::BytesMut;
use proptest::prelude::*;

use super::{NonMinimal, PartialVarint, VALUE_MAX, put_varint, varint_bytes};

fn encoded(value: u64) -> BytesMut {
    let mut out = BytesMut::new();
    put_varint(value, &mut out);
    out
}

/// `value` in `1 << form` bytes, whether or not it needs them.
fn in_form(value: u64, form: u32) -> Vec<u8> {
    let count = 1 << form;
    let mut bytes = value.to_be_bytes()[8 - count..].to_vec();
    bytes[0] |= u8::try_from(form << 6).unwrap();
    bytes
}

fn value() -> impl Strategy<Value = u64> {
    (0_u32..=62).prop_flat_map(|bits| 0..=((1_u64 << bits) - 1).min(VALUE_MAX))
}

#[test]
#[should_panic(expected = "62 bits")]
fn refuses_to_write_more_than_62_bits() {
    put_varint(VALUE_MAX + 1, &mut BytesMut::new());
}

#[test]
fn leaves_bytes_after_its_own() {
    assert_eq!(PartialVarint::default().read(&[0x40, 0x40, 0x01]), (2, Ok(Some(64))));
}

proptest! {
    #[test]
    fn reads_what_was_written(value in value()) {
        let bytes = encoded(value);
        prop_assert_eq!(bytes.len(), varint_bytes(value));
        prop_assert_eq!(PartialVarint::default().read(&bytes), (bytes.len(), Ok(Some(value))));
    }

    #[test]
    fn reads_alike_byte_by_byte(value in value()) {
        let bytes = encoded(value);
        let mut varint = PartialVarint::default();
        for (at, byte) in bytes.iter().enumerate() {
            prop_assert_eq!(varint.is_empty(), at == 0);
            let whole = (at + 1 == bytes.len()).then_some(value);
            prop_assert_eq!(varint.read(&[*byte]), (1, Ok(whole)));
        }
    }

    #[test]
    fn accepts_only_the_shortest_form(value in value(), form in 0_u32..4) {
        prop_assume!(varint_bytes(value) <= 1 << form);
        let bytes = in_form(value, form);
        let expected = if bytes.len() == varint_bytes(value) { Ok(Some(value)) } else { Err(NonMinimal) };
        prop_assert_eq!(PartialVarint::default().read(&bytes), (bytes.len(), expected));
    }
}
