//! The frames of a session stream, as domain types.

mod refusal;
mod unproven;

use bytes::{Bytes, BytesMut};
use gureum_wire::{Frame, FrameKind};
use prost::Message;

use crate::convert::{PayloadError, bounded, filled, fixed, id, raw, schema};
use crate::hello::{Hello, Position};
use crate::limits::{
    CIPHERTEXT_BYTES_MAX, HANDLE_BYTES_MAX, LOG_ENTRY_BYTES_MAX, SENT_DETAIL_BYTES_MAX, SENT_GONE_MAX, TOKEN_BYTES_MAX,
};
use crate::phone::{CodeSent, Phone, PhoneNotice, PhoneProof};
use crate::{AccountId, Code, ConversationId, DeviceId, MessageId};
pub use refusal::Refusal;
pub use unproven::{Link, Recover, Recovering, put_link, put_link_reply, put_recover};

/// What a client says on its session stream.
#[derive(Debug, Clone)]
pub enum ClientFrame {
    /// The proof; at most once.
    Hello(Hello),
    /// Before the proof: make an account.
    Register(Register),
    /// Before the proof: this device waits to be linked.
    Link(Link),
    /// While it waits: its countersignature, a sealed [`crate::LinkConsent`].
    LinkReply(Bytes),
    /// Before the proof: bring an account back.
    Recover(Recover),
    /// Before the proof: send a code to this number.
    RequestCode(Phone),
    /// An application message.
    Send(Send),
    /// Everything up to here is stored.
    Ack(Position),
}

/// What the server says on a session stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// The proof holds.
    Ready(Ready),
    /// The account exists.
    Registered(Registered),
    /// The answer to a send.
    Sent(Sent),
    /// A device of an account answers the code that this one shows: a sealed [`crate::LinkProposal`].
    LinkAnswer(Bytes),
    /// The log has the device: a sealed [`crate::LinkBundle`], or empty if nothing is handed over.
    Linked(Bytes),
    /// The account of the recovery key.
    Recovering(Recovering),
    /// A code is on its way.
    CodeSent(CodeSent),
    /// What came before is refused; the connection may go on with another Register, Link, Recover or RequestCode.
    Refused(Refusal),
    /// The server is about to stop: come back after this many milliseconds.
    Drain {
        /// How long to stay away.
        come_back_ms: u64,
    },
    /// Others have claimed KeyPackages of this device.
    Notice(Notice),
    /// The account's phone number has moved, or somebody has tried.
    PhoneNotice(PhoneNotice),
}

/// A frame that has no place on the stream it came on, or whose payload is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameContentError {
    /// Another stream's frame, or the other direction's.
    #[error("a {0:?} frame has no meaning here")]
    Unexpected(FrameKind),
    /// The payload is not what the frame says.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl FrameContentError {
    /// What the peer sees.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unexpected(_) => Code::FrameUnexpected,
            Self::Payload(_) => Code::PayloadMalformed,
        }
    }
}

/// A request for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The token of an invite; empty where registration is open.
    pub token: Bytes,
    /// The handle wanted, unchecked.
    pub handle: String,
    /// Entry 0 of the device log, signed.
    pub root_entry: Bytes,
    /// The phone number that the account is to have, and what proves it.
    pub phone: Option<PhoneProof>,
}

/// An account and its first device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The account.
    pub account: AccountId,
    /// Its first device.
    pub device: DeviceId,
}

/// An application message on its way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The device's own counter, from 1; the same for each try of the same message.
    pub counter: u64,
    /// Where it goes.
    pub conversation: ConversationId,
    /// The epoch that it is encrypted for.
    pub epoch: u64,
    /// An MLSMessage with a PrivateMessage.
    pub ciphertext: Bytes,
    /// Whether it is for programs alone: it gets no number, and nobody misses it.
    pub silent: bool,
}

/// The state of things when a connection has proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// The server's clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// How long messages stay.
    pub retention_ms: u64,
    /// How long commits stay.
    pub commit_retention_ms: u64,
    /// The newest entry of the inbox.
    pub head: Position,
    /// The highest send counter ever accepted from this device.
    pub accepted_counter: u64,
    /// Sends that may be without an answer.
    pub sends_in_flight_max: u32,
    /// Whether the digest of epochs differed.
    pub epochs_differ: bool,
    /// [`crate::epochs_digest`] of what the server has; `None` from a server that does not say.
    pub epochs_digest: Option<[u8; 32]>,
    /// Entries of the account's device log.
    pub log_entries: u64,
    /// One-time KeyPackages left of this device.
    pub key_packages_left: u32,
    /// Whether its last resort was given out, or there is none: then a new one is wanted.
    pub last_resort_used: bool,
    /// The device goes on from an older copy of its state: it asks to take over, or stops.
    pub stale: bool,
    /// Whether the server has another push target of the device than the Hello wants, or one where it wants none.
    pub push_differs: bool,
    /// What has happened to the account's phone number.
    pub phone: PhoneNotice,
}

