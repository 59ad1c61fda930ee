//! What a commit makes of a group, and whether it may.

use std::collections::HashSet;

use bytes::Bytes;
use gureum_proto::membership::{Change, Logs, Roster, judge_commit};
use gureum_proto::{CommitAttachment, ConversationId, DeviceId, LeafIdentity};
use openmls::framing::{ContentType, MlsMessageBodyIn, ProcessedMessageContent, PublicMessageIn, Sender};
use openmls::group::StagedCommit;
use openmls::messages::proposals::Proposal;
use openmls::prelude::LeafNodeIndex;
use openmls::prelude::tls_codec::{DeserializeBytes, VLBytes};
use openmls::treesync::RatchetTree;
use openmls_rust_crypto::RustCrypto;

use super::group::{ReadInfo, leaves_of, members_of, state_of};
use super::nowhere::Nowhere;
use super::{FollowedGroup, GroupMember, MlsError, StoredGroup, allowed, read_leaf, read_message, write};

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

/// Applies a commit to a group, if MLS and the rule of membership allow it: then the group is of the next epoch.
///
/// # Errors
/// It is of another epoch, or not valid: the group is as before, or of no epoch any more. The stored group is not readable.
pub(crate) fn apply_commit(
    group: &mut FollowedGroup,
    submitted: &Submitted<'_>,
    logs: &dyn Logs,
) -> Result<NextGroup, CommitError> {
    let conversation = group.conversation;
    let state = state_of(group.public.group_context().extensions()).map_err(CommitError::Stored)?;
    let current = group.public.group_context().epoch().as_u64();
    let message = read_commit(submitted.commit, conversation)?;
    if submitted.epoch != current || message.epoch().as_u64() != current {
        return Err(CommitError::Epoch { current });
    }
    let sender = message.sender().clone();
    let processed =
        group.public.process_message(&RustCrypto::default(), message).map_err(|error| invalid(error.to_string()))?;
    let attachment = CommitAttachment::decode(processed.aad());
    let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
        return Err(invalid("it is another message"));
    };
    let mut change = describe(&staged, &sender, &group.members)?;
    match attachment {
        Ok(CommitAttachment { leaves }) => change.leaves = leaves,
        Err(_) => change.more = true,
    }
    if change.committer != Some(submitted.sender) {
        return Err(MlsError::OtherDevice.into());
    }
    let leaves = leaves_of(&group.members);
    let roster = Roster { conversation, leaves: &leaves, state: state.as_ref() };
    allowed(judge_commit(&change, &roster, logs))?;
    group.leave_epoch();
    group.public.merge_commit(&Nowhere, *staged).map_err(|error| invalid(error.to_string()))?;
    finish(group, submitted.group_info)
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

/// A commit for the rule of membership.
fn describe(staged: &StagedCommit, sender: &Sender, before: &[GroupMember]) -> Result<Change, CommitError> {
    let at = |index: LeafNodeIndex| before.iter().find(|member| member.leaf == index.u32());
    let renewed = staged.update_path_leaf_node().map(read_leaf).transpose()?;
    let (external, committer) = match sender {
        Sender::Member(index) => (false, at(*index).map(|member| member.identity)),
        Sender::NewMemberCommit => (true, renewed.as_ref().and_then(|leaf| leaf.identity)),
        Sender::External(_) | Sender::NewMemberProposal => return Err(invalid("its sender may not commit")),
    };
    let (mut added, mut removed, mut state, mut more) = (Vec::new(), Vec::new(), None, false);
    for queued in staged.queued_proposals() {
        match queued.proposal() {
            Proposal::Add(add) => added.push(read_leaf(add.key_package().leaf_node())?),
            Proposal::Remove(remove) => {
                let gone = at(remove.removed()).ok_or_else(|| invalid("it removes a leaf that is not there"))?;
                removed.push(gone.as_leaf());
            }
            Proposal::GroupContextExtensions(proposal) => match state_of(proposal.extensions()) {
                Ok(Some(next)) => state = Some(next),
                Ok(None) | Err(_) => more = true,
            },
            Proposal::ExternalInit(_) if external => {}
            _ => more = true,
        }
    }
    Ok(Change { external, committer, renewed, added, removed, state, leaves: Vec::new(), more })
}

/// Checks the GroupInfo of the epoch that a merged commit begins; only then the group is of that epoch.
fn finish(group: &mut FollowedGroup, group_info: &[u8]) -> Result<NextGroup, CommitError> {
    let conversation = group.conversation;
    ReadInfo::read(conversation, group_info)?.check_describes(&group.public)?;
    let ratchet_tree = group.public.export_ratchet_tree();
    check_keys(&ratchet_tree)?;
    let members = members_of(&group.public)?;
    let missing = |from: &[GroupMember], other: &[GroupMember]| -> Vec<DeviceId> {
        let other: HashSet<_> = other.iter().map(|member| member.identity.device).collect();
        from.iter().map(|member| member.identity.device).filter(|device| !other.contains(device)).collect()
    };
    let next = NextGroup {
        epoch: group.public.group_context().epoch().as_u64(),
        added: missing(&members, &group.members),
        removed: missing(&group.members, &members),
        members,
        group_info: Bytes::copy_from_slice(group_info),
        tree: write(&ratchet_tree)?,
    };
    let stored = StoredGroup { conversation, epoch: next.epoch, group_info: &next.group_info, tree: &next.tree };
    group.reach(&stored, next.members.clone());
    Ok(next)
}

/// No two nodes of a tree have the same encryption key. OpenMLS takes a commit that adds a leaf with the key of a parent
/// node, and afterwards no such tree: nobody could commit or join any more.
fn check_keys(tree: &RatchetTree) -> Result<(), CommitError> {
    let mut keys = HashSet::new();
    let mut is_new = |written: Bytes| -> Result<bool, MlsError> {
        // It comes first in what is written of a parent node, and is all that is written here of a leaf.
        let (key, _) = VLBytes::tls_deserialize_bytes(&written).map_err(|_| MlsError::Malformed("node of a tree"))?;
        Ok(keys.insert(key))
    };
    for leaf in tree.leaves() {
        if !is_new(write(leaf.encryption_key())?)? {
            return Err(invalid("two nodes of the tree have the same encryption key"));
        }
    }
    for parent in tree.parents() {
        if !is_new(write(parent)?)? {
            return Err(invalid("two nodes of the tree have the same encryption key"));
        }
    }
    Ok(())
}

fn invalid(why: impl Into<String>) -> CommitError {
    CommitError::Invalid(why.into())
}
