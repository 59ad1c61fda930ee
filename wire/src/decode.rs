//! Bytes to frames: takes chunks in whatever sizes they arrive, and never reads a byte twice.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{Frame, FrameKind, TypeClass};
use crate::limits;
use crate::varint::PartialVarint;

#[cfg(test)]
mod tests;

/// Why a stream of frames cannot be read on. All are the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type or a length was not in its shortest form.
    #[error("frame header: varint is not in its shortest form")]
    NonMinimalVarint,
    /// The type is neither known nor in the ignorable range.
    #[error("frame header: unknown type {0:#x}")]
    UnknownType(u64),
    /// The length is above the limit of the type.
    #[error("frame header: {kind:?} of {length} bytes is longer than {limit}")]
    TooLong {
        /// The frame's type.
        kind: FrameKind,
        /// The length that the header claims.
        length: u64,
        /// The most that the type may have.
        limit: usize,
    },
    /// An ignorable frame is longer than ignorable frames may be.
    #[error("frame header: ignorable frame {number:#x} of {length} bytes is longer than {limit}")]
    IgnorableTooLong {
        /// The number of the frame's type.
        number: u64,
        /// The length that the header claims.
        length: u64,
        /// The most that an ignorable frame may have.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
}

/// Reads frames out of one stream.
///
/// ```
/// # use gureum_wire::{Decoder, FrameKind, encode};
/// # let mut out = bytes::BytesMut::new();
/// # encode(FrameKind::Ack, b"x", &mut out);
/// # let chunk = out.freeze();
/// let mut decoder = Decoder::new();
/// decoder.push(chunk);
/// while let Some(frame) = decoder.next()? {
///     assert_eq!(frame.kind, FrameKind::Ack);
/// }
/// decoder.finish()?; // at the end of the stream
/// # Ok::<(), gureum_wire::FrameError>(())
/// ```
///
/// A payload that lies within one chunk is a slice of it; one that straddles chunks is copied together. After
/// each `push` of at most [`limits::UNREAD_CHUNKS_MAX`] chunks the caller calls `next` until it gives `None`; the decoder
/// then holds nothing but one partial payload, [`Decoder::partial_bytes`] long:
///
/// `partial_bytes ≤ min(length, max(STRADDLE_FIRST_BYTES, 2 × bytes that came))`
///
/// After an error it is spent and gives that same error for ever.
#[derive(Debug, Default)]
pub struct Decoder {
    unread: VecDeque<Bytes>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Type(PartialVarint),
    Length { number: u64, varint: PartialVarint },
    Payload { kind: FrameKind, length: usize, partial: BytesMut },
    Skip { left: usize },
    Failed(FrameError),
}

impl Default for State {
    fn default() -> Self {
        Self::Type(PartialVarint::default())
    }
}

/// What one step over the front chunk came to.
enum Step {
    Frame(Frame),
    Again,
    NeedsBytes,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands over the next bytes of the stream. Costs no copy.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() || matches!(self.state, State::Failed(_)) {
            return;
        }
        debug_assert!(self.unread.len() < limits::UNREAD_CHUNKS_MAX, "take the frames out before pushing more");
        self.unread.push_back(chunk);
    }

    /// The next whole frame, or `None` when that needs more bytes.
    ///
    /// # Errors
    ///
    /// When the stream breaks the format; from then on always.
    #[expect(clippy::should_implement_trait, reason = "`None` means not yet, where an iterator's means never")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        // Each turn but the last takes at least one byte of what was pushed or finishes a payload of no bytes.
        loop {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::Frame(frame)) => return Ok(Some(frame)),
                Ok(Step::NeedsBytes) => return Ok(None),
                Err(error) => {
                    self.unread.clear();
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// Says whether the stream may end here; for when it has, and `next` has given `None`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] inside a frame, or the error that `next` gave.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.state {
            State::Failed(error) => Err(*error),
            State::Type(varint) if varint.is_empty() && self.unread.is_empty() => Ok(()),
            _ => Err(FrameError::Truncated),
        }
    }

    /// The memory that a payload which has come in part takes now.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        match &self.state {
            State::Payload { partial, .. } => partial.capacity(),
            _ => 0,
        }
    }

    fn step(&mut self) -> Result<Step, FrameError> {
        if let State::Payload { length: 0, kind, .. } = self.state {
            self.state = State::default();
            return Ok(Step::Frame(Frame { kind, payload: Bytes::new() }));
        }
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let Some(chunk) = self.unread.front_mut() else {
            return Ok(Step::NeedsBytes);
        };
        let step = self.state.take(chunk);
        if chunk.is_empty() {
            self.unread.pop_front();
        }
        step
    }
}

