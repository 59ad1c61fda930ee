//! How every group of ours is set: suite, framing, padding, and how much of the past stays readable.

use gureum_proto::LeafIdentity;
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, Lifetime, MlsGroupCreateConfig, MlsGroupJoinConfig,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, SenderRatchetConfiguration,
};

use crate::limits::{FORWARD_DISTANCE_MAX, KEY_PACKAGE_LIFETIME_S, OUT_OF_ORDER_MAX, PADDING_BYTES, PAST_EPOCHS_MAX};

/// Suite 0x0001 of RFC 9420 §17.1.
pub(super) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub(super) fn lifetime() -> Lifetime {
    Lifetime::new(KEY_PACKAGE_LIFETIME_S)
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MAX, FORWARD_DISTANCE_MAX)
}

/// The tree travels in the Welcome, which is sealed to the joiners; a GroupInfo goes without, since the server has
/// the tree beside it.
pub(super) fn create_config() -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .lifetime(lifetime())
        .build()
}

pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .build()
}

pub(super) fn credential(identity: LeafIdentity, mls_key: &[u8]) -> CredentialWithKey {
    CredentialWithKey {
        credential: BasicCredential::new(identity.to_bytes()).into(),
        signature_key: mls_key.to_vec().into(),
    }
}