/// What is left of a device's KeyPackages after somebody has claimed one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notice {
    /// One-time KeyPackages left.
    pub key_packages_left: u32,
    /// As of [`Ready`].
    pub last_resort_used: bool,
}

/// The answer to a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The send's counter.
    pub counter: u64,
    /// Stored, or why not.
    pub result: Result<Accepted, Refusal>,
}

/// A message that is on the server's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id, which holds the server's time; `None` for a repetition of one accepted long ago.
    pub message_id: Option<MessageId>,
    /// Its place in its conversation; 0 of a silent one.
    pub number: u64,
    /// Whether it had been accepted before.
    pub repeated: bool,
    /// Who in the conversation does not exist any more, and gets nothing.
    pub gone: Gone,
}

/// Accounts that do not exist any more: the first of them, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gone {
    named: [Option<AccountId>; SENT_GONE_MAX],
    /// How many there are beside those named.
    more: u32,
}

impl Gone {
    /// Those of which some are named, and so many more.
    #[must_use]
    pub fn new(accounts: &[AccountId], more: u32) -> Self {
        let mut gone = Self { more, ..Self::default() };
        for (slot, account) in gone.named.iter_mut().zip(accounts) {
            *slot = Some(*account);
        }
        let unnamed = accounts.len().saturating_sub(SENT_GONE_MAX);
        gone.more = gone.more.saturating_add(u32::try_from(unnamed).unwrap_or(u32::MAX));
        gone
    }

    /// Those that are named.
    pub fn named(&self) -> impl Iterator<Item = AccountId> {
        self.named.iter().flatten().copied()
    }

    /// How many there are beside those named.
    #[must_use]
    pub const fn more(&self) -> u32 {
        self.more
    }

    fn read(gone: &[Bytes], more: u32) -> Result<Self, PayloadError> {
        if gone.len() > SENT_GONE_MAX {
            return Err(PayloadError::TooLong("gone"));
        }
        let accounts = gone.iter().map(|account| id(account, "gone")).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(&accounts, more))
    }
}

impl ClientFrame {
    /// Reads a frame that came on the session stream of a server.
    ///
    /// # Errors
    /// It has no meaning there, or its payload is malformed.
    pub fn decode(frame: Frame) -> Result<Self, FrameContentError> {
        Ok(match frame.kind {
            FrameKind::Hello => Self::Hello(Hello::parse(frame.payload)?),
            FrameKind::Register => Self::Register(Register::read(frame.payload)?),
            FrameKind::Link => Self::Link(Link::read(frame.payload)?),
            FrameKind::LinkReply => Self::LinkReply(unproven::read_link_reply(frame.payload)?),
            FrameKind::Recover => Self::Recover(Recover::read(frame.payload)?),
            FrameKind::RequestCode => Self::RequestCode(Phone::read_request(frame.payload)?),
            FrameKind::Send => Self::Send(Send::read(frame.payload)?),
            FrameKind::Ack => Self::Ack(read_ack(frame.payload)?),
            other => return Err(FrameContentError::Unexpected(other)),
        })
    }
}

/// Writes a Hello frame from its signed payload ([`Hello::sign`]).
pub fn put_hello(signed: &[u8], out: &mut BytesMut) {
    gureum_wire::encode(FrameKind::Hello, signed, out);
}

/// Writes a Register frame.
pub fn put_register(register: &Register, out: &mut BytesMut) {
    let (phone, code, lock, findable) = register.phone.as_ref().map(PhoneProof::write).unwrap_or_default();
    let message = schema::Register {
        token: register.token.clone(),
        handle: register.handle.clone(),
        root_entry: register.root_entry.clone(),
        phone,
        code,
        lock,
        findable,
    };
    put(FrameKind::Register, &message, out);
}

