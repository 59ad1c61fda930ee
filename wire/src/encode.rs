//! Domain to bytes: writes frames to the end of a buffer.

use bytes::{BufMut, BytesMut};

use crate::frame::FrameKind;
use crate::varint::{put_varint, varint_bytes};

#[cfg(test)]
mod tests;

/// Appends a frame with that payload.
///
/// # Panics
///
/// If the payload is longer than [`FrameKind::payload_bytes_max`]: the peer would close the stream, so it is a
/// bug of the caller, who checks the length of what a person typed long before.
pub fn encode(kind: FrameKind, payload: &[u8], out: &mut BytesMut) {
    encode_with(kind, payload.len(), out, |out| out.put_slice(payload));
}

/// Appends a frame whose payload of `payload_bytes` bytes `write` appends, so that a message is encoded into
/// its place without a copy.
///
/// # Panics
///
/// If the payload is longer than [`FrameKind::payload_bytes_max`], or `write` appends another number of bytes
/// than it said: every later frame of the stream would be misread.
pub fn encode_with(kind: FrameKind, payload_bytes: usize, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let limit = kind.payload_bytes_max();
    assert!(payload_bytes <= limit, "a {kind:?} of {payload_bytes} bytes is longer than its limit of {limit}");
    out.reserve(frame_bytes(kind, payload_bytes));
    put_varint(kind.number(), out);
    put_varint(length(payload_bytes), out);
    let start = out.len();
    write(out);
    let end = start + payload_bytes;
    assert!(out.len() == end, "a {kind:?} wrote another length than its {payload_bytes} bytes");
}

/// How many bytes a whole frame takes: type, length and payload.
#[must_use]
pub fn frame_bytes(kind: FrameKind, payload_bytes: usize) -> usize {
    varint_bytes(kind.number()) + varint_bytes(length(payload_bytes)) + payload_bytes
}

fn length(payload_bytes: usize) -> u64 {
    u64::try_from(payload_bytes).expect("a length in memory fits into 64 bits")
}
