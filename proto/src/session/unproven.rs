//! What a connection says that has proven nothing yet, beside Hello and Register: a device that waits to be linked
//! to an account, and the recovery of one.

use bytes::{Bytes, BytesMut};
use gureum_wire::FrameKind;
use prost::Message;

use super::put;
use crate::convert::{PayloadError, bounded, filled, fixed, id, raw, schema};
use crate::device_log::LogHead;
use crate::handle::Handle;
use crate::ids::{AccountId, DeviceId, LinkId};
use crate::limits::{
    LINK_ANSWER_BYTES_MAX, LINK_BUNDLE_BYTES_MAX, LINK_OFFER_BYTES_MAX, LINK_REPLY_BYTES_MAX, LOG_ENTRY_BYTES_MAX,
};

/// A device that waits to be linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// From the code that it shows ([`crate::LinkCode::id`]).
    pub link: LinkId,
    /// The device.
    pub device: DeviceId,
    /// A sealed [`crate::LinkOffer`].
    pub offer: Bytes,
}

/// A request to bring an account back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recover {
    /// The public half of the account's recovery key.
    pub recovery_key: [u8; 32],
    /// The signed entry that recovers the account; `None`: tell first where its log stands.
    pub entry: Option<Bytes>,
}

/// The account of a recovery key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovering {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// What the entry to come must follow.
    pub head: LogHead,
}

impl Link {
    pub(super) fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Link::decode(payload)?;
        Ok(Self {
            link: id(&message.link, "link")?,
            device: id(&message.device, "device")?,
            offer: filled(message.offer, LINK_OFFER_BYTES_MAX, "offer")?,
        })
    }
}

impl Recover {
    pub(super) fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Recover::decode(payload)?;
        let entry = bounded(message.entry, LOG_ENTRY_BYTES_MAX, "log entry")?;
        Ok(Self {
            recovery_key: fixed(&message.recovery_key, "recovery key")?,
            entry: Some(entry).filter(|entry| !entry.is_empty()),
        })
    }
}

impl Recovering {
    pub(super) fn write(&self) -> schema::Recovering {
        schema::Recovering {
            account: raw(self.account),
            handle: self.handle.to_string(),
            index: self.head.length,
            previous: raw(self.head.hash),
        }
    }

    pub(super) fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Recovering::decode(payload)?;
        Ok(Self {
            account: id(&message.account, "account")?,
            handle: message.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?,
            head: LogHead { length: message.index, hash: fixed(&message.previous, "hash")? },
        })
    }
}

/// Writes a Link frame.
pub fn put_link(link: &Link, out: &mut BytesMut) {
    let message = schema::Link { link: raw(link.link), device: raw(link.device), offer: link.offer.clone() };
    put(FrameKind::Link, &message, out);
}

/// Writes a LinkReply frame: a sealed [`crate::LinkConsent`].
pub fn put_link_reply(payload: &Bytes, out: &mut BytesMut) {
    put(FrameKind::LinkReply, &schema::LinkReply { payload: payload.clone() }, out);
}

/// Writes a Recover frame.
pub fn put_recover(recover: &Recover, out: &mut BytesMut) {
    let entry = recover.entry.clone().unwrap_or_default();
    put(FrameKind::Recover, &schema::Recover { recovery_key: raw(recover.recovery_key), entry }, out);
}

pub(super) fn read_link_answer(payload: Bytes) -> Result<Bytes, PayloadError> {
    filled(schema::LinkAnswer::decode(payload)?.payload, LINK_ANSWER_BYTES_MAX, "answer")
}

pub(super) fn read_link_reply(payload: Bytes) -> Result<Bytes, PayloadError> {
    filled(schema::LinkReply::decode(payload)?.payload, LINK_REPLY_BYTES_MAX, "reply")
}

pub(super) fn read_linked(payload: Bytes) -> Result<Bytes, PayloadError> {
    bounded(schema::Linked::decode(payload)?.payload, LINK_BUNDLE_BYTES_MAX, "bundle")
}
