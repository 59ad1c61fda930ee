//! The identity in an MLS leaf: a basic credential that names a device and the log entry that added it.

use crate::{AccountId, DeviceId};

/// The length of a credential's identity: version, account, device, log entry.
pub const CREDENTIAL_BYTES: usize = 1 + 16 + 16 + 8;

const VERSION: u8 = 1;

/// Who a leaf says it is. Worth nothing until the account's device log confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafIdentity {
    /// The person.
    pub account: AccountId,
    /// The installation.
    pub device: DeviceId,
    /// The index of the device-log entry that added the device.
    pub log_entry: u64,
}

/// An identity that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a leaf's credential is not one of this protocol")]
pub struct CredentialError;

impl LeafIdentity {
    /// The identity bytes of the basic credential.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CREDENTIAL_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.account.as_bytes());
        bytes.extend_from_slice(self.device.as_bytes());
        bytes.extend_from_slice(&self.log_entry.to_be_bytes());
        bytes
    }

    /// Reads the identity bytes of a basic credential.
    ///
    /// # Errors
    /// Another length or another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialError> {
        let (version, rest) = bytes.split_first().ok_or(CredentialError)?;
        let (account, rest) = rest.split_first_chunk::<16>().ok_or(CredentialError)?;
        let (device, rest) = rest.split_first_chunk::<16>().ok_or(CredentialError)?;
        let entry = <[u8; 8]>::try_from(rest).map_err(|_| CredentialError)?;
        if *version != VERSION {
            return Err(CredentialError);
        }
        Ok(Self {
            account: AccountId::from_bytes(*account),
            device: DeviceId::from_bytes(*device),
            log_entry: u64::from_be_bytes(entry),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_other_lengths_and_versions() {
        let identity = LeafIdentity {
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([2; 16]),
            log_entry: 3,
        };
        let mut bytes = identity.to_bytes();
        assert_eq!(LeafIdentity::parse(&bytes), Ok(identity));
        assert_eq!(LeafIdentity::parse(&bytes[1..]), Err(CredentialError));
        bytes[0] = 2;
        assert_eq!(LeafIdentity::parse(&bytes), Err(CredentialError));
    }
}
