//! Authority: the value that says a connection is a device's. It comes from one function, and nothing acts for a
//! device without it.

use ed25519_dalek::VerifyingKey;
use gureum_proto::{AccountId, Code, DeviceId, EXPORTER_BYTES, Hello, PhoneNotice, Position, ProofError, PushDigest};

use crate::store::record::LifeRecord;

/// A device that has proven itself on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Authenticated {
    account: AccountId,
    device: DeviceId,
}

/// What the server's directory has of a device that wants to prove itself.
#[derive(Debug, Clone)]
pub struct DeviceFacts {
    /// The key that its account's log gives it.
    pub proof_key: VerifyingKey,
    /// Whether the log has revoked it.
    pub is_revoked: bool,
    /// Whether its account was deleted.
    pub is_gone: bool,
    /// Entries of the account's log.
    pub log_entries: u64,
    /// The newest entry of the inbox.
    pub head: Position,
    /// How far the device has acked.
    pub cursor: Position,
    /// The highest send counter accepted from it.
    pub accepted_counter: u64,
    /// Where its life stands.
    pub life: LifeRecord,
    /// One-time KeyPackages left of it.
    pub key_packages_left: u32,
    /// Whether its last resort was given out, or there is none.
    pub last_resort_used: bool,
    /// The digest over the account's conversations and their epochs.
    pub epochs_digest: [u8; 32],
    /// Of the push target that the server has of it.
    pub push_digest: Option<PushDigest>,
    /// What has happened to the account's phone number.
    pub phone: PhoneNotice,
}

impl Authenticated {
    /// Confirms a Hello: the one way to authority.
    ///
    /// # Errors
    /// The code that the client is told: revoked, its account is gone, or the proof does not hold.
    pub(super) fn prove(hello: &Hello, facts: &DeviceFacts, exporter: &[u8; EXPORTER_BYTES]) -> Result<Self, Code> {
        let claim = hello.verify(&facts.proof_key, exporter).map_err(|error| match error {
            ProofError::Version => Code::VersionUnsupported,
            ProofError::Signature => Code::ProofInvalid,
        })?;
        if facts.is_gone {
            return Err(Code::AccountGone);
        }
        if facts.is_revoked {
            return Err(Code::DeviceRevoked);
        }
        Ok(Self { account: claim.account, device: claim.device })
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    #[cfg(test)]
    pub(crate) const fn for_test(account: AccountId, device: DeviceId) -> Self {
        Self { account, device }
    }
}
