//! The values of the store: a version byte, then fixed layouts in big-endian, read without a way to panic.

mod cursor;
mod directory;
mod inbox;
mod life;
mod message;
mod phone;
mod push;

use bytes::Bytes;

pub use cursor::{Cursor, SenderWindow, SentResult};
pub use directory::{ConversationHead, InviteRecord, KeyPackageRecord, Leaving, Member, Removals};
pub use gureum_proto::ConversationKind;
pub use inbox::{InboxBody, InboxEntry, InboxHead, Mark};
pub use life::LifeRecord;
pub use message::{CommitRecord, SealedMessage};
pub use phone::{CodeRecord, LockRecord, NumberRecord, PhoneRecord, PreferenceRecord, SpentRecord, peek_code_end};
pub use push::{PushStateRecord, PushTargetRecord};

/// The version of every record's layout, its first byte.
pub const RECORD_VERSION: u8 = 1;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end early.
    #[error("ends {0} bytes early")]
    Truncated(usize),
    /// They go on.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// They are of a version that this program does not know.
    #[error("has version {0}")]
    Version(u8),
    /// A kind that does not exist.
    #[error("has no {what} {found}")]
    Tag {
        /// What the tag chooses.
        what: &'static str,
        /// Its value.
        found: u8,
    },
    /// More elements than are allowed.
    #[error("holds {found} elements of at most {max}")]
    TooMany {
        /// How many.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Text that is not UTF-8.
    #[error("holds text that is not UTF-8")]
    Text,
}

/// A value with a layout.
pub trait Record: Sized {
    /// Appends the whole value, version first.
    fn encode_into(&self, out: &mut Vec<u8>);

    /// Reads a whole value.
    ///
    /// # Errors
    /// When the bytes are anything but exactly one such value.
    fn decode(value: &Bytes) -> Result<Self, RecordError>;

    /// The value's bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }
}

/// Opaque bytes, and ids, as they are.
impl Record for Bytes {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(self);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let rest = Reader::new(value)?.rest();
        Ok(value.slice_ref(rest))
    }
}

/// A handle.
impl Record for String {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let text = std::str::from_utf8(Reader::new(value)?.rest()).map_err(|_| RecordError::Text)?;
        Ok(text.to_owned())
    }
}

/// A number.
impl Record for u64 {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let number = reader.u64()?;
        reader.finish(number)
    }
}

macro_rules! id_record {
    ($($id:ty),*) => {$(
        /// An id.
        impl Record for $id {
            fn encode_into(&self, out: &mut Vec<u8>) {
                out.push(RECORD_VERSION);
                out.extend_from_slice(self.as_bytes());
            }

            fn decode(value: &Bytes) -> Result<Self, RecordError> {
                let mut reader = Reader::new(value)?;
                let id = Self::from_bytes(reader.array()?);
                reader.finish(id)
            }
        }
    )*};
}

id_record!(gureum_proto::AccountId, gureum_proto::ConversationId);

/// Nothing: that the key stands there says it all.
impl Record for () {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        Reader::new(value)?.finish(())
    }
}

/// Reads a value from its front.
struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts after the version.
    fn new(value: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Self { left: value };
        match reader.u8()? {
            RECORD_VERSION => Ok(reader),
            other => Err(RecordError::Version(other)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let short = RecordError::Truncated(N.saturating_sub(self.left.len()));
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(short)?;
        self.left = left;
        Ok(*taken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let short = RecordError::Truncated(length.saturating_sub(self.left.len()));
        let (taken, left) = self.left.split_at_checked(length).ok_or(short)?;
        self.left = left;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_be_bytes)
    }

    /// What is so or not.
    fn flag(&mut self) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(RecordError::Tag { what: "flag", found }),
        }
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    /// All that is left.
    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// The value, if nothing is left.
    fn finish<T>(self, value: T) -> Result<T, RecordError> {
        if self.left.is_empty() { Ok(value) } else { Err(RecordError::Trailing(self.left.len())) }
    }
}

#[cfg(test)]
mod tests;
