//! The ids of the domain: sixteen bytes each, one type each, so that none can stand in for another.

use std::fmt;

use data_encoding::HEXLOWER;

/// The length of every id, in bytes.
pub const ID_BYTES: usize = 16;

/// Bytes or text that are no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An id has 16 bytes.
    #[error("an id has 16 bytes, this has {0}")]
    Length(usize),
    /// The text form is 32 lower-case hexadecimal digits.
    #[error("an id is written as 32 lower-case hexadecimal digits")]
    Text,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Wraps sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The sixteen bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The sixteen bytes, owned.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; ID_BYTES] {
                self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                <[u8; ID_BYTES]>::try_from(bytes).map(Self).map_err(|_| IdError::Length(bytes.len()))
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError::Text)?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id! {
    /// An account: the first 16 bytes of a labelled hash of entry 0 of its device log.
    AccountId
}
id! {
    /// A device: the first 16 bytes of a labelled hash of its two public keys.
    DeviceId
}
id! {
    /// A conversation: 16 random bytes chosen by its creator, and the group id of its MLS group.
    ConversationId
}
id! {
    /// A message, as the server names it: a UUIDv7 (RFC 9562 §5.7), whose first 48 bits are the server's time.
    MessageId
}
id! {
    /// A link between a device that waits and one that answers: 16 bytes of a labelled hash of the code.
    LinkId
}
id! {
    /// An invite to register: 16 random bytes chosen by the server.
    InviteId
}
id! {
    /// A place in the life of a device's state: 16 random bytes chosen by the device, or zeros before the first.
    LifeToken
}

id! {
    /// The digest of a push target, by which a device and its server see that they mean the same one.
    PushDigest
}

/// The first half of a hash: how ids follow from what they are of.
pub(crate) fn first_half(hash: &blake3::Hash) -> [u8; ID_BYTES] {
    let mut half = [0; ID_BYTES];
    half.copy_from_slice(hash.as_bytes().split_at(ID_BYTES).0);
    half
}

impl MessageId {
    /// The UUIDv7 of a time and 74 bits of entropy or counter (the low 74 bits of `tail`).
    #[must_use]
    pub fn new(time_ms: u64, tail: u128) -> Self {
        let time = u128::from(time_ms & ((1 << 48) - 1)) << 80;
        let version = 0x7_u128 << 76;
        let rand_a = ((tail >> 62) & 0xfff) << 64;
        let variant = 0b10_u128 << 62;
        let rand_b = tail & ((1 << 62) - 1);
        Self((time | version | rand_a | variant | rand_b).to_be_bytes())
    }

    /// The server's time in it, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        u64::try_from(u128::from_be_bytes(self.0) >> 80).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_a_uuid_v7_that_holds_its_time() {
        let id = MessageId::new(0x0123_4567_89ab, u128::MAX);
        assert_eq!(id.to_string(), "0123456789ab7fffbfffffffffffffff");
        assert_eq!(id.time_ms(), 0x0123_4567_89ab);
        assert_eq!(MessageId::new(5, 0).to_string(), "00000000000570008000000000000000");
    }

    #[test]
    fn message_ids_sort_by_time_then_tail() {
        assert!(MessageId::new(5, 1 << 73) < MessageId::new(6, 0));
        assert!(MessageId::new(5, 1) < MessageId::new(5, 1 << 62));
    }

    #[test]
    fn text_and_bytes_round_trip_and_refuse_other_lengths() {
        let id = DeviceId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<DeviceId>(), Ok(id));
        assert_eq!("07".parse::<DeviceId>(), Err(IdError::Length(1)));
        assert_eq!("Z".parse::<DeviceId>(), Err(IdError::Text));
        assert_eq!(DeviceId::try_from([0_u8; 17].as_slice()), Err(IdError::Length(17)));
    }
}
