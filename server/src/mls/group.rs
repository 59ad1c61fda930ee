//! The public state of a group at one epoch, from its GroupInfo and tree.

use bytes::Bytes;
use gureum_proto::membership::Leaf;
use gureum_proto::{ConversationId, GROUP_EXTENSION, GroupState};
use openmls::framing::MlsMessageBodyIn;
use openmls::group::{GroupContext, GroupId};
use openmls::messages::ConfirmationTag;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::{Deserialize, DeserializeBytes, Serialize, Size};
use openmls::prelude::{
    CreationFromExternalError, Extension, Extensions, LeafNodeIndex, OpenMlsCrypto, OpenMlsSignaturePublicKey,
    ProposalStore, ProtocolVersion, PublicGroup, RatchetTreeIn, RequiredCapabilitiesExtension, Verifiable,
};
use openmls::treesync::errors::LeafNodeValidationError;
use openmls_rust_crypto::{MemoryStorage, RustCrypto};
use openmls_traits::storage::{Entity, traits};
use serde_json::{Value, json};

use super::nowhere::Nowhere;
use super::{GROUP_EXTENSION_TYPE, GroupMember, MlsError, SUITE, leaf_identity, read_message, write};

/// A group at one epoch, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupView {
    /// The epoch.
    pub(crate) epoch: u64,
    /// Its leaves, ascending by index.
    pub(crate) members: Vec<GroupMember>,
    /// What its context says, if it is a group of any accounts.
    pub(crate) state: Option<GroupState>,
    /// The GroupInfo as received: an MLSMessage.
    pub(crate) group_info: Bytes,
    /// The ratchet tree.
    pub(crate) tree: Bytes,
}

/// Verifies a new conversation's GroupInfo and tree.
///
/// # Errors
/// They are malformed, of another conversation or suite, do not belong together, or break RFC 9420.
pub(crate) fn open_group(conversation: ConversationId, group_info: &[u8], tree: &[u8]) -> Result<GroupView, MlsError> {
    let info = ReadInfo::read(conversation, group_info)?;
    if info.info.extensions().external_pub().is_none() {
        return Err(MlsError::Invalid { what: "the GroupInfo", why: "nobody could rejoin by it".into() });
    }
    let group =
        PublicGroup::from_external(&RustCrypto::default(), &Nowhere, read_tree(tree)?, info.info, ProposalStore::new());
    let (group, _) = group.map_err(refused)?;
    Ok(GroupView {
        epoch: group.group_context().epoch().as_u64(),
        members: members_of(&group)?,
        state: state_of(group.group_context().extensions())?,
        group_info: Bytes::copy_from_slice(group_info),
        tree: write(&group.export_ratchet_tree())?,
    })
}

/// A GroupInfo, read but not verified, with what OpenMLS does not show of it.
pub(super) struct ReadInfo {
    info: VerifiableGroupInfo,
    confirmation_tag: ConfirmationTag,
    signer: LeafNodeIndex,
}

impl ReadInfo {
    /// Reads an MLSMessage with a GroupInfo of a conversation.
    pub(super) fn read(conversation: ConversationId, bytes: &[u8]) -> Result<Self, MlsError> {
        let malformed = || MlsError::Malformed("GroupInfo");
        let MlsMessageBodyIn::GroupInfo(info) = read_message(bytes, "GroupInfo")?.extract() else {
            return Err(malformed());
        };
        if info.group_context().protocol_version() != ProtocolVersion::Mls10 || info.ciphersuite() != SUITE {
            return Err(MlsError::Suite);
        }
        if info.group_id().as_slice() != conversation.as_bytes() {
            return Err(MlsError::Conversation);
        }
        // RFC 9420 §12.4.3: context, extensions, confirmation tag, signer, signature. What is written here is
        // what was signed, whatever form the bytes received had.
        let written = info.tls_serialize_detached().map_err(|_| malformed())?;
        let before = info.group_context().tls_serialized_len().saturating_add(info.extensions().tls_serialized_len());
        let mut rest = written.get(before..).ok_or_else(malformed)?;
        let confirmation_tag = ConfirmationTag::tls_deserialize(&mut rest).map_err(|_| malformed())?;
        let signer = LeafNodeIndex::tls_deserialize(&mut rest).map_err(|_| malformed())?;
        Ok(Self { info, confirmation_tag, signer })
    }

    /// Whether this is the GroupInfo of exactly that state, lets a device rejoin, and a member signed it.
    pub(super) fn check_describes(&self, group: &PublicGroup) -> Result<(), MlsError> {
        let refuse = |why: &str| Err(MlsError::Invalid { what: "the GroupInfo", why: why.into() });
        if self.info.group_context() != group.group_context() {
            return refuse("it is not of the epoch that the commit begins");
        }
        if &self.confirmation_tag != group.confirmation_tag() {
            return refuse("its confirmation tag is not the commit's");
        }
        if self.info.extensions().external_pub().is_none() {
            return refuse("nobody could rejoin by it");
        }
        let Some(signer) = group.leaf(self.signer) else { return refuse("no member signed it") };
        let key = OpenMlsSignaturePublicKey::from_signature_key(
            signer.signature_key().clone(),
            group.ciphersuite().signature_algorithm(),
        );
        match self.info.verify_no_out(&RustCrypto::default(), &key) {
            Ok(()) => Ok(()),
            Err(_) => refuse("its signature does not hold"),
        }
    }
}

