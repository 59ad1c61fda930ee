//! Phone numbers and their codes, as keyed hashes alone; and what accounts have decided about each other.

use bytes::Bytes;
use gureum_proto::{AccountId, PhoneNotice, Relation};

use super::{RECORD_VERSION, Reader, Record, RecordError};
use crate::store::key::NumberHash;

/// Whose a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberRecord {
    /// The account that has proven it last.
    pub account: AccountId,
    /// Whether people may find the account by it.
    pub findable: bool,
}

impl Record for NumberRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(self.account.as_bytes());
        out.push(u8::from(self.findable));
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let record = Self { account: AccountId::from_bytes(reader.array()?), findable: reader.flag()? };
        reader.finish(record)
    }
}

/// The number of an account, and what its devices are to be told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneRecord {
    /// Its number; none once it has moved to another account.
    pub number: Option<NumberHash>,
    /// Since when it is so.
    pub since_ms: u64,
    /// What was tried with the number, and when.
    pub notice: PhoneNotice,
}

impl Record for PhoneRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.push(u8::from(self.number.is_some()));
        out.extend(self.number.iter().flatten());
        out.extend_from_slice(&self.since_ms.to_be_bytes());
        out.extend_from_slice(&self.notice.moved_ms.to_be_bytes());
        out.extend_from_slice(&self.notice.tried_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let number = if reader.flag()? { Some(reader.array()?) } else { None };
        let since_ms = reader.u64()?;
        let notice = PhoneNotice { moved_ms: reader.u64()?, tried_ms: reader.u64()? };
        reader.finish(Self { number, since_ms, notice })
    }
}

/// A registration lock: what keeps the number of an account with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRecord {
    /// The keyed hash of what the client has made of the PIN.
    pub hash: [u8; 32],
    /// Wrong PINs until it is closed.
    pub tries_left: u8,
    /// Until when no PIN is looked at.
    pub closed_until_ms: u64,
}

impl Record for LockRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.hash);
        out.push(self.tries_left);
        out.extend_from_slice(&self.closed_until_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let record = Self { hash: reader.array()?, tries_left: reader.u8()?, closed_until_ms: reader.u64()? };
        reader.finish(record)
    }
}

/// What an account has decided about one of its conversations. Where there is none: not accepted, not muted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PreferenceRecord {
    /// Whether messages in it wake somebody, whoever they are from.
    pub accepted: bool,
    /// Messages of before this time wake nobody.
    pub muted_until_ms: u64,
}

impl Record for PreferenceRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.push(u8::from(self.accepted));
        out.extend_from_slice(&self.muted_until_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let record = Self { accepted: reader.flag()?, muted_until_ms: reader.u64()? };
        reader.finish(record)
    }
}

/// What an account has decided about another. `None` is not written: then there is no record.
impl Record for Relation {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.push(match self {
            Self::None => 1,
            Self::Accepted => 2,
            Self::Blocked => 3,
        });
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let relation = match reader.u8()? {
            1 => Self::None,
            2 => Self::Accepted,
            3 => Self::Blocked,
            found => return Err(RecordError::Tag { what: "relation", found }),
        };
        reader.finish(relation)
    }
}

/// The code that was last sent to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRecord {
    /// Its end.
    pub expires_ms: u64,
    /// The keyed hash of number and code.
    pub hash: [u8; 32],
    /// Wrong codes until it is used up.
    pub tries_left: u8,
    /// When it was sent.
    pub sent_ms: u64,
}

impl Record for CodeRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.push(self.tries_left);
        out.extend_from_slice(&self.sent_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let (expires_ms, hash) = (reader.u64()?, reader.array()?);
        let record = Self { expires_ms, hash, tries_left: reader.u8()?, sent_ms: reader.u64()? };
        reader.finish(record)
    }
}

/// How many codes were sent on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpentRecord {
    /// When nobody asks for that day any more.
    pub expires_ms: u64,
    /// How many.
    pub count: u32,
}

impl Record for SpentRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let record = Self { expires_ms: reader.u64()?, count: reader.u32()? };
        reader.finish(record)
    }
}

/// The end of whatever stands in [`crate::store::Family::Code`], read without the rest.
#[must_use]
pub fn peek_code_end(value: &[u8]) -> Option<u64> {
    Reader::new(value).ok()?.u64().ok()
}
