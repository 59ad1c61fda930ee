//! Conversations, their commits and their groups, as they are made, read and listed.

use bytes::Bytes;

use crate::convert::{PayloadError, bounded, filled, id, raw, schema};
use crate::group_state::ConversationKind;
use crate::ids::{AccountId, ConversationId};
use crate::limits::{CONVERSATION_ACCOUNTS_MAX, CONVERSATIONS_PAGE, HANDSHAKE_BYTES_MAX};

/// With whom a conversation begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConversationWith {
    /// With one other account, of which there is one for each pair.
    Peer(AccountId),
    /// A group: all its accounts, the creator's among them, ascending.
    Group(Vec<AccountId>),
    /// With the account's own devices, of which there is one for each account.
    Own,
}

/// A conversation at epoch 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateConversation {
    /// Its id, which is the MLS group id.
    pub conversation: ConversationId,
    /// With whom.
    pub with: ConversationWith,
    /// An MLSMessage with a GroupInfo.
    pub group_info: Bytes,
    /// The ratchet tree.
    pub tree: Bytes,
    /// An MLSMessage with a Welcome for every leaf but the creator's; empty if there is no other.
    pub welcome: Bytes,
}

impl ConversationWith {
    /// The kind that it makes.
    #[must_use]
    pub const fn kind(&self) -> ConversationKind {
        match self {
            Self::Peer(_) => ConversationKind::Direct,
            Self::Group(_) => ConversationKind::Group,
            Self::Own => ConversationKind::Own,
        }
    }

    fn read(kind: i32, peer: &[u8], members: Vec<Bytes>) -> Result<Self, PayloadError> {
        let kind = ConversationKind::read(kind)?;
        if kind != ConversationKind::Direct && !peer.is_empty() {
            return Err(PayloadError::Invalid("peer"));
        }
        let members = read_accounts(members)?;
        if members.is_empty() == (kind == ConversationKind::Group) || !members.is_sorted_by(|a, b| a < b) {
            return Err(PayloadError::Invalid("list of accounts"));
        }
        Ok(match kind {
            ConversationKind::Direct => Self::Peer(id(peer, "peer")?),
            ConversationKind::Group => Self::Group(members),
            ConversationKind::Own => Self::Own,
        })
    }
}

impl CreateConversation {
    pub(super) fn write(&self) -> schema::CreateConversation {
        let (peer, members) = match &self.with {
            ConversationWith::Peer(peer) => (raw(peer), Vec::new()),
            ConversationWith::Group(members) => (Bytes::new(), members.iter().map(raw).collect()),
            ConversationWith::Own => (Bytes::new(), Vec::new()),
        };
        schema::CreateConversation {
            conversation: raw(self.conversation),
            peer,
            group_info: self.group_info.clone(),
            tree: self.tree.clone(),
            welcome: self.welcome.clone(),
            kind: self.with.kind().write(),
            members,
        }
    }

    pub(super) fn read(create: schema::CreateConversation) -> Result<Self, PayloadError> {
        let with = ConversationWith::read(create.kind, &create.peer, create.members)?;
        if with.kind() == ConversationKind::Direct && create.welcome.is_empty() {
            return Err(PayloadError::Missing("Welcome"));
        }
        Ok(Self {
            conversation: id(&create.conversation, "conversation")?,
            with,
            group_info: filled(create.group_info, HANDSHAKE_BYTES_MAX, "GroupInfo")?,
            tree: filled(create.tree, HANDSHAKE_BYTES_MAX, "tree")?,
            welcome: bounded(create.welcome, HANDSHAKE_BYTES_MAX, "Welcome")?,
        })
    }
}

/// A commit and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitCommit {
    /// The device's own counter, shared with sends.
    pub counter: u64,
    /// The conversation.
    pub conversation: ConversationId,
    /// The epoch that it ends.
    pub epoch: u64,
    /// An MLSMessage with a PublicMessage.
    pub commit: Bytes,
    /// An MLSMessage with the GroupInfo of the next epoch.
    pub group_info: Bytes,
    /// An MLSMessage with a Welcome, or empty if it adds nobody.
    pub welcome: Bytes,
}

impl SubmitCommit {
    pub(super) fn write(&self) -> schema::SubmitCommit {
        schema::SubmitCommit {
            counter: self.counter,
            conversation: raw(self.conversation),
            epoch: self.epoch,
            commit: self.commit.clone(),
            group_info: self.group_info.clone(),
            welcome: self.welcome.clone(),
        }
    }