impl State {
    /// Takes from a chunk that is not empty what the present part of the frame needs.
    fn take(&mut self, chunk: &mut Bytes) -> Result<Step, FrameError> {
        match self {
            Self::Type(varint) => {
                if let Some(number) = take_varint(varint, chunk)? {
                    // Refused here, before its length: an unknown type may be something else altogether.
                    if TypeClass::of(number) == TypeClass::Unknown {
                        return Err(FrameError::UnknownType(number));
                    }
                    *self = Self::Length { number, varint: PartialVarint::default() };
                }
                Ok(Step::Again)
            }
            Self::Length { number, varint } => {
                if let Some(length) = take_varint(varint, chunk)? {
                    *self = Self::after_header(*number, length)?;
                }
                Ok(Step::Again)
            }
            Self::Payload { kind, length, partial } => {
                let Some(payload) = take_payload(*length, partial, chunk) else {
                    return Ok(Step::Again);
                };
                let kind = *kind;
                *self = Self::default();
                Ok(Step::Frame(Frame { kind, payload }))
            }
            Self::Skip { left } => {
                let count = chunk.len().min(*left);
                chunk.advance(count);
                *left -= count;
                if *left == 0 {
                    *self = Self::default();
                }
                Ok(Step::Again)
            }
            Self::Failed(error) => Err(*error),
        }
    }

    /// The state after a whole header, if the length is within the limit of its type.
    fn after_header(number: u64, length: u64) -> Result<Self, FrameError> {
        match TypeClass::of(number) {
            TypeClass::Known(kind) => {
                let limit = kind.payload_bytes_max();
                let length = within(length, limit).ok_or(FrameError::TooLong { kind, length, limit })?;
                Ok(Self::Payload { kind, length, partial: BytesMut::new() })
            }
            TypeClass::Ignorable => {
                let limit = limits::IGNORABLE_BYTES_MAX;
                let left = within(length, limit).ok_or(FrameError::IgnorableTooLong { number, length, limit })?;
                Ok(if left == 0 { Self::default() } else { Self::Skip { left } })
            }
            TypeClass::Unknown => Err(FrameError::UnknownType(number)),
        }
    }
}

fn within(length: u64, limit: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| *length <= limit)
}

fn take_varint(varint: &mut PartialVarint, chunk: &mut Bytes) -> Result<Option<u64>, FrameError> {
    let (taken, value) = varint.read(chunk);
    chunk.advance(taken);
    value.map_err(|_| FrameError::NonMinimalVarint)
}

/// The whole payload once it is there, as a slice of the chunk where that is possible.
fn take_payload(length: usize, partial: &mut BytesMut, chunk: &mut Bytes) -> Option<Bytes> {
    if partial.is_empty() && chunk.len() >= length {
        return Some(chunk.split_to(length));
    }
    let count = chunk.len().min(length - partial.len());
    make_room(partial, count, length);
    partial.extend_from_slice(&chunk.split_to(count));
    (partial.len() == length).then(|| std::mem::take(partial).freeze())
}

/// Grows a partial payload for `count` bytes more. `BytesMut::reserve` would do it too, but may take more
/// than `length`, and the bound of a connection's memory counts on exactly that.
fn make_room(partial: &mut BytesMut, count: usize, length: usize) {
    let needed = partial.len() + count;
    if needed <= partial.capacity() {
        return;
    }
    let capacity = needed.saturating_mul(2).max(limits::STRADDLE_FIRST_BYTES).min(length);
    let mut grown = BytesMut::with_capacity(capacity);
    grown.extend_from_slice(partial);
    *partial = grown;
}
