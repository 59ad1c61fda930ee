//! The types of frames, their numbers and how long each may be.

use std::fmt;

use bytes::Bytes;

use crate::limits;

/// One frame: its type and its payload, one protobuf message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// The payload, at most [`FrameKind::payload_bytes_max`] bytes. It may be a slice of the chunk that it came
    /// in, and then keeps that whole chunk alive: copy what is to be kept for long.
    pub payload: Bytes,
}

/// Tells the payload's length and not its bytes, which may be a code, a token or somebody's message.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("kind", &self.kind).field("payload_bytes", &self.payload.len()).finish()
    }
}

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $limit:ident;)*) => {
        /// A type of frame that this version knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FrameKind {
            /// Every type, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number that stands for this type on the wire.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The type of that number, if this version knows it.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The longest payload that a frame of this type may have; [`limits`] gives the reasons.
            #[must_use]
            pub const fn payload_bytes_max(self) -> usize {
                match self {
                    $(Self::$name => limits::$limit,)*
                }
            }
        }
    };
}

frame_kinds! {
    /// Client, first frame of its session: who it is, with proof.
    Hello = 0x01, HELLO_BYTES_MAX;
    /// Server: the Hello is accepted.
    Ready = 0x02, READY_BYTES_MAX;
    /// Client: store and deliver this message.
    Send = 0x03, SEND_BYTES_MAX;
    /// Server: what became of a Send.
    Sent = 0x04, SENT_BYTES_MAX;
    /// Client: everything up to here is taken.
    Ack = 0x05, ACK_BYTES_MAX;
    /// Client, instead of Hello: make an account.
    Register = 0x06, REGISTER_BYTES_MAX;
    /// Server: the account is made.
    Registered = 0x07, REGISTERED_BYTES_MAX;
    /// Server: a request is refused, with the code and when to try again.
    Refused = 0x08, REFUSED_BYTES_MAX;
    /// Server: this node is about to stop; come back then.
    Drain = 0x09, DRAIN_BYTES_MAX;
    /// Client, instead of Hello: this device waits to be linked to an account.
    Link = 0x0a, LINK_BYTES_MAX;
    /// Server: a device of the account answers the code; sealed for the device that waits.
    LinkAnswer = 0x0b, LINK_ANSWER_BYTES_MAX;
    /// Client: the countersignature that the answer asks for; sealed for the device that answered.
    LinkReply = 0x0c, LINK_REPLY_BYTES_MAX;
    /// Server: the account's log has the device; with what the account's device hands over, sealed.
    Linked = 0x0d, LINKED_BYTES_MAX;
    /// Client, instead of Hello: bring an account back by its recovery key.
    Recover = 0x0e, RECOVER_BYTES_MAX;
    /// Server: the account of a recovery key, and where its log stands.
    Recovering = 0x0f, RECOVERING_BYTES_MAX;
    /// Server, delivery stream: one entry of the inbox.
    Envelope = 0x10, ENVELOPE_BYTES_MAX;
    /// Server, delivery stream: these positions were dropped untaken.
    Gap = 0x11, GAP_BYTES_MAX;
    /// Server, delivery stream: nothing older is left; what follows is live.
    CaughtUp = 0x12, CAUGHT_UP_BYTES_MAX;
    /// Client, instead of Hello: send a code to a phone number.
    RequestCode = 0x13, REQUEST_CODE_BYTES_MAX;
    /// Server: a code is on its way.
    CodeSent = 0x14, CODE_SENT_BYTES_MAX;
    /// Client, a stream of its own: any other request.
    Request = 0x20, REQUEST_BYTES_MAX;
    /// Server: the answer to a Request.
    Response = 0x21, RESPONSE_BYTES_MAX;
    /// Server: the device's KeyPackages run low. Ignorable: who skips it learns of that on its next connection.
    Notice = 0x1000, NOTICE_BYTES_MAX;
    /// Server: the account's phone number has moved, or somebody has tried. Ignorable, as the Notice is.
    PhoneNotice = 0x1001, PHONE_NOTICE_BYTES_MAX;
}

/// What a type number means to a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeClass {
    Known(FrameKind),
    Ignorable,
    Unknown,
}

impl TypeClass {
    pub(crate) fn of(number: u64) -> Self {
        match FrameKind::from_number(number) {
            Some(kind) => Self::Known(kind),
            None if limits::IGNORABLE_TYPES.contains(&number) => Self::Ignorable,
            None => Self::Unknown,
        }
    }
}

const _: () = {
    // `limits::FRAME_HEADER_BYTES_MAX` counts on two bytes for the type, and `PAYLOAD_BYTES_MAX` on being the longest.
    let mut rest = FrameKind::ALL;
    while let [kind, tail @ ..] = rest {
        assert!(kind.number() < 16_384);
        assert!(kind.payload_bytes_max() <= limits::PAYLOAD_BYTES_MAX);
        rest = tail;
    }
};