/// Writes a Send frame.
pub fn put_send(send: &Send, out: &mut BytesMut) {
    let message = schema::Send {
        counter: send.counter,
        conversation: raw(send.conversation),
        epoch: send.epoch,
        ciphertext: send.ciphertext.clone(),
        silent: send.silent,
    };
    put(FrameKind::Send, &message, out);
}

/// Writes an Ack frame.
pub fn put_ack(ack: Position, out: &mut BytesMut) {
    put(FrameKind::Ack, &schema::Ack { seq: ack.seq, count: ack.count }, out);
}

impl ServerFrame {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Ready(ready) => put(FrameKind::Ready, &ready.write(), out),
            Self::Registered(Registered { account, device }) => {
                put(FrameKind::Registered, &schema::Registered { account: raw(account), device: raw(device) }, out);
            }
            Self::Sent(sent) => put(FrameKind::Sent, &sent.write(), out),
            Self::LinkAnswer(payload) => {
                put(FrameKind::LinkAnswer, &schema::LinkAnswer { payload: payload.clone() }, out);
            }
            Self::Linked(payload) => put(FrameKind::Linked, &schema::Linked { payload: payload.clone() }, out),
            Self::Recovering(recovering) => put(FrameKind::Recovering, &recovering.write(), out),
            Self::CodeSent(sent) => put(FrameKind::CodeSent, &sent.write(), out),
            Self::Refused(refusal) => {
                put(FrameKind::Refused, &schema::Refused { error: Some(refusal.write()) }, out);
            }
            Self::Drain { come_back_ms } => {
                put(FrameKind::Drain, &schema::Drain { come_back_ms: *come_back_ms }, out);
            }
            Self::Notice(Notice { key_packages_left, last_resort_used }) => {
                let (key_packages_left, last_resort_used) = (*key_packages_left, *last_resort_used);
                put(FrameKind::Notice, &schema::Notice { key_packages_left, last_resort_used }, out);
            }
            Self::PhoneNotice(notice) => put(FrameKind::PhoneNotice, &notice.write(), out),
        }
    }

    /// Reads a frame that came on the session stream of a client.
    ///
    /// # Errors
    /// It has no meaning there, or its payload is malformed.
    pub fn decode(frame: Frame) -> Result<Self, FrameContentError> {
        Ok(match frame.kind {
            FrameKind::Ready => Self::Ready(Ready::read(frame.payload)?),
            FrameKind::Registered => {
                let message = schema::Registered::decode(frame.payload).map_err(PayloadError::from)?;
                Self::Registered(Registered {
                    account: id(&message.account, "account")?,
                    device: id(&message.device, "device")?,
                })
            }
            FrameKind::Sent => Self::Sent(Sent::read(frame.payload)?),
            FrameKind::LinkAnswer => Self::LinkAnswer(unproven::read_link_answer(frame.payload)?),
            FrameKind::Linked => Self::Linked(unproven::read_linked(frame.payload)?),
            FrameKind::Recovering => Self::Recovering(Recovering::read(frame.payload)?),
            FrameKind::CodeSent => {
                let message = schema::CodeSent::decode(frame.payload).map_err(PayloadError::from)?;
                Self::CodeSent(CodeSent::read(&message)?)
            }
            FrameKind::Refused => {
                let message = schema::Refused::decode(frame.payload).map_err(PayloadError::from)?;
                Self::Refused(Refusal::read(message.error.ok_or(PayloadError::Missing("error"))?))
            }
            FrameKind::Drain => {
                let message = schema::Drain::decode(frame.payload).map_err(PayloadError::from)?;
                Self::Drain { come_back_ms: message.come_back_ms }
            }
            FrameKind::Notice => {
                let message = schema::Notice::decode(frame.payload).map_err(PayloadError::from)?;
                let schema::Notice { key_packages_left, last_resort_used } = message;
                Self::Notice(Notice { key_packages_left, last_resort_used })
            }
            FrameKind::PhoneNotice => Self::PhoneNotice(PhoneNotice::read(frame.payload)?),
            other => return Err(FrameContentError::Unexpected(other)),
        })
    }
}

impl Register {
    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Register::decode(payload)?;
        if message.handle.len() > HANDLE_BYTES_MAX {
            return Err(PayloadError::TooLong("handle"));
        }
        let has_none = message.phone.is_empty() && message.code.is_empty() && message.lock.is_empty();
        let phone = match has_none && !message.findable {
            true => None,
            false => Some(PhoneProof::read(&message.phone, &message.code, &message.lock, message.findable)?),
        };
        Ok(Self {
            token: bounded(message.token, TOKEN_BYTES_MAX, "token")?,
            handle: message.handle,
            root_entry: filled(message.root_entry, LOG_ENTRY_BYTES_MAX, "root entry")?,
            phone,
        })
    }
}

