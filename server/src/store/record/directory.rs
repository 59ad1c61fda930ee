//! Conversations, KeyPackages and invites.

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationKind, DeviceId};

use super::{RECORD_VERSION, Reader, Record, RecordError};
use crate::limits::{LEAVE_RECORD_BYTES_MAX, MEMBERS_MAX};

/// A device in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// Its leaf in the tree.
    pub leaf: u32,
}

/// A conversation's epoch and roster, as its tree says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationHead {
    /// The current epoch.
    pub epoch: u64,
    /// When it was created.
    pub created_ms: u64,
    /// What kind it is.
    pub kind: ConversationKind,
    /// Its devices; at most [`MEMBERS_MAX`].
    pub members: Vec<Member>,
}

impl Record for ConversationHead {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(22 + self.members.len().saturating_mul(36));
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        out.push(match self.kind {
            ConversationKind::Direct => 0,
            ConversationKind::Group => 1,
            ConversationKind::Own => 2,
        });
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for member in &self.members {
            out.extend_from_slice(member.account.as_bytes());
            out.extend_from_slice(member.device.as_bytes());
            out.extend_from_slice(&member.leaf.to_be_bytes());
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let (epoch, created_ms) = (reader.u64()?, reader.u64()?);
        let kind = match reader.u8()? {
            0 => ConversationKind::Direct,
            1 => ConversationKind::Group,
            2 => ConversationKind::Own,
            found => return Err(RecordError::Tag { what: "kind of conversation", found }),
        };
        let found = count(&mut reader, MEMBERS_MAX)?;
        let mut members = Vec::with_capacity(found);
        for _ in 0..found {
            members.push(Member {
                account: AccountId::from_bytes(reader.array()?),
                device: DeviceId::from_bytes(reader.array()?),
                leaf: reader.u32()?,
            });
        }
        reader.finish(Self { epoch, created_ms, kind, members })
    }
}

/// What a conversation owes to revocations, and to who leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removals {
    /// Messages for epochs below this one are not taken: a device that has been removed could read them, and one that has
    /// been added could not.
    pub floor_epoch: u64,
    /// Revoked devices that still have a leaf; at most [`MEMBERS_MAX`].
    pub pending: Vec<DeviceId>,
    /// Accounts that have left and still have leaves; at most [`MEMBERS_MAX`].
    pub leaving: Vec<Leaving>,
}

/// An account that has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The account.
    pub account: AccountId,
    /// The device that has said so. The statement holds for as long as this device has its leaf.
    pub device: DeviceId,
    /// What it has signed, a [`gureum_proto::SignedLeave`]; at most [`LEAVE_RECORD_BYTES_MAX`].
    pub statement: Bytes,
}

impl Removals {
    /// Whether nothing is to be removed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.leaving.is_empty()
    }

    /// Whether an account has left.
    #[must_use]
    pub fn is_leaving(&self, account: AccountId) -> bool {
        self.leaving.iter().any(|leaving| leaving.account == account)
    }
}

impl Record for Removals {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.floor_epoch.to_be_bytes());
        let count = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        self.pending.iter().for_each(|device| out.extend_from_slice(device.as_bytes()));
        let count = u32::try_from(self.leaving.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for leaving in &self.leaving {
            out.extend_from_slice(leaving.account.as_bytes());
            out.extend_from_slice(leaving.device.as_bytes());
            let length = u32::try_from(leaving.statement.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&leaving.statement);
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let floor_epoch = reader.u64()?;
        let mut pending = Vec::new();
        for _ in 0..count(&mut reader, MEMBERS_MAX)? {
            pending.push(DeviceId::from_bytes(reader.array()?));
        }
        let mut leaving = Vec::new();
        for _ in 0..count(&mut reader, MEMBERS_MAX)? {
            let (account, device) = (AccountId::from_bytes(reader.array()?), DeviceId::from_bytes(reader.array()?));
            let length = count(&mut reader, LEAVE_RECORD_BYTES_MAX)?;
            leaving.push(Leaving { account, device, statement: value.slice_ref(reader.take(length)?) });
        }
        reader.finish(Self { floor_epoch, pending, leaving })
    }
}

/// How many of something follow.
fn count(reader: &mut Reader<'_>, max: usize) -> Result<usize, RecordError> {
    let found = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if found > max { Err(RecordError::TooMany { found, max }) } else { Ok(found) }
}

/// A KeyPackage in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPackageRecord {
    /// The end of its lifetime.
    pub not_after_ms: u64,
    /// The MLS KeyPackage.
    pub package: Bytes,
}

impl Record for KeyPackageRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.not_after_ms.to_be_bytes());
        out.extend_from_slice(&self.package);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let not_after_ms = reader.u64()?;
        Ok(Self { not_after_ms, package: value.slice_ref(reader.rest()) })
    }
}

/// How often an invite was used, and until when it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteRecord {
    /// Registrations with it so far.
    pub used: u32,
    /// Its end.
    pub expires_ms: u64,
}

impl InviteRecord {
    /// The end of an encoded invite, read without the rest.
    #[must_use]
    pub fn peek_expires_ms(value: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(value).ok()?;
        reader.u32().ok()?;
        reader.u64().ok()
    }
}

impl Record for InviteRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.used.to_be_bytes());
        out.extend_from_slice(&self.expires_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let invite = Self { used: reader.u32()?, expires_ms: reader.u64()? };
        reader.finish(invite)
    }
}
