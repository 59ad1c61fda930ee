//! Requests and their answers: one of each on a stream of its own.

use bytes::{Bytes, BytesMut};
use gureum_wire::{Frame, FrameKind};
use prost::Message;

use crate::convert::{PayloadError, bounded, filled, id, raw, schema};
use crate::handle::Handle;
use crate::limits::{
    CONVERSATION_ACCOUNTS_MAX, CONVERSATIONS_PAGE, DEVICES_MAX, HANDSHAKE_BYTES_MAX, KEY_PACKAGE_BYTES_MAX,
    KEY_PACKAGES_MAX, LOG_ENTRY_BYTES_MAX,
};
use crate::session::{FrameContentError, Refusal, put};
use crate::{AccountId, ConversationId, DeviceId};

/// What a proven device may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An account and its device log from an entry on.
    FindAccount {
        /// By what.
        by: FindBy,
        /// The first log entry wanted.
        log_from: u64,
    },
    /// Adds KeyPackages of this device to the directory.
    PutKeyPackages {
        /// Used once each.
        key_packages: Vec<Bytes>,
        /// Replaces the last resort, if given.
        last_resort: Option<Bytes>,
    },
    /// Takes one KeyPackage of each active device of an account.
    ClaimKeyPackages {
        /// Whose.
        account: AccountId,
    },
    /// Registers the two-account conversation with `peer`, after the creator's first commit.
    CreateConversation(CreateConversation),
    /// Ends an epoch.
    SubmitCommit(SubmitCommit),
    /// The commits from an epoch on.
    ReadCommits {
        /// The conversation.
        conversation: ConversationId,
        /// The epoch that the first one ends.
        from_epoch: u64,
    },
    /// The newest GroupInfo and tree.
    ReadGroup {
        /// The conversation.
        conversation: ConversationId,
    },
    /// The account's conversations, a page.
    ListConversations {
        /// The last one of the page before.
        after: Option<ConversationId>,
    },
    /// Appends to the account's own device log.
    AppendDeviceLog {
        /// The signed entry.
        entry: Bytes,
    },
}

/// How to find an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindBy {
    /// By its handle.
    Handle(Handle),
    /// By its id.
    Account(AccountId),
}

/// A two-account conversation at epoch 1 or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateConversation {
    /// Its id, which is the MLS group id.
    pub conversation: ConversationId,
    /// The other account.
    pub peer: AccountId,
    /// An MLSMessage with a GroupInfo.
    pub group_info: Bytes,
    /// The ratchet tree.
    pub tree: Bytes,
    /// An MLSMessage with a Welcome for every leaf but the creator's.
    pub welcome: Bytes,
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

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Refused.
    Refused(Refusal),
    /// An account.
    Account(AccountFound),
    /// KeyPackages are stored; so many one-time ones are there now.
    KeyPackagesStored {
        /// One-time KeyPackages of this device in the directory.
        left: u32,
    },
    /// One KeyPackage a device.
    KeyPackages(Vec<(DeviceId, Bytes)>),
    /// The conversation exists.
    ConversationCreated {
        /// Its id: the one asked for, or the pair's older one.
        conversation: ConversationId,
        /// Whether it existed before, and nothing was created.
        existed: bool,
        /// Its epoch.
        epoch: u64,
    },
    /// The epoch has ended.
    CommitAccepted {
        /// The new epoch.
        epoch: u64,
    },
    /// A page of the commit log.
    Commits(Commits),
    /// GroupInfo and tree of one epoch.
    Group(Group),
    /// A page of conversations.
    Conversations {
        /// Ascending by id.
        conversations: Vec<ConversationState>,
        /// Whether another page follows.
        more: bool,
    },
    /// The device log has so many entries now.
    DeviceLogAppended {
        /// Its length.
        log_length: u64,
    },
}

/// An account and a part of its device log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFound {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// Signed entries from the one asked for on, as many as fit.
    pub log_entries: Vec<Bytes>,
    /// The log's whole length.
    pub log_length: u64,
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

