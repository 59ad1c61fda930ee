//! What a commit makes of a group, and whether it may.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, LeafIdentity};
use openmls::framing::{ContentType, MlsMessageBodyIn, ProcessedMessageContent, PublicMessageIn, Sender};
use openmls::group::StagedCommit;
use openmls::messages::proposals::Proposal;
use openmls::prelude::{LeafNode, PublicGroup};
use openmls_rust_crypto::{MemoryStorage, RustCrypto};

use super::group::{ReadInfo, load, members_of};
use super::{
    GroupMember, LeafError, MlsError, accounts_of, check_distinct, check_leaf, leaf_identity, read_message, write,
};

/// The group after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextGroup {
    /// The epoch that the commit begins.
    pub(crate) epoch: u64,
    /// Its leaves, ascending by index.
    pub(crate) members: Vec<GroupMember>,
    /// The GroupInfo as received: an MLSMessage.
    pub(crate) group_info: Bytes,
    /// The ratchet tree.
    pub(crate) tree: Bytes,
    /// Devices that have a leaf now and had none.
    pub(crate) added: Vec<DeviceId>,
    /// Devices that had a leaf and have none now.
    pub(crate) removed: Vec<DeviceId>,
}

/// Why a commit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// It is not of the conversation's epoch: somebody was faster.
    #[error("the conversation is at epoch {current}")]
    Epoch {
        /// The conversation's.
        current: u64,
    },
    /// RFC 9420 or a rule of membership refuses it, whenever it comes.
    #[error("the commit is not valid: {0}")]
    Invalid(String),
    /// What the server has stored of the group cannot be read: a bug, or a damaged disk.
    #[error("the stored group is not readable: {0}")]
    Stored(MlsError),
}

