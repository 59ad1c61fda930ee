//! What the benchmarks share: the sizes that they measure, inputs of those sizes, the comparison with a baseline, what Gureum
//! is held against, and how it grows.

pub mod growth;
pub mod limits;
pub mod proven;
mod ratios;
mod results;

use bytes::{Bytes, BytesMut};
use gureum_wire::{FrameKind, encode};

pub use ratios::{
    APPEND_GROUP, Baseline, CALIBRATION_CPU, CALIBRATION_FSYNC, Comparison, FANOUT_GROUP, Medians, Row, Slowness,
};
pub use results::read_results;

/// Payloads of a tiny frame (an ack), of a short message, and of a long one.
pub const PAYLOAD_BYTES: [usize; 3] = [10, 256, 16 * 1024];

/// What one QUIC packet brings, about: decoders get their bytes in chunks like that.
pub const PACKET_BYTES: usize = 1200;

/// About as many bytes as one read of a busy stream gives.
const STREAM_BYTES: usize = 256 * 1024;

/// How many frames [`stream`] holds.
#[must_use]
pub fn stream_frames(payload_bytes: usize) -> usize {
    STREAM_BYTES / payload_bytes
}

/// A payload of that length; its bytes do not matter to framing.
#[must_use]
pub fn payload(payload_bytes: usize) -> Bytes {
    Bytes::from(vec![0x5a; payload_bytes])
}

/// Frames one after another, each with a payload of that length.
#[must_use]
pub fn stream(payload_bytes: usize) -> Bytes {
    let payload = payload(payload_bytes);
    let mut out = BytesMut::new();
    for _ in 0..stream_frames(payload_bytes) {
        encode(FrameKind::Send, &payload, &mut out);
    }
    out.freeze()
}
