//! Arbitrary bytes through the decoder: it never panics, and what it takes in comes out again.

#![no_main]

use bytes::{Bytes, BytesMut};
use gureum_fuzz::decode;
use gureum_wire::{encode, limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (frames, end) = decode([Bytes::copy_from_slice(input)]);
    let payload: usize = frames.iter().map(|frame| frame.payload.len()).sum();
    assert!(payload + 2 * frames.len() <= input.len());

    // One value has one encoding: written again, the frames are the stream, ignorable frames apart.
    let mut out = BytesMut::new();
    for frame in &frames {
        encode(frame.kind, &frame.payload, &mut out);
        assert!(out.len() <= input.len());
    }
    let ignorable_free = !input.iter().any(|byte| (0x50..0x60).contains(byte));
    if end.is_ok() && ignorable_free {
        assert_eq!(out, input);
    }
    assert!(out.len() <= frames.len() * limits::FRAME_HEADER_BYTES_MAX + payload);
});