impl From<MlsError> for CommitError {
    fn from(error: MlsError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<LeafError> for CommitError {
    fn from(error: LeafError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What a device hands in to end an epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted<'a> {
    /// The epoch that it says it ends.
    pub(crate) epoch: u64,
    /// An MLSMessage with a PublicMessage.
    pub(crate) commit: &'a [u8],
    /// An MLSMessage with the GroupInfo of the next epoch.
    pub(crate) group_info: &'a [u8],
    /// The device that proved itself on the connection.
    pub(crate) sender: LeafIdentity,
}

/// Applies a commit to the group as `group_info` and `tree` have it. `logs` holds the device log of every account in
/// the conversation.
///
/// The accounts of a conversation never change. A member may add active devices of these accounts, and remove devices
/// of its own account and revoked ones; who joins by an external commit may remove nothing but its own former leaf.
///
/// # Errors
/// It is of another epoch, or not valid; the stored group is not readable.
pub(crate) fn apply_commit(
    conversation: ConversationId,
    group_info: &[u8],
    tree: &[u8],
    submitted: &Submitted<'_>,
    logs: &BTreeMap<AccountId, DeviceLog>,
) -> Result<NextGroup, CommitError> {
    let mut group = load(conversation, group_info, tree).map_err(CommitError::Stored)?;
    let before = members_of(&group).map_err(|error| CommitError::Stored(error.into()))?;
    let current = group.group_context().epoch().as_u64();
    let message = read_commit(submitted.commit, conversation)?;
    if submitted.epoch != current || message.epoch().as_u64() != current {
        return Err(CommitError::Epoch { current });
    }
    let is_external = match message.sender() {
        Sender::Member(leaf) => {
            let leaf = group.leaf(*leaf).ok_or_else(|| invalid("its sender has no leaf"))?;
            check_is_sender(leaf, submitted.sender, logs)?;
            false
        }
        Sender::NewMemberCommit => true,
        Sender::External(_) | Sender::NewMemberProposal => return Err(invalid("its sender may not commit")),
    };
    let processed =
        group.process_message(&RustCrypto::default(), message).map_err(|error| invalid(error.to_string()))?;
    let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
        return Err(invalid("it is another message"));
    };
    let accounts = accounts_of(&before);
    check_path(&staged, is_external, submitted.sender, &accounts, logs)?;
    check_proposals(&staged, is_external, submitted.sender, &before, logs)?;
    let merged = group.merge_commit(&MemoryStorage::default(), *staged);
    merged.map_err(|error| invalid(error.to_string()))?;
    let next = finish(conversation, &group, submitted.group_info, &before)?;
    check_distinct(&next.members)?;
    if accounts_of(&next.members) != accounts {
        return Err(invalid("it changes which accounts are in the conversation"));
    }
    Ok(next)
}

fn read_commit(bytes: &[u8], conversation: ConversationId) -> Result<PublicMessageIn, CommitError> {
    let MlsMessageBodyIn::PublicMessage(message) = read_message(bytes, "commit")?.extract() else {
        return Err(invalid("it is no PublicMessage"));
    };
    if message.content_type() != ContentType::Commit {
        return Err(invalid("it is another message"));
    }
    if message.group_id().as_slice() != conversation.as_bytes() {
        return Err(MlsError::Conversation.into());
    }
    Ok(message)
}

/// The leaf in a commit's path is the sender's and stays the sender's: MLS would let it change its identity.
fn check_path(
    staged: &StagedCommit,
    is_external: bool,
    sender: LeafIdentity,
    accounts: &BTreeSet<AccountId>,
    logs: &BTreeMap<AccountId, DeviceLog>,
) -> Result<(), CommitError> {
    match staged.update_path_leaf_node() {
        Some(leaf) => check_is_sender(leaf, sender, logs)?,
        None if is_external => return Err(invalid("an external commit needs a path")),
        None => {}
    }
    if accounts.contains(&sender.account) { Ok(()) } else { Err(invalid("its sender's account is not a member")) }
}

fn check_is_sender(
    leaf: &LeafNode,
    sender: LeafIdentity,
    logs: &BTreeMap<AccountId, DeviceLog>,
) -> Result<(), CommitError> {
    let (identity, key) = leaf_identity(leaf.credential(), leaf.signature_key().as_slice())?;
    if identity != sender {
        return Err(LeafError::OtherDevice.into());
    }
    Ok(check_leaf(&identity, &key, logs.get(&identity.account))?)
}

fn check_proposals(
    staged: &StagedCommit,
    is_external: bool,
    sender: LeafIdentity,
    before: &[GroupMember],
    logs: &BTreeMap<AccountId, DeviceLog>,
) -> Result<(), CommitError> {
    for queued in staged.queued_proposals() {
        match queued.proposal() {
            Proposal::Add(add) if !is_external => {
                let leaf = add.key_package().leaf_node();
                let (identity, key) = leaf_identity(leaf.credential(), leaf.signature_key().as_slice())?;
                check_leaf(&identity, &key, logs.get(&identity.account))?;
            }
            Proposal::Remove(remove) => {
                let leaf = remove.removed().u32();
                let removed = before.iter().find(|member| member.leaf == leaf);
                let removed = removed.ok_or_else(|| invalid("it removes a leaf that is not there"))?;
                if !may_remove(sender, is_external, &removed.identity, logs) {
                    return Err(invalid("it removes a device that its sender may not remove"));
                }
            }
            Proposal::ExternalInit(_) if is_external => {}
            _ => return Err(invalid("it holds a proposal of a kind that is not used here")),
        }
    }
    Ok(())
}

pub(super) fn may_remove(
    sender: LeafIdentity,
    is_external: bool,
    removed: &LeafIdentity,
    logs: &BTreeMap<AccountId, DeviceLog>,
) -> bool {
    if removed.device == sender.device {
        return is_external;
    }
    let is_revoked = logs.get(&removed.account).is_some_and(|log| !log.is_active(removed.device));
    !is_external && (removed.account == sender.account || is_revoked)
}

fn finish(
    conversation: ConversationId,
    group: &PublicGroup,
    group_info: &[u8],
    before: &[GroupMember],
) -> Result<NextGroup, CommitError> {
    ReadInfo::read(conversation, group_info)?.check_describes(group)?;
    let members = members_of(group)?;
    let missing = |from: &[GroupMember], other: &[GroupMember]| -> Vec<DeviceId> {
        let other: BTreeSet<_> = other.iter().map(|member| member.identity.device).collect();
        from.iter().map(|member| member.identity.device).filter(|device| !other.contains(device)).collect()
    };
    Ok(NextGroup {
        epoch: group.group_context().epoch().as_u64(),
        added: missing(&members, before),
        removed: missing(before, &members),
        members,
        group_info: Bytes::copy_from_slice(group_info),
        tree: write(&group.export_ratchet_tree())?,
    })
}

fn invalid(why: impl Into<String>) -> CommitError {
    CommitError::Invalid(why.into())
}
