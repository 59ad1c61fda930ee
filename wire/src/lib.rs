//! Frames on a stream of bytes: `type varint ‖ length varint ‖ payload`, and nothing above that.
//!
//! This crate is pure: no socket, clock or task. [`Decoder`] takes chunks of bytes as they arrive and
//! gives back [`Frame`]s; [`encode`] and [`encode_with`] write them. What a payload means is the matter of
//! `gureum-proto`. The format is published in `docs/protocol.md`, whose test vectors this crate's tests read.

mod decode;
mod encode;
mod frame;
pub mod limits;
mod varint;

#[cfg(test)]
mod golden;

pub use decode::{Decoder, FrameError};
pub use encode::{encode, encode_with, frame_bytes};
pub use frame::{Frame, FrameKind};
