//! The positions of an inbox, and its head.

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, MessageId};

use super::{RECORD_VERSION, Reader, Record, RecordError};

/// What an inbox holds at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxEntry {
    /// The message, or the id given to the event; says the time.
    pub id: MessageId,
    /// Application messages in this inbox up to and with this entry.
    pub count: u64,
    /// Bytes of this inbox up to and with this entry.
    pub bytes_total: u64,
    /// Where the content is.
    pub body: InboxBody,
}

/// Where the content of an inbox entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxBody {
    /// An application message, in [`crate::store::Family::Message`] under the entry's id.
    Message,
    /// A Welcome, in [`crate::store::Family::Welcome`] under the entry's id.
    Welcome,
    /// A commit, in the commit log.
    Commit {
        /// Whose.
        conversation: ConversationId,
        /// The epoch that it ended.
        epoch: u64,
    },
    /// An account's device log has grown.
    DeviceLog {
        /// Whose.
        account: AccountId,
    },
    /// An application message for programs alone, as [`Self::Message`] but not counted.
    Silent,
    /// An account has left a conversation, in [`crate::store::Family::Welcome`] under the entry's id.
    Leave,
}

/// The tag of [`InboxBody::Welcome`].
const WELCOME: u8 = 1;

impl InboxEntry {
    /// The time of an encoded entry, read without the rest.
    #[must_use]
    pub fn peek_time_ms(value: &[u8]) -> Option<u64> {
        let id = Reader::new(value).ok()?.array().ok()?;
        Some(MessageId::from_bytes(id).time_ms())
    }

    /// Whether an encoded entry is of a Welcome, read without the rest.
    #[must_use]
    pub fn is_welcome(value: &[u8]) -> bool {
        // Behind the version, the id and two sums.
        value.get(33) == Some(&WELCOME)
    }

    /// The time of the entry.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.id.time_ms()
    }
}

impl Record for InboxEntry {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.bytes_total.to_be_bytes());
        match &self.body {
            InboxBody::Message => out.push(0),
            InboxBody::Welcome => out.push(WELCOME),
            InboxBody::Commit { conversation, epoch } => {
                out.push(2);
                out.extend_from_slice(conversation.as_bytes());
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            InboxBody::DeviceLog { account } => {
                out.push(3);
                out.extend_from_slice(account.as_bytes());
            }
            InboxBody::Silent => out.push(4),
            InboxBody::Leave => out.push(5),
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let id = MessageId::from_bytes(reader.array()?);
        let (count, bytes_total) = (reader.u64()?, reader.u64()?);
        let body = match reader.u8()? {
            0 => InboxBody::Message,
            WELCOME => InboxBody::Welcome,
            2 => InboxBody::Commit { conversation: ConversationId::from_bytes(reader.array()?), epoch: reader.u64()? },
            3 => InboxBody::DeviceLog { account: AccountId::from_bytes(reader.array()?) },
            4 => InboxBody::Silent,
            5 => InboxBody::Leave,
            found => return Err(RecordError::Tag { what: "inbox entry", found }),
        };
        reader.finish(Self { id, count, bytes_total, body })
    }
}

/// A position with the running sums there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The position.
    pub seq: u64,
    /// Application messages up to and with it.
    pub count: u64,
    /// Bytes up to and with it.
    pub bytes_total: u64,
}

/// An inbox's state, which outlives all its entries: no seq is ever used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboxHead {
    /// The last position given out.
    pub seq: u64,
    /// Application messages up to and with it.
    pub count: u64,
    /// Bytes up to and with it.
    pub bytes_total: u64,
    /// The highest position dropped because the inbox was over its bound.
    pub overflow: Mark,
    /// A position up to which everything is taken by all devices or as old as an expired message: of what lies there only
    /// Welcomes may still be read, and none of it counts for the bound.
    pub floor: Mark,
}

impl InboxHead {
    /// The last position given out, with the sums there.
    #[must_use]
    pub const fn last(&self) -> Mark {
        Mark { seq: self.seq, count: self.count, bytes_total: self.bytes_total }
    }
}

impl Record for InboxHead {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        for mark in [self.last(), self.overflow, self.floor] {
            out.extend_from_slice(&mark.seq.to_be_bytes());
            out.extend_from_slice(&mark.count.to_be_bytes());
            out.extend_from_slice(&mark.bytes_total.to_be_bytes());
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let mut mark = || Ok(Mark { seq: reader.u64()?, count: reader.u64()?, bytes_total: reader.u64()? });
        let Mark { seq, count, bytes_total } = mark()?;
        let head = Self { seq, count, bytes_total, overflow: mark()?, floor: mark()? };
        reader.finish(head)
    }
}