    pub(super) fn read(submit: schema::SubmitCommit) -> Result<Self, PayloadError> {
        if submit.counter == 0 {
            return Err(PayloadError::Invalid("counter"));
        }
        Ok(Self {
            counter: submit.counter,
            conversation: id(&submit.conversation, "conversation")?,
            epoch: submit.epoch,
            commit: filled(submit.commit, HANDSHAKE_BYTES_MAX, "commit")?,
            group_info: filled(submit.group_info, HANDSHAKE_BYTES_MAX, "GroupInfo")?,
            welcome: bounded(submit.welcome, HANDSHAKE_BYTES_MAX, "Welcome")?,
        })
    }
}

/// A page of the commit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commits {
    /// Pairs of the epoch that a commit ends and the commit; ascending, without holes.
    pub commits: Vec<(u64, Bytes)>,
    /// The conversation's current epoch.
    pub epoch: u64,
    /// The oldest epoch whose commit is still there; equal to `epoch` when none is.
    pub first_epoch: u64,
}

impl Commits {
    pub(super) fn write(&self) -> schema::Commits {
        let commit = |(epoch, commit): &(u64, Bytes)| schema::Commit { epoch: *epoch, commit: commit.clone() };
        schema::Commits {
            commits: self.commits.iter().map(commit).collect(),
            epoch: self.epoch,
            first_epoch: self.first_epoch,
        }
    }

    pub(super) fn read(page: schema::Commits) -> Result<Self, PayloadError> {
        let mut commits = Vec::with_capacity(page.commits.len());
        for commit in page.commits {
            commits.push((commit.epoch, filled(commit.commit, HANDSHAKE_BYTES_MAX, "commit")?));
        }
        if commits.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a.checked_add(1) != Some(*b))) {
            return Err(PayloadError::Invalid("order of commits"));
        }
        Ok(Self { commits, epoch: page.epoch, first_epoch: page.first_epoch })
    }
}

/// GroupInfo and tree of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The epoch.
    pub epoch: u64,
    /// An MLSMessage with a GroupInfo.
    pub group_info: Bytes,
    /// The ratchet tree.
    pub tree: Bytes,
}

impl Group {
    pub(super) fn write(&self) -> schema::Group {
        schema::Group { epoch: self.epoch, group_info: self.group_info.clone(), tree: self.tree.clone() }
    }

    pub(super) fn read(group: schema::Group) -> Result<Self, PayloadError> {
        Ok(Self {
            epoch: group.epoch,
            group_info: filled(group.group_info, HANDSHAKE_BYTES_MAX, "GroupInfo")?,
            tree: filled(group.tree, HANDSHAKE_BYTES_MAX, "tree")?,
        })
    }
}

/// A conversation in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationState {
    /// Its id.
    pub conversation: ConversationId,
    /// Its current epoch.
    pub epoch: u64,
    /// The accounts in it.
    pub accounts: Vec<AccountId>,
    /// What it is, by the server's word.
    pub kind: ConversationKind,
}

impl ConversationState {
    pub(super) fn write_page(conversations: &[Self], more: bool) -> schema::Conversations {
        let state = |state: &Self| schema::ConversationState {
            conversation: raw(state.conversation),
            epoch: state.epoch,
            accounts: state.accounts.iter().map(raw).collect(),
            kind: state.kind.write(),
        };
        schema::Conversations { conversations: conversations.iter().map(state).collect(), more }
    }

    pub(super) fn read_page(page: schema::Conversations) -> Result<(Vec<Self>, bool), PayloadError> {
        if page.conversations.len() > CONVERSATIONS_PAGE {
            return Err(PayloadError::TooLong("page of conversations"));
        }
        let conversations = page.conversations.into_iter().map(Self::read).collect::<Result<_, _>>()?;
        Ok((conversations, page.more))
    }

    fn read(state: schema::ConversationState) -> Result<Self, PayloadError> {
        Ok(Self {
            conversation: id(&state.conversation, "conversation")?,
            epoch: state.epoch,
            accounts: read_accounts(state.accounts)?,
            kind: ConversationKind::read(state.kind)?,
        })
    }
}

fn read_accounts(accounts: Vec<Bytes>) -> Result<Vec<AccountId>, PayloadError> {
    if accounts.len() > CONVERSATION_ACCOUNTS_MAX {
        return Err(PayloadError::TooLong("list of accounts"));
    }
    accounts.into_iter().map(|account| id(&account, "account")).collect()
}
