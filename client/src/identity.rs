//! Who this device is: the keys and names that a home holds.

use std::fmt;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, DeviceId, Handle, ServerUrl};
use zeroize::Zeroizing;

/// What a new home begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProfile {
    /// The server; a token in it is not kept.
    pub server: ServerUrl,
    /// A name by which a person knows the device.
    pub device_name: String,
}

/// What a registration sends and shows.
pub struct RegistrationDraft {
    /// Entry 0 of the device log, signed: for `Register`. The same again after a lost answer.
    pub root_entry: Bytes,
    /// The handle, where the server has said yes before and the words were perhaps not seen.
    pub handle: Option<Handle>,
    /// The recovery key as twelve words: to be shown once, after the server's yes.
    pub recovery_words: Zeroizing<String>,
}

impl fmt::Debug for RegistrationDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationDraft").field("root_entry", &self.root_entry.len()).finish_non_exhaustive()
    }
}

/// A registered device.
#[derive(Clone)]
pub struct Identity {
    /// The account's handle.
    pub handle: Handle,
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// A name by which a person knows the device.
    pub device_name: String,
    /// The server, without a token.
    pub server: ServerUrl,
    /// The key that proves the device to the server.
    pub proof: SigningKey,
    /// The device-log entry that added the device.
    pub log_entry: u64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("handle", &self.handle)
            .field("account", &self.account)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