/// A conversation in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationState {
    /// Its id.
    pub conversation: ConversationId,
    /// Its current epoch.
    pub epoch: u64,
    /// The accounts in it.
    pub accounts: Vec<AccountId>,
}

impl Request {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        use schema::request::Kind;
        let kind = match self {
            Self::FindAccount { by, log_from } => {
                let by = match by {
                    FindBy::Handle(handle) => schema::find_account::By::Handle(handle.to_string()),
                    FindBy::Account(account) => schema::find_account::By::Account(raw(account)),
                };
                Kind::FindAccount(schema::FindAccount { by: Some(by), log_from: *log_from })
            }
            Self::PutKeyPackages { key_packages, last_resort } => Kind::PutKeyPackages(schema::PutKeyPackages {
                key_packages: key_packages.clone(),
                last_resort: last_resort.clone().unwrap_or_default(),
            }),
            Self::ClaimKeyPackages { account } => {
                Kind::ClaimKeyPackages(schema::ClaimKeyPackages { account: raw(account) })
            }
            Self::CreateConversation(create) => Kind::CreateConversation(schema::CreateConversation {
                conversation: raw(create.conversation),
                peer: raw(create.peer),
                group_info: create.group_info.clone(),
                tree: create.tree.clone(),
                welcome: create.welcome.clone(),
            }),
            Self::SubmitCommit(submit) => Kind::SubmitCommit(schema::SubmitCommit {
                counter: submit.counter,
                conversation: raw(submit.conversation),
                epoch: submit.epoch,
                commit: submit.commit.clone(),
                group_info: submit.group_info.clone(),
                welcome: submit.welcome.clone(),
            }),
            Self::ReadCommits { conversation, from_epoch } => {
                Kind::ReadCommits(schema::ReadCommits { conversation: raw(conversation), from_epoch: *from_epoch })
            }
            Self::ReadGroup { conversation } => Kind::ReadGroup(schema::ReadGroup { conversation: raw(conversation) }),
            Self::ListConversations { after } => {
                Kind::ListConversations(schema::ListConversations { after: after.map_or_else(Bytes::new, raw) })
            }
            Self::AppendDeviceLog { entry } => Kind::AppendDeviceLog(schema::AppendDeviceLog { entry: entry.clone() }),
        };
        put(FrameKind::Request, &schema::Request { kind: Some(kind) }, out);
    }

    /// Reads the frame of a request stream.
    ///
    /// # Errors
    /// Another frame, or a malformed payload.
    pub fn decode(frame: Frame) -> Result<Self, FrameContentError> {
        if frame.kind != FrameKind::Request {
            return Err(FrameContentError::Unexpected(frame.kind));
        }
        Ok(Self::read(frame.payload)?)
    }

    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        use schema::request::Kind;
        let message = schema::Request::decode(payload)?;
        Ok(match message.kind.ok_or(PayloadError::Missing("kind"))? {
            Kind::FindAccount(find) => Self::FindAccount { by: FindBy::read(find.by)?, log_from: find.log_from },
            Kind::PutKeyPackages(packages) => {
                if packages.key_packages.len() > KEY_PACKAGES_MAX {
                    return Err(PayloadError::TooLong("list of KeyPackages"));
                }
                let key_packages = packages
                    .key_packages
                    .into_iter()
                    .map(|package| filled(package, KEY_PACKAGE_BYTES_MAX, "KeyPackage"))
                    .collect::<Result<_, _>>()?;
                let last_resort = bounded(packages.last_resort, KEY_PACKAGE_BYTES_MAX, "last resort")?;
                Self::PutKeyPackages { key_packages, last_resort: Some(last_resort).filter(|bytes| !bytes.is_empty()) }
            }
            Kind::ClaimKeyPackages(claim) => Self::ClaimKeyPackages { account: id(&claim.account, "account")? },
            Kind::CreateConversation(create) => Self::CreateConversation(CreateConversation {
                conversation: id(&create.conversation, "conversation")?,
                peer: id(&create.peer, "peer")?,
                group_info: filled(create.group_info, HANDSHAKE_BYTES_MAX, "GroupInfo")?,
                tree: filled(create.tree, HANDSHAKE_BYTES_MAX, "tree")?,
                welcome: filled(create.welcome, HANDSHAKE_BYTES_MAX, "Welcome")?,
            }),
            Kind::SubmitCommit(submit) => Self::SubmitCommit(SubmitCommit::read(submit)?),
            Kind::ReadCommits(read) => {
                Self::ReadCommits { conversation: id(&read.conversation, "conversation")?, from_epoch: read.from_epoch }
            }
            Kind::ReadGroup(read) => Self::ReadGroup { conversation: id(&read.conversation, "conversation")? },
            Kind::ListConversations(list) => Self::ListConversations {
                after: match list.after.len() {
                    0 => None,
                    _ => Some(id(&list.after, "conversation")?),
                },
            },
            Kind::AppendDeviceLog(append) => {
                Self::AppendDeviceLog { entry: filled(append.entry, LOG_ENTRY_BYTES_MAX, "log entry")? }
            }
        })
    }
}

