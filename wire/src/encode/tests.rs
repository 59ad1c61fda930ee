//! Frames as they are written.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::{encode, encode_with, frame_bytes};
use crate::frame::FrameKind;

#[test]
fn appends_to_what_is_there() {
    let mut out = BytesMut::from(&b"before"[..]);
    encode(FrameKind::Ack, b"x", &mut out);
    assert_eq!(out, b"before\x05\x01x"[..]);
}

#[test]
#[should_panic(expected = "longer than its limit of 64")]
fn refuses_to_write_a_payload_above_the_limit() {
    encode(FrameKind::Ack, &[0; 65], &mut BytesMut::new());
}

#[test]
#[should_panic(expected = "another length")]
fn refuses_a_writer_that_writes_less_than_it_said() {
    encode_with(FrameKind::Ack, 2, &mut BytesMut::new(), |out| out.put_u8(0));
}

#[test]
#[should_panic(expected = "another length")]
fn refuses_a_writer_that_writes_more_than_it_said() {
    encode_with(FrameKind::Ack, 0, &mut BytesMut::new(), |out| out.put_u8(0));
}

proptest! {
    #[test]
    fn frame_bytes_is_what_encode_writes(
        kind in proptest::sample::select(FrameKind::ALL),
        payload_bytes in 0_usize..100_000,
    ) {
        let payload = vec![7; payload_bytes.min(kind.payload_bytes_max())];
        let mut out = BytesMut::new();
        encode(kind, &payload, &mut out);
        prop_assert_eq!(out.len(), frame_bytes(kind, payload.len()));
    }
}
