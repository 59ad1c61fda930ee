//! The only module of the server that knows MLS: it checks KeyPackages and follows the public state of groups.
//!
//! A caller passes the GroupInfo and the tree of an epoch to be read into a [`FollowedGroup`], against which commits and
//! statements are judged, and gets those of the next epoch. What was verified of busy conversations is kept beside
//! ([`Followed`]). To read and verify a group takes some 50 µs for each of its leaves: call everything here where blocking
//! is allowed.

mod commit;
mod followed;
mod group;
mod leave;
mod nowhere;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use gureum_proto::membership::{Leaf, Logs, Verdict, judge_leaf};
use gureum_proto::{AccountId, DeviceId, GROUP_EXTENSION, LeafIdentity};
use openmls::credentials::{BasicCredential, Credential};
use openmls::framing::{MlsMessageBodyIn, MlsMessageIn};
use openmls::prelude::tls_codec::{DeserializeBytes, VLBytes};
use openmls::prelude::{Ciphersuite, ExtensionType, LeafNode, ProtocolVersion};
use openmls_rust_crypto::RustCrypto;

pub(crate) use commit::{CommitError, Submitted, apply_commit};
pub(crate) use followed::{Followed, FollowedGroup, GroupPlace, StoredGroup};
pub(crate) use group::{GroupView, open_group};
pub(crate) use leave::check_leave;

/// The one suite of this version of the protocol, 0x0001.
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// What holds a group's state in its context, and what every leaf says that it supports.
const GROUP_EXTENSION_TYPE: ExtensionType = ExtensionType::Unknown(GROUP_EXTENSION);

/// The longest time from now that a KeyPackage may be valid for: 84 days, and one for clocks that differ.
const KEY_PACKAGE_LIFE_MS_MAX: u64 = 85 * 24 * 60 * 60 * 1_000;

/// Bytes that MLS or our rules for it refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MlsError {
    /// Not the MLS object that belongs here, or not the whole of one.
    #[error("these bytes are no {0}")]
    Malformed(&'static str),
    /// Another cipher suite than the conversation's.
    #[error("the cipher suite is not 0x0001")]
    Suite,
    /// RFC 9420 refuses it.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The object.
        what: &'static str,
        /// What OpenMLS says of it.
        why: String,
    },
    /// The end of its life has passed, or is too far away.
    #[error("the KeyPackage's lifetime ends in the past or more than 85 days ahead")]
    Lifetime,
    /// Its leaf does not support the extension that holds a group's state: it could be in no group.
    #[error("the KeyPackage does not support the extension of groups")]
    Capabilities,
    /// The context has other extensions than those of a group, or an unreadable state.
    #[error("the group's extensions are not those of a group: {0}")]
    Extensions(String),
    /// The group id is not the conversation's id.
    #[error("the group id is not the id of the conversation")]
    Conversation,
    /// A leaf's credential is not one of this protocol.
    #[error("a leaf's credential is not one of this protocol")]
    Credential,
    /// A leaf names another account or device than the one it should.
    #[error("a leaf names another device than the one it stands for")]
    OtherDevice,
    /// The rule of membership refuses it.
    #[error("{0}")]
    Membership(String),
}

/// A KeyPackage that the directory may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPackageInfo {
    /// BLAKE3 of the bytes as received: one KeyPackage is kept once.
    pub(crate) hash: [u8; 32],
    /// The end of its lifetime.
    pub(crate) not_after_ms: u64,
}

/// A device's leaf in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    /// Who it says it is.
    pub(crate) identity: LeafIdentity,
    /// Its index in the tree.
    pub(crate) leaf: u32,
    /// The key that signs for it, Ed25519.
    pub(crate) mls_key: [u8; 32],
    /// The key that secrets are encrypted to for it.
    pub(crate) leaf_key: Vec<u8>,
}

/// Checks a KeyPackage that a device hands in for itself.
///
/// # Errors
/// It is no valid KeyPackage of our suite, or not of exactly this device as the account's log has it.
pub(crate) fn check_key_package(
    bytes: &[u8],
    account: AccountId,
    device: DeviceId,
    logs: &dyn Logs,
    now_ms: u64,
) -> Result<KeyPackageInfo, MlsError> {
    let MlsMessageBodyIn::KeyPackage(package) = read_message(bytes, "KeyPackage")?.extract() else {
        return Err(MlsError::Malformed("KeyPackage"));
    };
    let package = package
        .validate(&RustCrypto::default(), ProtocolVersion::Mls10)
        .map_err(|error| MlsError::Invalid { what: "the KeyPackage", why: error.to_string() })?;
    if package.ciphersuite() != SUITE {
        return Err(MlsError::Suite);
    }
    let leaf = read_leaf(package.leaf_node())?;
    if leaf.identity.is_none_or(|identity| (identity.account, identity.device) != (account, device)) {
        return Err(MlsError::OtherDevice);
    }
    allowed(judge_leaf(&leaf, logs))?;
    if !package.leaf_node().capabilities().extensions().contains(&GROUP_EXTENSION_TYPE) {
        return Err(MlsError::Capabilities);
    }
    let not_after_ms = package.life_time().not_after().saturating_mul(1_000);
    if not_after_ms <= now_ms || not_after_ms > now_ms.saturating_add(KEY_PACKAGE_LIFE_MS_MAX) {
        return Err(MlsError::Lifetime);
    }
    Ok(KeyPackageInfo { hash: *blake3::hash(bytes).as_bytes(), not_after_ms })
}

impl GroupMember {
    /// The leaf, as the rule of membership judges it.
    #[must_use]
    pub(crate) fn as_leaf(&self) -> Leaf {
        Leaf { identity: Some(self.identity), mls_key: self.mls_key.to_vec(), leaf_key: self.leaf_key.clone() }
    }
}

/// The server has whole logs: none has grown by what would change a verdict.
pub(crate) fn allowed(verdict: Verdict) -> Result<(), MlsError> {
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::NeedsLog { why, .. } | Verdict::Refused(why) => Err(MlsError::Membership(why)),
    }
}

/// A leaf that is new.
fn read_leaf(node: &LeafNode) -> Result<Leaf, MlsError> {
    let (identity, mls_key) = leaf_identity(node.credential(), node.signature_key().as_slice())?;
    // OpenMLS does not show this key but in its written form, a vector.
    let leaf_key = VLBytes::tls_deserialize_exact_bytes(&write(node.encryption_key())?)
        .map_err(|_| MlsError::Malformed("encryption key of a leaf"))?;
    Ok(Leaf { identity: Some(identity), mls_key: mls_key.to_vec(), leaf_key: leaf_key.into() })
}

fn leaf_identity(credential: &Credential, key: &[u8]) -> Result<(LeafIdentity, [u8; 32]), MlsError> {
    let basic = BasicCredential::try_from(credential.clone()).map_err(|_| MlsError::Credential)?;
    let identity = LeafIdentity::parse(basic.identity()).map_err(|_| MlsError::Credential)?;
    let key = <[u8; 32]>::try_from(key).map_err(|_| MlsError::Credential)?;
    Ok((identity, key))
}

/// Reads one MLSMessage and nothing after it.
fn read_message(bytes: &[u8], what: &'static str) -> Result<MlsMessageIn, MlsError> {
    MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| MlsError::Malformed(what))
}

/// Writes an MLS structure.
fn write(value: &impl openmls::prelude::tls_codec::Serialize) -> Result<Bytes, MlsError> {
    let bytes = value.tls_serialize_detached();
    bytes.map(Bytes::from).map_err(|_| MlsError::Malformed("writable MLS structure"))
}
