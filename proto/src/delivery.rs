//! The frames of a delivery stream, as domain types.

use bytes::{BufMut, Bytes, BytesMut};
use gureum_wire::{Frame, FrameKind};
use prost::Message;
use prost::encoding::uint64;

use crate::convert::{PayloadError, filled, id, raw, schema};
use crate::hello::Position;
use crate::limits::{CIPHERTEXT_BYTES_MAX, HANDSHAKE_BYTES_MAX};
use crate::session::{FrameContentError, put};
use crate::{AccountId, ConversationId, DeviceId, MessageId, SignedLeave};

/// What the server says on a delivery stream.
#[expect(clippy::large_enum_variant, reason = "nearly every frame is an Envelope, and a box each would cost more")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryFrame {
    /// The next entry of the inbox.
    Envelope(Envelope),
    /// Entries that are gone.
    Gap(Gap),
    /// The backlog has been sent up to here.
    CaughtUp {
        /// The head when the subscription began.
        seq: u64,
    },
}

/// An entry of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its place, and the running count of application messages up to it.
    pub position: Position,
    /// What every recipient's envelope shares.
    pub shared: SharedEnvelope,
}

/// The part of an envelope that does not depend on the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedEnvelope {
    /// The server's id, which holds its time.
    pub message_id: MessageId,
    /// The conversation.
    pub conversation: ConversationId,
    /// Who sent it.
    pub sender_account: AccountId,
    /// From which device.
    pub sender_device: DeviceId,
    /// What it is.
    pub body: EnvelopeBody,
}

/// What an envelope carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeBody {
    /// An application message.
    Message {
        /// Its place in its conversation, dense, from 1.
        number: u64,
        /// An MLSMessage with a PrivateMessage.
        ciphertext: Bytes,
    },
    /// An application message for programs alone, without a number: an MLSMessage with a PrivateMessage.
    Silent(Bytes),
    /// A commit.
    Commit {
        /// The epoch that it ends.
        epoch: u64,
        /// An MLSMessage with a PublicMessage.
        commit: Bytes,
    },
    /// An MLSMessage with a Welcome, for one or more of the account's devices.
    Welcome(Bytes),
    /// The sender's device log has grown to so many entries.
    LogChange {
        /// The new length.
        log_entries: u64,
    },
    /// The sender's account has left the conversation: whoever commits next removes its leaves.
    Leave(SignedLeave),
}

/// Positions that were dropped before this device took them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first position that is gone.
    pub from_seq: u64,
    /// The last position that is gone, and the running count there.
    pub to: Position,
    /// Application messages among them.
    pub missed: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why entries are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// They were older than the retention.
    Expired,
    /// The inbox was over its bound.
    Overflow,
    /// The server lost them, by damage of its disk or by going back to a backup: `missed` counts what is known, and
    /// more may be gone.
    Lost,
}

