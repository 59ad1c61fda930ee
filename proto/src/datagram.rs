//! What travels as a QUIC datagram: what may be lost, doubled and overtaken.

use bytes::Bytes;
use prost::Message;

use crate::convert::{PayloadError, filled, id, raw, schema};
use crate::ids::{AccountId, ConversationId, DeviceId};
use crate::limits::{DATAGRAM_BYTES_MAX, TYPING_SEALED_BYTES_MAX};

/// Somebody types in a conversation, or has stopped. A server keeps none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typing {
    /// Where.
    pub conversation: ConversationId,
    /// The conversation's epoch, whose key seals it.
    pub epoch: u64,
    /// Who: what a client says of itself, and a server puts right.
    pub account: AccountId,
    /// On which device, likewise.
    pub device: DeviceId,
    /// Whether they type: 1 to 64 bytes, which the members' devices open.
    pub sealed: Bytes,
}

impl Typing {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        use schema::datagram::Kind;
        let typing = schema::Typing {
            conversation: raw(self.conversation),
            epoch: self.epoch,
            account: raw(self.account),
            device: raw(self.device),
            sealed: self.sealed.clone(),
        };
        schema::Datagram { kind: Some(Kind::Typing(typing)) }.encode_to_vec().into()
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is too long or malformed, or of a kind that is not known here: such a one is passed over.
    pub fn decode(datagram: Bytes) -> Result<Self, PayloadError> {
        use schema::datagram::Kind;
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(PayloadError::TooLong("datagram"));
        }
        let Kind::Typing(typing) = schema::Datagram::decode(datagram)?.kind.ok_or(PayloadError::Missing("kind"))?;
        Ok(Self {
            conversation: id(&typing.conversation, "conversation")?,
            epoch: typing.epoch,
            account: id(&typing.account, "account")?,
            device: id(&typing.device, "device")?,
            sealed: filled(typing.sealed, TYPING_SEALED_BYTES_MAX, "sealed state")?,
        })
    }
}