/// The public state of an epoch that was verified before it was stored.
pub(super) fn load(conversation: ConversationId, group_info: &[u8], tree: &[u8]) -> Result<PublicGroup, MlsError> {
    let info = ReadInfo::read(conversation, group_info)?;
    let group = PublicGroup::from_external(
        &RustCrypto::default(),
        &Nowhere,
        read_tree(tree)?,
        info.info.clone(),
        ProposalStore::new(),
    );
    match group {
        Ok((group, _)) => Ok(group),
        Err(CreationFromExternalError::LeafNodeValidation(LeafNodeValidationError::Lifetime(_))) => {
            restore(&info, read_tree(tree)?)
        }
        Err(error) => Err(refused(error)),
    }
}

/// The same without a look at lifetimes. A leaf that was added and never updated since carries the lifetime of its
/// KeyPackage, and OpenMLS takes no tree in which one has passed. It must not bar the way of every other member,
/// whose next commit may be the one that removes it: RFC 9420 §7.3 asks for that check of new leaves only.
fn restore(info: &ReadInfo, tree: RatchetTreeIn) -> Result<PublicGroup, MlsError> {
    let broken = || MlsError::Malformed("stored group");
    let crypto = RustCrypto::default();
    let (context, group_id) = (info.info.group_context(), info.info.group_id());
    let tree = tree.into_verified(SUITE, &crypto, group_id).map_err(|_| broken())?;
    let tree = tree_state(serde_json::to_value(tree).map_err(|_| broken())?, context.tree_hash()).ok_or_else(broken)?;
    let tag = info.confirmation_tag.tls_serialize_detached().map_err(|_| broken())?;
    let hashed = [context.confirmed_transcript_hash(), &tag].concat();
    let interim = crypto.hash(SUITE.hash_algorithm(), &hashed).map_err(|_| broken())?;
    from_state(group_id, context, info, &Stored(tree), &Stored(json!(interim))).ok_or_else(broken)
}

fn from_state(
    group_id: &GroupId,
    context: &GroupContext,
    info: &ReadInfo,
    tree: &Stored,
    interim: &Stored,
) -> Option<PublicGroup> {
    use openmls_traits::public_storage::PublicStorageProvider;
    let storage = MemoryStorage::default();
    storage.write_tree(group_id, tree).ok()?;
    storage.write_context(group_id, context).ok()?;
    storage.write_interim_transcript_hash(group_id, interim).ok()?;
    storage.write_confirmation_tag(group_id, &info.confirmation_tag).ok()?;
    PublicGroup::load(&storage, group_id).ok()?
}

/// The nodes of a tree, leaves and parents in turn, as OpenMLS keeps them.
fn tree_state(nodes: Value, tree_hash: &[u8]) -> Option<Value> {
    let Value::Array(nodes) = nodes else { return None };
    let (mut leaves, mut parents) = (Vec::new(), Vec::new());
    for (index, node) in nodes.into_iter().enumerate() {
        let kind = if index % 2 == 0 { "LeafNode" } else { "ParentNode" };
        let node = match node {
            Value::Null => Value::Null,
            Value::Object(mut fields) => fields.remove(kind)?,
            _ => return None,
        };
        let side = if index % 2 == 0 { &mut leaves } else { &mut parents };
        side.push(json!({ "node": node }));
    }
    let blank = json!({ "node": null });
    Some(json!({
        "tree": {
            "leaf_nodes": leaves, "parent_nodes": parents, "default_leaf": blank.clone(), "default_parent": blank,
        },
        "tree_hash": tree_hash,
    }))
}

/// A value that stands in storage as OpenMLS would have written it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Stored(Value);

impl<const VERSION: u16> Entity<VERSION> for Stored {}
impl<const VERSION: u16> traits::TreeSync<VERSION> for Stored {}
impl<const VERSION: u16> traits::InterimTranscriptHash<VERSION> for Stored {}

/// The leaves of a group, ascending by index.
pub(super) fn members_of(group: &PublicGroup) -> Result<Vec<GroupMember>, MlsError> {
    let member = |member: openmls::group::Member| {
        let (identity, mls_key) = leaf_identity(&member.credential, &member.signature_key)?;
        Ok(GroupMember { identity, leaf: member.index.u32(), mls_key, leaf_key: member.encryption_key })
    };
    group.members().map(member).collect()
}

/// The same, for the rule of membership.
pub(super) fn leaves_of(members: &[GroupMember]) -> Vec<Leaf> {
    members.iter().map(GroupMember::as_leaf).collect()
}

/// What a context says of a group: nothing, or that every leaf must support the state, and the state.
pub(super) fn state_of(extensions: &Extensions<GroupContext>) -> Result<Option<GroupState>, MlsError> {
    let list: Vec<_> = extensions.iter().collect();
    match list.as_slice() {
        [] => Ok(None),
        [Extension::RequiredCapabilities(required), Extension::Unknown(GROUP_EXTENSION, state)]
            if *required == RequiredCapabilitiesExtension::new(&[GROUP_EXTENSION_TYPE], &[], &[]) =>
        {
            GroupState::decode(&state.0).map(Some).map_err(|error| MlsError::Extensions(error.to_string()))
        }
        _ => Err(MlsError::Extensions("they are others, or in another order".into())),
    }
}

fn read_tree(bytes: &[u8]) -> Result<RatchetTreeIn, MlsError> {
    RatchetTreeIn::tls_deserialize_exact_bytes(bytes).map_err(|_| MlsError::Malformed("ratchet tree"))
}

fn refused<E: std::error::Error>(error: CreationFromExternalError<E>) -> MlsError {
    MlsError::Invalid { what: "the group", why: error.to_string() }
}
