//! Linking: what a device that shows a code and a device of an account tell each other, through a server that can
//! read none of it. Sealing is the client's; here is what is sealed, and what the keys follow from.

mod check;
mod code;

use std::fmt;

use bytes::Bytes;
use prost::Message;
use zeroize::Zeroizing;

use crate::convert::{PayloadError, filled, fixed, id, raw, schema};
use crate::device_log::{DeviceKeys, LogHead};
use crate::handle::Handle;
use crate::ids::{AccountId, ConversationId, DeviceId};
use crate::leave::SignedLeave;
use crate::limits::{
    DEVICE_NAME_BYTES_MAX, DEVICES_MAX, LINK_CONTACTS_MAX, LINK_CONVERSATIONS_MAX, LINK_LEAVES_MAX, LOG_ENTRY_BYTES_MAX,
};
pub use check::CheckChain;
pub use code::{LinkCode, LinkCodeError};

const CONSENT_CONTEXT: &str = "gureum 2026-11 link consent key v1";

/// What the new device says of itself, sealed under [`LinkCode::offer_key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOffer {
    /// Its keys.
    pub keys: DeviceKeys,
    /// What its person calls it: 1 to 64 bytes without control characters.
    pub device_name: String,
    /// Whether it asks to be handed what was said before.
    pub wants_history: bool,
    /// Where its [`CheckChain`] stands.
    pub commitment: [u8; 32],
}

/// What a device of the account answers, sealed for the key in the code with [`LinkCode::answer_info`].
#[derive(Clone, PartialEq, Eq)]
pub struct LinkProposal {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// The body of the entry that adds the new device ([`crate::AddDraft`]), for it to countersign.
    pub entry: Bytes,
    /// What the bundle will be sealed under: whoever made the answer, which the digits confirm, made the bundle.
    pub bundle_key: Zeroizing<[u8; 32]>,
}

/// What the new device replies, sealed under [`LinkProposal::consent_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConsent {
    /// Its signature over the body of the entry ([`crate::countersign`]).
    pub countersignature: [u8; 64],
    /// A value of the chain that the offer commits to; the digits are made with it.
    pub opening: [u8; 32],
}

/// What a new device is handed, sealed under [`LinkProposal::bundle_key`], so that the server cannot show it another
/// past than the account's other devices have seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkBundle {
    /// The account.
    pub account: AccountId,
    /// Where its log stands with the new device in it.
    pub log: LogHead,
    /// Accounts that it has met.
    pub contacts: Vec<LinkContact>,
    /// Its conversations with the highest epoch seen, the one with the newest message first.
    pub conversations: Vec<(ConversationId, u64)>,
    /// What its devices are called.
    pub devices: Vec<(DeviceId, String)>,
    /// The statements by which it has left groups.
    pub leaves: Vec<SignedLeave>,
}

/// An account that another one has met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkContact {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// Where its log stood when it was last seen.
    pub log: LogHead,
}

impl LinkOffer {
    /// The bytes to be sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = schema::LinkOffer {
            keys: Some(self.keys.write()),
            device_name: self.device_name.clone(),
            wants_history: self.wants_history,
            commitment: raw(self.commitment),
        };
        message.encode_to_vec()
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// It is anything else, or the name is not 1 to 64 bytes without control characters.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let message = schema::LinkOffer::decode(bytes)?;
        let keys = message.keys.ok_or(PayloadError::Missing("keys"))?;
        Ok(Self {
            keys: DeviceKeys::read(&keys).map_err(|_| PayloadError::Invalid("keys"))?,
            device_name: device_name(message.device_name)?,
            wants_history: message.wants_history,
            commitment: fixed(&message.commitment, "commitment")?,
        })
    }
}

impl LinkProposal {
    /// The key that seals the [`LinkConsent`]: it follows from the code's reply key and from the bundle key, which only
    /// the device can read whose key the code holds. Nobody else consents in its place, whoever has seen the code.
    #[must_use]
    pub fn consent_key(&self, code: &LinkCode) -> Zeroizing<[u8; 32]> {
        let keys = Zeroizing::new([code.reply_key().as_slice(), self.bundle_key.as_slice()].concat());
        Zeroizing::new(blake3::derive_key(CONSENT_CONTEXT, &keys))
    }

