//! Arbitrary frames written and read again, with ignorable frames between them.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use gureum_fuzz::decode;
use gureum_wire::{Frame, FrameKind, encode, frame_bytes};
use libfuzzer_sys::fuzz_target;

/// Bounds the time of one input: a payload may be a mebibyte long.
const FRAMES_MAX: usize = 16;

#[derive(Arbitrary, Debug)]
struct Part {
    kind: u8,
    payload: Payload,
    /// The payload of an ignorable frame before this one, if any.
    ignorable: Option<u8>,
}

#[derive(Debug)]
struct Payload(Bytes);

/// Short payloads are the input's own bytes; for long ones the input says the length alone.
impl<'a> Arbitrary<'a> for Payload {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let short = bool::arbitrary(input)?;
        Ok(Self(if short {
            Vec::<u8>::arbitrary(input)?.into()
        } else {
            vec![0x5a; input.int_in_range(0..=FrameKind::Envelope.payload_bytes_max())?].into()
        }))
    }
}

fuzz_target!(|parts: Vec<Part>| {
    let mut frames = Vec::new();
    let mut out = BytesMut::new();
    for part in parts.into_iter().take(FRAMES_MAX) {
        if let Some(count) = part.ignorable {
            let count = count % 64;
            // From 0x1002 on: those before are known.
            out.extend_from_slice(&[0x50, count + 2, count]);
            out.extend_from_slice(&[count; 64][..usize::from(count)]);
        }
        let kind = FrameKind::ALL[usize::from(part.kind) % FrameKind::ALL.len()];
        let mut payload = part.payload.0;
        payload.truncate(kind.payload_bytes_max());
        let start = out.len();
        encode(kind, &payload, &mut out);
        assert_eq!(out.len() - start, frame_bytes(kind, payload.len()));
        frames.push(Frame { kind, payload });
    }
    let stream = out.freeze();
    assert_eq!(decode([stream.clone()]), (frames, Ok(())));
    let packets = stream.chunks(1200).map(Bytes::copy_from_slice);
    assert_eq!(decode(packets).1, Ok(()));
});
