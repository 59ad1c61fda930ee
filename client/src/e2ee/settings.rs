//! How every group of ours is set: suite, framing, padding, how much of the past stays readable, and what its context
//! says.

use gureum_proto::{GROUP_EXTENSION, GroupState, LeafIdentity};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, Extension, ExtensionType, Extensions, GroupContext,
    Lifetime, MlsGroupCreateConfig, MlsGroupJoinConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    RequiredCapabilitiesExtension, SenderRatchetConfiguration, UnknownExtension,
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

/// What every leaf says that it supports. RFC 9420 §13.4: a leaf lists the extensions of its groups' contexts and of its
/// KeyPackage.
pub(super) fn capabilities() -> Capabilities {
    Capabilities::builder().extensions(vec![ExtensionType::LastResort, GROUP]).build()
}

/// Whether a leaf can be in a group.
pub(super) fn supports_groups(capabilities: &Capabilities) -> bool {
    capabilities.extensions().contains(&GROUP)
}

const GROUP: ExtensionType = ExtensionType::Unknown(GROUP_EXTENSION);

/// The extensions of a group's context: every leaf must support the state.
pub(super) fn context(state: &GroupState) -> Extensions<GroupContext> {
    let required = Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[GROUP], &[], &[]));
    let state = Extension::Unknown(GROUP_EXTENSION, UnknownExtension(state.encode().to_vec()));
    Extensions::from_vec(vec![required, state]).expect("both may stand in a context, and each once")
}

/// What a context says: nothing, or a group's state; anything else is none of ours.
pub(super) fn read_context(extensions: &Extensions<GroupContext>) -> Result<Option<GroupState>, &'static str> {
    const OTHER: &str = "its context is not that of a conversation of this protocol";
    let mut types = extensions.iter().map(Extension::extension_type);
    let Some(UnknownExtension(state)) = extensions.unknown(GROUP_EXTENSION) else {
        return if types.next().is_none() { Ok(None) } else { Err(OTHER) };
    };
    let required = RequiredCapabilitiesExtension::new(&[GROUP], &[], &[]);
    let is_whole =
        types.eq([ExtensionType::RequiredCapabilities, GROUP]) && extensions.required_capabilities() == Some(&required);
    if is_whole { GroupState::decode(state).map(Some).map_err(|_| OTHER) } else { Err(OTHER) }
}

/// The tree travels in the Welcome, which is sealed to the joiners; a GroupInfo goes without, since the server has
/// the tree beside it.
pub(super) fn create_config(state: Option<&GroupState>) -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .capabilities(capabilities())
        .with_group_context_extensions(state.map_or_else(Extensions::empty, context))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use gureum_proto::AccountId;

    use super::*;

    #[test]
    fn a_context_is_read_as_it_is_written_and_nothing_else_is_one() {
        let state = GroupState::new("club", [AccountId::from_bytes([1; 16])]).unwrap();
        let read = |extensions: Vec<Extension>| read_context(&Extensions::from_vec(extensions).unwrap());
        let whole: Vec<_> = context(&state).iter().cloned().collect();
        assert_eq!(read(whole.clone()), Ok(Some(state)));
        assert_eq!(read(Vec::new()), Ok(None));
        let required = |types: &[ExtensionType]| {
            Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(types, &[], &[]))
        };
        let unknown = |number: u16| Extension::Unknown(number, UnknownExtension(vec![1]));
        let own = whole.last().unwrap();
        for other in [
            vec![own.clone()],
            vec![required(&[GROUP])],
            vec![required(&[GROUP, ExtensionType::LastResort]), own.clone()],
            vec![own.clone(), required(&[GROUP])],
            vec![required(&[GROUP]), unknown(GROUP_EXTENSION)],
            vec![required(&[GROUP]), own.clone(), unknown(0xff48)],
            vec![unknown(0xff48)],
        ] {
            assert!(read(other.clone()).is_err(), "{other:?}");
        }
    }
}
