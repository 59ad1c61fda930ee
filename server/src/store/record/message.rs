//! Sealed messages and commits.

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId};

use super::{RECORD_VERSION, Reader, Record, RecordError};

/// A message's header and body, sealed with the key of its hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedMessage {
    /// Which key.
    pub key_id: u64,
    /// The nonce it was sealed with.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
}

impl Record for SealedMessage {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(21 + self.ciphertext.len());
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.key_id.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.ciphertext);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let (key_id, nonce) = (reader.u64()?, reader.array()?);
        Ok(Self { key_id, nonce, ciphertext: value.slice_ref(reader.rest()) })
    }
}

/// A commit as the commit log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// When it was accepted.
    pub time_ms: u64,
    /// Who sent it.
    pub account: AccountId,
    /// From which device.
    pub device: DeviceId,
    /// The device's counter for it: a repeated commit is recognised by it.
    pub counter: u64,
    /// The MLS message.
    pub commit: Bytes,
}

impl CommitRecord {
    /// The time of an encoded commit, read without the rest.
    #[must_use]
    pub fn peek_time_ms(value: &[u8]) -> Option<u64> {
        Reader::new(value).ok()?.u64().ok()
    }
}

impl Record for CommitRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(49 + self.commit.len());
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.time_ms.to_be_bytes());
        out.extend_from_slice(self.account.as_bytes());
        out.extend_from_slice(self.device.as_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&self.commit);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        Ok(Self {
            time_ms: reader.u64()?,
            account: AccountId::from_bytes(reader.array()?),
            device: DeviceId::from_bytes(reader.array()?),
            counter: reader.u64()?,
            commit: value.slice_ref(reader.rest()),
        })
    }
}