impl SharedEnvelope {
    /// The encoded form that [`put_envelope`] takes and the store keeps.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        use schema::shared_envelope::Body;
        let body = match &self.body {
            EnvelopeBody::Message { number, ciphertext } => Body::Message(schema::ApplicationMessage {
                number: *number,
                ciphertext: ciphertext.clone(),
                silent: false,
            }),
            EnvelopeBody::Silent(ciphertext) => {
                Body::Message(schema::ApplicationMessage { number: 0, ciphertext: ciphertext.clone(), silent: true })
            }
            EnvelopeBody::Commit { epoch, commit } => {
                Body::Commit(schema::Commit { epoch: *epoch, commit: commit.clone() })
            }
            EnvelopeBody::Welcome(welcome) => Body::Welcome(welcome.clone()),
            EnvelopeBody::LogChange { log_entries } => Body::LogChange(schema::LogChange { log_entries: *log_entries }),
            EnvelopeBody::Leave(leave) => Body::Leave(leave.write()),
        };
        schema::SharedEnvelope {
            message_id: raw(self.message_id),
            conversation: raw(self.conversation),
            sender_account: raw(self.sender_account),
            sender_device: raw(self.sender_device),
            body: Some(body),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// It is anything else.
    pub fn decode(encoded: Bytes) -> Result<Self, PayloadError> {
        Self::read(schema::Envelope::decode(encoded)?)
    }

    /// The shared part is an envelope without its place.
    fn read(message: schema::Envelope) -> Result<Self, PayloadError> {
        use schema::envelope::Body;
        let body = match message.body.ok_or(PayloadError::Missing("body"))? {
            Body::Message(body) if body.silent => {
                if body.number != 0 {
                    return Err(PayloadError::Invalid("number"));
                }
                EnvelopeBody::Silent(filled(body.ciphertext, CIPHERTEXT_BYTES_MAX, "ciphertext")?)
            }
            Body::Message(body) => EnvelopeBody::Message {
                number: body.number,
                ciphertext: filled(body.ciphertext, CIPHERTEXT_BYTES_MAX, "ciphertext")?,
            },
            Body::Commit(body) => {
                EnvelopeBody::Commit { epoch: body.epoch, commit: filled(body.commit, HANDSHAKE_BYTES_MAX, "commit")? }
            }
            Body::Welcome(welcome) => EnvelopeBody::Welcome(filled(welcome, HANDSHAKE_BYTES_MAX, "welcome")?),
            Body::LogChange(change) => EnvelopeBody::LogChange { log_entries: change.log_entries },
            Body::Leave(leave) => EnvelopeBody::Leave(SignedLeave::read(leave)?),
        };
        Ok(Self {
            message_id: id(&message.message_id, "message id")?,
            conversation: id(&message.conversation, "conversation")?,
            sender_account: id(&message.sender_account, "sender account")?,
            sender_device: id(&message.sender_device, "sender device")?,
            body,
        })
    }
}

/// Writes an Envelope frame: the entry's place, then the shared part as encoded once for all recipients.
pub fn put_envelope(position: Position, shared: &[u8], out: &mut BytesMut) {
    // As everywhere in proto3, what is 0 is left out.
    let place = [(1, position.seq), (2, position.count)].into_iter().filter(|(_, value)| *value != 0);
    let length = place.clone().map(|(tag, value)| uint64::encoded_len(tag, &value)).sum::<usize>() + shared.len();
    gureum_wire::encode_with(FrameKind::Envelope, length, out, |out| {
        place.for_each(|(tag, value)| uint64::encode(tag, &value, out));
        out.put_slice(shared);
    });
}

impl DeliveryFrame {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Envelope(envelope) => put_envelope(envelope.position, &envelope.shared.encode(), out),
            Self::Gap(gap) => put(FrameKind::Gap, &gap.write(), out),
            Self::CaughtUp { seq } => put(FrameKind::CaughtUp, &schema::CaughtUp { seq: *seq }, out),
        }
    }

    /// Reads a frame that came on a delivery stream.
    ///
    /// # Errors
    /// It has no meaning there, or its payload is malformed.
    pub fn decode(frame: Frame) -> Result<Self, FrameContentError> {
        Ok(match frame.kind {
            FrameKind::Envelope => Self::Envelope(Envelope::read(frame.payload)?),
            FrameKind::Gap => Self::Gap(Gap::read(frame.payload)?),
            FrameKind::CaughtUp => {
                let message = schema::CaughtUp::decode(frame.payload).map_err(PayloadError::from)?;
                Self::CaughtUp { seq: message.seq }
            }
            other => return Err(FrameContentError::Unexpected(other)),
        })
    }
}

impl Envelope {
    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Envelope::decode(payload)?;
        let position = Position { seq: message.seq, count: message.count };
        let shared = SharedEnvelope::read(message)?;
        if position.seq == 0 {
            return Err(PayloadError::Invalid("seq"));
        }
        Ok(Self { position, shared })
    }
}

impl Gap {
    fn write(&self) -> schema::Gap {
        let reason = match self.reason {
            GapReason::Expired => schema::GapReason::Expired,
            GapReason::Overflow => schema::GapReason::Overflow,
            GapReason::Lost => schema::GapReason::Lost,
        };
        schema::Gap {
            from_seq: self.from_seq,
            to_seq: self.to.seq,
            missed: self.missed,
            count: self.to.count,
            reason: reason.into(),
        }
    }

    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Gap::decode(payload)?;
        let reason = match message.reason() {
            schema::GapReason::Expired => GapReason::Expired,
            schema::GapReason::Overflow => GapReason::Overflow,
            schema::GapReason::Lost => GapReason::Lost,
            schema::GapReason::Unspecified => return Err(PayloadError::Invalid("reason")),
        };
        if message.from_seq == 0 || message.to_seq < message.from_seq || message.missed > message.count {
            return Err(PayloadError::Invalid("span"));
        }
        Ok(Self {
            from_seq: message.from_seq,
            to: Position { seq: message.to_seq, count: message.count },
            missed: message.missed,
            reason,
        })
    }
}
