//! Every code that one end can show the other: of a connection that closes, a stream that is reset, a request
//! that is refused. One table, shared by both ends.

/// Whose fault an error is, and so what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: the end of a connection in the ordinary way.
    None,
    /// The client sent what it should not have; the same again fails again.
    Client,
    /// The world changed between reading and writing, or is short of something; try again after a look.
    World,
    /// The server has a bug.
    Server,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $fault:ident, $text:literal;)*) => {
        /// A code, its number on the wire, whose fault it is, and a sentence for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code of a number, if it is one of ours.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// What happened, for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The name in the table of docs/protocol.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    /// The connection ends because its work is done.
    Done = 0, None, "done";
    /// A bug in the server.
    Internal = 1, Server, "the server failed; its log says why";
    /// The server is stopping.
    Stopping = 2, World, "the server is stopping; come back later";
    /// A newer subscription of the same device took over.
    Displaced = 3, None, "a newer connection of this device took over";
    /// Too many connections or requests from here.
    RateLimited = 4, World, "too many at once; try again later";
    /// The peer did not read what it asked for.
    TooSlow = 5, Client, "the peer does not read what is sent to it";
    /// The disk is full or failed: nothing can be accepted for now.
    Unavailable = 6, World, "the server cannot store anything now; try again later";

    /// A frame with a varint that is not the shortest.
    FrameMalformed = 16, Client, "a frame is malformed";
    /// A frame longer than its type allows.
    FrameTooLong = 17, Client, "a frame is longer than its type allows";
    /// A frame of a type that may not be ignored.
    FrameUnknown = 18, Client, "a frame has an unknown type";
    /// A stream that ended inside a frame.
    FrameTruncated = 19, Client, "a stream ended inside a frame";
    /// A known frame at a moment or on a stream where it has no meaning.
    FrameUnexpected = 20, Client, "a frame came where it has no meaning";
    /// A payload that is not its protobuf message, or breaks a bound of it.
    PayloadMalformed = 21, Client, "a frame's payload is malformed";
    /// An ack of what was not delivered on this connection.
    AckInvalid = 22, Client, "an ack names what was not delivered on this connection";

    /// The connection proved nothing in time.
    ProofTimeout = 32, Client, "the connection did not prove itself in time";
    /// The signature of the Hello does not hold for this connection.
    ProofInvalid = 33, Client, "the proof does not hold for this connection";
    /// No such account, or the account has no such device.
    DeviceUnknown = 34, Client, "this server does not know the device; register it first";
    /// The account's log has revoked the device.
    DeviceRevoked = 35, Client, "this device was revoked";
    /// The protocol version is not spoken here.
    VersionUnsupported = 36, Client, "this protocol version is not spoken here; update the client";
    /// Another copy of the device's state has taken over.
    DeviceCopied = 37, Client, "this device was copied and the copy goes on; link this one anew";

    /// The invite is not one of this server's, or has expired.
    InviteInvalid = 48, Client, "the invite is not valid here or has expired; ask for a new one";
    /// The invite was used as often as it may be.
    InviteUsed = 49, Client, "the invite has been used up; ask for a new one";
    /// The handle belongs to somebody.
    HandleTaken = 50, Client, "the handle is taken; choose another";
    /// The handle is not well formed.
    HandleInvalid = 51, Client, "a handle has 2 to 32 of a-z 0-9 . _ - and begins with a letter";
    /// A device log entry that does not follow from the log.
    LogInvalid = 52, Client, "the device log entry does not follow from the log";
    /// No account here has this recovery key.
    RecoveryUnknown = 53, Client, "no account of this server has this recovery key";
    /// The code is not the one that was sent to the number, or is none any more.
    CodeInvalid = 54, Client, "the code is wrong or has expired; give the right one, or ask for a new one";
    /// The phone number is none, or none that is sent codes.
    PhoneInvalid = 55, Client, "this is no phone number that can get a code; write it with + and the country code";
    /// The account that has the number has locked it.
    PhoneLocked = 56, World, "the number has a registration lock; give its PIN or wait";
    /// Accounts are made for phone numbers alone.
    PhoneRequired = 57, Client, "registering here needs a phone number";
    /// Nothing is done with phone numbers.
    PhoneUnavailable = 58, Client, "this server does nothing with phone numbers; ask its operator, or use handles and invites";
    /// Too many wrong PINs: the registration lock takes none for a while.
    PhoneLockClosed = 59, World, "too many wrong PINs were tried; for now this number's registration lock takes none";

    /// What was asked for is not here.
    NotFound = 64, Client, "not found";
    /// The sender is not in the conversation.
    NotMember = 65, Client, "this device is not in the conversation";
    /// The message is of an epoch too far behind: encrypt it again.
    EpochStale = 66, World, "the message is of an epoch too far behind; take the commits and encrypt it again";
    /// Another commit ended the epoch first.
    EpochConflict = 67, World, "another commit came first; take it and try again";
    /// The commit breaks RFC 9420 or a rule of membership.
    CommitInvalid = 68, Client, "the commit is not valid";
    /// The commit log no longer reaches back so far.
    CommitsGone = 69, World, "the commit log no longer reaches back so far; rejoin";
    /// A KeyPackage that is not the device's, or not valid.
    KeyPackageInvalid = 70, Client, "a KeyPackage is not valid for this device";
    /// A device of the account has no KeyPackage left.
    KeyPackagesExhausted = 71, World, "no device of the account has a KeyPackage left; one must connect first";
    /// More sends in flight, more devices, more of anything than allowed.
    LimitReached = 72, Client, "a limit is reached";
    /// A revoked device, or an account that has left, still has a leaf: what is sent now, it could read.
    RemovalPending = 73, World, "who is to be removed is still in the conversation; remove them and send again";
    /// No device waits under this code, or another has answered it.
    LinkGone = 74, World, "no device waits to be linked with this code; show a new one";
    /// The account was deleted.
    AccountGone = 75, Client, "the account does not exist any more";
    /// The operator has not set the push service up.
    PushUnavailable = 76, Client, "this server does not use that push service";
    /// The address, or a key in it, cannot be used.
    PushTargetInvalid = 77, Client, "the push target is not valid";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_do_not_repeat() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(u64::from(code.number())), Some(*code));
        }
        assert_eq!(Code::from_number(9_999), None);
    }
}