    /// The bytes to be sealed.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let message = schema::LinkProposal {
            account: raw(self.account),
            handle: self.handle.to_string(),
            entry: self.entry.clone(),
            bundle_key: raw(*self.bundle_key),
        };
        Zeroizing::new(message.encode_to_vec())
    }

    /// Reads what was sealed. Whether the entry is one to be countersigned is for [`crate::AddDraft`].
    ///
    /// # Errors
    /// It is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let message = schema::LinkProposal::decode(bytes)?;
        Ok(Self {
            account: id(&message.account, "account")?,
            handle: handle(&message.handle)?,
            entry: filled(message.entry, LOG_ENTRY_BYTES_MAX, "log entry")?,
            bundle_key: Zeroizing::new(fixed(&message.bundle_key, "bundle key")?),
        })
    }
}

impl fmt::Debug for LinkProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkProposal").field("account", &self.account).field("handle", &self.handle).finish()
    }
}

impl LinkConsent {
    /// The bytes to be sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (countersignature, opening) = (raw(self.countersignature), raw(self.opening));
        schema::LinkConsent { countersignature, opening }.encode_to_vec()
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// It is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let message = schema::LinkConsent::decode(bytes)?;
        Ok(Self {
            countersignature: fixed(&message.countersignature, "countersignature")?,
            opening: fixed(&message.opening, "opening")?,
        })
    }
}

impl LinkBundle {
    /// The bytes to be sealed; within [`crate::limits::LINK_BUNDLE_BYTES_MAX`] if the lists are within their bounds, and
    /// each of the statements takes the place of [`crate::limits::CONTACTS_PER_LINK_LEAVE`] contacts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let conversation = |(conversation, epoch): &(ConversationId, u64)| schema::LinkConversation {
            conversation: raw(conversation),
            epoch: *epoch,
        };
        let device =
            |(device, name): &(DeviceId, String)| schema::LinkDevice { device: raw(device), name: name.clone() };
        schema::LinkBundle {
            account: raw(self.account),
            log_length: self.log.length,
            log_head: raw(self.log.hash),
            contacts: self.contacts.iter().map(LinkContact::write).collect(),
            conversations: self.conversations.iter().map(conversation).collect(),
            devices: self.devices.iter().map(device).collect(),
            leaves: self.leaves.iter().map(SignedLeave::write).collect(),
        }
        .encode_to_vec()
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// It is anything else, or a list is past its bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let message = schema::LinkBundle::decode(bytes)?;
        within(message.contacts.len(), LINK_CONTACTS_MAX, "list of contacts")?;
        within(message.conversations.len(), LINK_CONVERSATIONS_MAX, "list of conversations")?;
        within(message.devices.len(), DEVICES_MAX, "list of devices")?;
        within(message.leaves.len(), LINK_LEAVES_MAX, "list of leaves")?;
        let conversation = |one: schema::LinkConversation| -> Result<(ConversationId, u64), PayloadError> {
            Ok((id(&one.conversation, "conversation")?, one.epoch))
        };
        let device = |one: schema::LinkDevice| -> Result<(DeviceId, String), PayloadError> {
            Ok((id(&one.device, "device")?, device_name(one.name)?))
        };
        Ok(Self {
            account: id(&message.account, "account")?,
            log: LogHead { length: message.log_length, hash: fixed(&message.log_head, "log head")? },
            contacts: message.contacts.into_iter().map(LinkContact::read).collect::<Result<_, _>>()?,
            conversations: message.conversations.into_iter().map(conversation).collect::<Result<_, _>>()?,
            devices: message.devices.into_iter().map(device).collect::<Result<_, _>>()?,
            leaves: message.leaves.into_iter().map(SignedLeave::read).collect::<Result<_, _>>()?,
        })
    }
}

impl LinkContact {
    fn write(&self) -> schema::LinkContact {
        schema::LinkContact {
            account: raw(self.account),
            handle: self.handle.to_string(),
            log_length: self.log.length,
            log_head: raw(self.log.hash),
        }
    }

    fn read(contact: schema::LinkContact) -> Result<Self, PayloadError> {
        Ok(Self {
            account: id(&contact.account, "account")?,
            handle: handle(&contact.handle)?,
            log: LogHead { length: contact.log_length, hash: fixed(&contact.log_head, "log head")? },
        })
    }
}

fn handle(text: &str) -> Result<Handle, PayloadError> {
    text.parse().map_err(|_| PayloadError::Invalid("handle"))
}

fn device_name(name: String) -> Result<String, PayloadError> {
    within(name.len(), DEVICE_NAME_BYTES_MAX, "device name")?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(PayloadError::Invalid("device name"));
    }
    Ok(name)
}

const fn within(length: usize, max: usize, what: &'static str) -> Result<(), PayloadError> {
    if length > max { Err(PayloadError::TooLong(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
