//! Payloads as bytes: their golden form, their way there and back, and every bound.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod arbitrary;
mod bounds;
mod codes;
mod golden;

use bytes::{Bytes, BytesMut};
use gureum_wire::{Decoder, Frame, FrameKind};

/// The frame that a function writes.
#[track_caller]
fn frame(put: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    put(&mut out);
    let mut decoder = Decoder::new();
    decoder.push(out.freeze());
    let frame = decoder.next().unwrap().unwrap();
    assert_eq!((decoder.next(), decoder.finish()), (Ok(None), Ok(())));
    frame
}

fn raw_frame(kind: FrameKind, payload: impl Into<Bytes>) -> Frame {
    Frame { kind, payload: payload.into() }
}
