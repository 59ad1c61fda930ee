//! The only module of the server that knows MLS: it checks KeyPackages and follows the public state of groups.
//!
//! Values in, values out, and no state: a caller passes the GroupInfo and the tree of an epoch and gets those of
//! the next. Everything here takes from a fraction of a millisecond to some (4.7 ms at 1,000 leaves): call it
//! where blocking is allowed.

mod commit;
mod group;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId, DeviceLog, LeafIdentity};
use openmls::credentials::{BasicCredential, Credential};
use openmls::framing::{MlsMessageBodyIn, MlsMessageIn};
use openmls::prelude::tls_codec::DeserializeBytes;
use openmls::prelude::{Ciphersuite, ProtocolVersion};
use openmls_rust_crypto::RustCrypto;

pub(crate) use commit::{CommitError, Submitted, apply_commit};
pub(crate) use group::open_group;

/// The one suite of this version of the protocol, 0x0001.
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

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
    /// The group id is not the conversation's id.
    #[error("the group id is not the id of the conversation")]
    Conversation,
    /// A leaf that the device logs do not confirm.
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

/// Why a leaf may not be in a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeafError {
    /// The credential is not one of this protocol.
    #[error("a leaf's credential is not one of this protocol")]
    Credential,
    /// It names another account or device than the one it should.
    #[error("a leaf names another device than the one it stands for")]
    OtherDevice,
    /// The account's log has no such device, or another key or entry for it, or no such account is known.
    #[error("a leaf's device {0} is not in its account's log with that key")]
    NotLogged(DeviceId),
    /// The account's log has revoked the device.
    #[error("a leaf's device {0} was revoked")]
    Revoked(DeviceId),
    /// A device has two leaves.
    #[error("device {0} has two leaves")]
    Twice(DeviceId),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupMember {
    /// Who it says it is.
    pub(crate) identity: LeafIdentity,
    /// Its index in the tree.
    pub(crate) leaf: u32,
    /// The key that signs for it, Ed25519.
    pub(crate) mls_key: [u8; 32],
}

/// Checks a KeyPackage that a device hands in for itself.
///
/// # Errors
/// It is no valid KeyPackage of our suite, or not of exactly this device as the account's log has it.
pub(crate) fn check_key_package(
    bytes: &[u8],
    account: AccountId,
    device: DeviceId,
    log: &DeviceLog,
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
    let leaf = package.leaf_node();
    let (identity, mls_key) = leaf_identity(leaf.credential(), leaf.signature_key().as_slice())?;
    if (identity.account, identity.device) != (account, device) || log.account() != account {
        return Err(LeafError::OtherDevice.into());
    }
    check_leaf(&identity, &mls_key, Some(log))?;
    let not_after_ms = package.life_time().not_after().saturating_mul(1_000);
    if not_after_ms <= now_ms || not_after_ms > now_ms.saturating_add(KEY_PACKAGE_LIFE_MS_MAX) {
        return Err(MlsError::Lifetime);
    }
    Ok(KeyPackageInfo { hash: *blake3::hash(bytes).as_bytes(), not_after_ms })
}

/// Checks that each leaf is an active device of its account's log, with the key and the entry that stand there,
/// and that no device has two.
///
/// # Errors
/// The first leaf of which that is not true; an account without a log has no devices.
pub(crate) fn check_members(members: &[GroupMember], logs: &BTreeMap<AccountId, DeviceLog>) -> Result<(), LeafError> {
    for member in members {
        check_leaf(&member.identity, &member.mls_key, logs.get(&member.identity.account))?;
    }
    check_distinct(members)
}

/// The accounts that have a leaf.
#[must_use]
pub(crate) fn accounts_of(members: &[GroupMember]) -> BTreeSet<AccountId> {
    members.iter().map(|member| member.identity.account).collect()
}

fn check_distinct(members: &[GroupMember]) -> Result<(), LeafError> {
    let mut seen = BTreeSet::new();
    match members.iter().find(|member| !seen.insert(member.identity.device)) {
        Some(member) => Err(LeafError::Twice(member.identity.device)),
        None => Ok(()),
    }
}

fn check_leaf(identity: &LeafIdentity, mls_key: &[u8; 32], log: Option<&DeviceLog>) -> Result<(), LeafError> {
    let missing = LeafError::NotLogged(identity.device);
    let logged = log.and_then(|log| log.device(identity.device)).ok_or(missing.clone())?;
    if logged.keys.mls() != mls_key || logged.added_at != identity.log_entry {
        return Err(missing);
    }
    if logged.revoked_at.is_some() { Err(LeafError::Revoked(identity.device)) } else { Ok(()) }
}

fn leaf_identity(credential: &Credential, key: &[u8]) -> Result<(LeafIdentity, [u8; 32]), LeafError> {
    let basic = BasicCredential::try_from(credential.clone()).map_err(|_| LeafError::Credential)?;
    let identity = LeafIdentity::parse(basic.identity()).map_err(|_| LeafError::Credential)?;
    let key = <[u8; 32]>::try_from(key).map_err(|_| LeafError::Credential)?;
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