impl Send {
    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Send::decode(payload)?;
        if message.counter == 0 {
            return Err(PayloadError::Invalid("counter"));
        }
        Ok(Self {
            counter: message.counter,
            conversation: id(&message.conversation, "conversation")?,
            epoch: message.epoch,
            ciphertext: filled(message.ciphertext, CIPHERTEXT_BYTES_MAX, "ciphertext")?,
            silent: message.silent,
        })
    }
}

fn read_ack(payload: Bytes) -> Result<Position, PayloadError> {
    let message = schema::Ack::decode(payload)?;
    Ok(Position { seq: message.seq, count: message.count })
}

impl Ready {
    fn write(&self) -> schema::Ready {
        schema::Ready {
            server_time_ms: self.server_time_ms,
            retention_ms: self.retention_ms,
            commit_retention_ms: self.commit_retention_ms,
            head_seq: self.head.seq,
            head_count: self.head.count,
            accepted_counter: self.accepted_counter,
            sends_in_flight_max: self.sends_in_flight_max,
            epochs_differ: self.epochs_differ,
            log_entries: self.log_entries,
            key_packages_left: self.key_packages_left,
            last_resort_used: self.last_resort_used,
            stale: self.stale,
            epochs_digest: self.epochs_digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
            push_differs: self.push_differs,
            phone_moved_ms: self.phone.moved_ms,
            phone_tried_ms: self.phone.tried_ms,
        }
    }

    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Ready::decode(payload)?;
        let epochs_digest = match message.epochs_digest.len() {
            0 => None,
            _ => Some(fixed(&message.epochs_digest, "epochs digest")?),
        };
        Ok(Self {
            server_time_ms: message.server_time_ms,
            retention_ms: message.retention_ms,
            commit_retention_ms: message.commit_retention_ms,
            head: Position { seq: message.head_seq, count: message.head_count },
            accepted_counter: message.accepted_counter,
            sends_in_flight_max: message.sends_in_flight_max,
            epochs_differ: message.epochs_differ,
            epochs_digest,
            log_entries: message.log_entries,
            key_packages_left: message.key_packages_left,
            last_resort_used: message.last_resort_used,
            stale: message.stale,
            push_differs: message.push_differs,
            phone: PhoneNotice { moved_ms: message.phone_moved_ms, tried_ms: message.phone_tried_ms },
        })
    }
}

impl Sent {
    fn write(&self) -> schema::Sent {
        let result = match &self.result {
            Ok(accepted) => schema::sent::Result::Accepted(schema::Accepted {
                message_id: accepted.message_id.map_or_else(Bytes::new, raw),
                number: accepted.number,
                durability: schema::Durability::Fsync.into(),
                repeated: accepted.repeated,
                gone: accepted.gone.named().map(raw).collect(),
                gone_more: accepted.gone.more(),
            }),
            Err(refusal) => schema::sent::Result::Refused(refusal.clone().cut(SENT_DETAIL_BYTES_MAX).write()),
        };
        schema::Sent { counter: self.counter, result: Some(result) }
    }

    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let message = schema::Sent::decode(payload)?;
        let result = match message.result.ok_or(PayloadError::Missing("result"))? {
            schema::sent::Result::Accepted(accepted) => {
                if accepted.durability() != schema::Durability::Fsync {
                    return Err(PayloadError::Invalid("durability"));
                }
                let message_id = match accepted.message_id.len() {
                    0 => None,
                    _ => Some(id(&accepted.message_id, "message id")?),
                };
                let gone = Gone::read(&accepted.gone, accepted.gone_more)?;
                Ok(Accepted { message_id, number: accepted.number, repeated: accepted.repeated, gone })
            }
            schema::sent::Result::Refused(error) => Err(Refusal::read(error).cut(SENT_DETAIL_BYTES_MAX)),
        };
        Ok(Self { counter: message.counter, result })
    }
}

pub(crate) fn put(kind: FrameKind, message: &impl Message, out: &mut BytesMut) {
    gureum_wire::encode_with(kind, message.encoded_len(), out, |out| {
        message.encode(out).expect("a BytesMut grows as far as it must");
    });
}