impl FindBy {
    fn read(by: Option<schema::find_account::By>) -> Result<Self, PayloadError> {
        match by.ok_or(PayloadError::Missing("account"))? {
            schema::find_account::By::Handle(handle) => {
                handle.parse().map(Self::Handle).map_err(|_| PayloadError::Invalid("handle"))
            }
            schema::find_account::By::Account(account) => Ok(Self::Account(id(&account, "account")?)),
        }
    }
}

impl SubmitCommit {
    fn read(submit: schema::SubmitCommit) -> Result<Self, PayloadError> {
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

impl Response {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        use schema::response::Kind;
        let kind = match self {
            Self::Refused(refusal) => Kind::Error(refusal.write()),
            Self::Account(found) => Kind::Account(schema::AccountFound {
                account: raw(found.account),
                handle: found.handle.to_string(),
                log_entries: found.log_entries.clone(),
                log_length: found.log_length,
            }),
            Self::KeyPackagesStored { left } => Kind::KeyPackagesStored(schema::KeyPackagesStored { left: *left }),
            Self::KeyPackages(packages) => {
                let package = |(device, package): &(DeviceId, Bytes)| schema::DeviceKeyPackage {
                    device: raw(device),
                    key_package: package.clone(),
                };
                Kind::KeyPackages(schema::KeyPackages { packages: packages.iter().map(package).collect() })
            }
            Self::ConversationCreated { conversation, existed, epoch } => {
                let (conversation, existed, epoch) = (raw(conversation), *existed, *epoch);
                Kind::ConversationCreated(schema::ConversationCreated { conversation, existed, epoch })
            }
            Self::CommitAccepted { epoch } => Kind::CommitAccepted(schema::CommitAccepted { epoch: *epoch }),
            Self::Commits(page) => {
                let commit = |(epoch, commit): &(u64, Bytes)| schema::Commit { epoch: *epoch, commit: commit.clone() };
                Kind::Commits(schema::Commits {
                    commits: page.commits.iter().map(commit).collect(),
                    epoch: page.epoch,
                    first_epoch: page.first_epoch,
                })
            }
            Self::Group(group) => Kind::Group(schema::Group {
                epoch: group.epoch,
                group_info: group.group_info.clone(),
                tree: group.tree.clone(),
            }),
            Self::Conversations { conversations, more } => {
                let state = |state: &ConversationState| schema::ConversationState {
                    conversation: raw(state.conversation),
                    epoch: state.epoch,
                    accounts: state.accounts.iter().map(raw).collect(),
                };
                let conversations = conversations.iter().map(state).collect();
                Kind::Conversations(schema::Conversations { conversations, more: *more })
            }
            Self::DeviceLogAppended { log_length } => {
                Kind::DeviceLogAppended(schema::DeviceLogAppended { log_length: *log_length })
            }
        };
        put(FrameKind::Response, &schema::Response { kind: Some(kind) }, out);
    }

    /// Reads the frame that answers a request.
    ///
    /// # Errors
    /// Another frame, or a malformed payload.
    pub fn decode(frame: Frame) -> Result<Self, FrameContentError> {
        if frame.kind != FrameKind::Response {
            return Err(FrameContentError::Unexpected(frame.kind));
        }
        Ok(Self::read(frame.payload)?)
    }

    fn read(payload: Bytes) -> Result<Self, PayloadError> {
        use schema::response::Kind;
        let message = schema::Response::decode(payload)?;
        Ok(match message.kind.ok_or(PayloadError::Missing("kind"))? {
            Kind::Error(error) => Self::Refused(Refusal::read(error)),
            Kind::Account(found) => Self::Account(AccountFound::read(found)?),
            Kind::KeyPackagesStored(stored) => Self::KeyPackagesStored { left: stored.left },
            Kind::KeyPackages(found) => {
                if found.packages.len() > DEVICES_MAX {
                    return Err(PayloadError::TooLong("list of KeyPackages"));
                }
                let read = |package: schema::DeviceKeyPackage| {
                    let bytes = filled(package.key_package, KEY_PACKAGE_BYTES_MAX, "KeyPackage")?;
                    Ok((id(&package.device, "device")?, bytes))
                };
                Self::KeyPackages(found.packages.into_iter().map(read).collect::<Result<_, PayloadError>>()?)
            }
            Kind::ConversationCreated(created) => Self::ConversationCreated {
                conversation: id(&created.conversation, "conversation")?,
                existed: created.existed,
                epoch: created.epoch,
            },
            Kind::CommitAccepted(accepted) => Self::CommitAccepted { epoch: accepted.epoch },
            Kind::Commits(page) => Self::Commits(Commits::read(page)?),
            Kind::Group(group) => Self::Group(Group {
                epoch: group.epoch,
                group_info: filled(group.group_info, HANDSHAKE_BYTES_MAX, "GroupInfo")?,
                tree: filled(group.tree, HANDSHAKE_BYTES_MAX, "tree")?,
            }),
            Kind::Conversations(page) => {
                if page.conversations.len() > CONVERSATIONS_PAGE {
                    return Err(PayloadError::TooLong("page of conversations"));
                }
                let conversations =
                    page.conversations.into_iter().map(ConversationState::read).collect::<Result<_, _>>()?;
                Self::Conversations { conversations, more: page.more }
            }
            Kind::DeviceLogAppended(appended) => Self::DeviceLogAppended { log_length: appended.log_length },
        })
    }
}

impl AccountFound {
    fn read(found: schema::AccountFound) -> Result<Self, PayloadError> {
        let entry = |entry| filled(entry, LOG_ENTRY_BYTES_MAX, "log entry");
        Ok(Self {
            account: id(&found.account, "account")?,
            handle: found.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?,
            log_entries: found.log_entries.into_iter().map(entry).collect::<Result<_, _>>()?,
            log_length: found.log_length,
        })
    }
}

impl Commits {
    fn read(page: schema::Commits) -> Result<Self, PayloadError> {
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

impl ConversationState {
    fn read(state: schema::ConversationState) -> Result<Self, PayloadError> {
        if state.accounts.len() > CONVERSATION_ACCOUNTS_MAX {
            return Err(PayloadError::TooLong("list of accounts"));
        }
        let account = |account: Bytes| id(&account, "account");
        Ok(Self {
            conversation: id(&state.conversation, "conversation")?,
            epoch: state.epoch,
            accounts: state.accounts.into_iter().map(account).collect::<Result<_, _>>()?,
        })
    }
}
