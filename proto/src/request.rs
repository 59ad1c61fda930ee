//! Requests and their answers: one of each on a stream of its own.

mod accounts;
mod conversations;
mod key_packages;
mod links;
mod preferences;
mod relations;

use bytes::{Bytes, BytesMut};
use gureum_wire::{Frame, FrameKind};
use prost::Message;

use crate::convert::{PayloadError, filled, id, raw, schema};
use crate::handle::Handle;
use crate::limits::{LINK_OFFER_BYTES_MAX, LINK_REPLY_BYTES_MAX, LOG_ENTRY_BYTES_MAX};
use crate::phone::{CodeSent, LockSecret, Phone, PhoneChange};
use crate::push::{PushOffer, PushTarget};
use crate::session::{FrameContentError, Refusal, put};
use crate::{AccountId, ConversationId, LifeToken, LinkId, SignedLeave};
pub use accounts::{AccountFound, FindBy, MemberLog};
pub use conversations::{Commits, ConversationState, ConversationWith, CreateConversation, Group, SubmitCommit};
pub use key_packages::{DeviceKeyPackage, KeyPackages};
pub use links::DeviceState;
pub use preferences::Preference;
pub use relations::Relation;

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
        /// Whether whatever the directory has of this device goes first.
        replace: bool,
    },
    /// Takes one KeyPackage of each active device of some accounts that has one.
    ClaimKeyPackages {
        /// Whose: 1 to [`crate::limits::CLAIM_ACCOUNTS_MAX`], none of them twice.
        accounts: Vec<AccountId>,
    },
    /// Registers a conversation, after the creator's first commit.
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
    /// The active devices of the own account.
    ListDevices,
    /// What a device that waits to be linked offers.
    FindLink {
        /// From its code.
        link: LinkId,
    },
    /// Answers a device that waits; the answer comes when it has countersigned.
    AnswerLink {
        /// From its code.
        link: LinkId,
        /// A sealed [`crate::LinkProposal`].
        payload: Bytes,
    },
    /// Hands over what a device needs that has been added to the log.
    FinishLink {
        /// From its code.
        link: LinkId,
        /// A sealed [`crate::LinkBundle`], or empty.
        payload: Bytes,
    },
    /// Goes on from this copy of the device's state, and from no other.
    TakeOver {
        /// As in the Hello of this connection.
        next: LifeToken,
    },
    /// The device logs of the accounts in a conversation, a page.
    ReadMemberLogs {
        /// The conversation.
        conversation: ConversationId,
        /// The last account of the page before.
        after: Option<AccountId>,
        /// Only accounts of which something is to be removed: revoked devices, and those that leave.
        pending_only: bool,
    },
    /// Leaves a group. The account gets nothing more of it, and whoever commits next removes its leaves.
    LeaveConversation {
        /// The conversation.
        conversation: ConversationId,
        /// The statement.
        leave: SignedLeave,
    },
    /// Wakes this device there while it is away, and at no other target any more.
    SetPushTarget(PushTarget),
    /// Wakes this device no more.
    RemovePushTarget,
    /// Which push services the server uses, and what it has of this device.
    ReadPush,
    /// How the account takes a conversation.
    SetConversation {
        /// The conversation.
        conversation: ConversationId,
        /// Whether what comes there wakes its devices; else it is a request.
        accepted: bool,
        /// What comes before that wakes nobody, in milliseconds since 1970; 0: not muted; `u64::MAX`: until unmuted.
        muted_until_ms: u64,
    },
    /// How the account stands to another.
    SetRelation {
        /// The other.
        account: AccountId,
        /// How.
        relation: Relation,
    },
    /// How the account stands to others, a page.
    ReadRelations {
        /// The last account of the page before.
        after: Option<AccountId>,
    },
    /// How the account takes its conversations, a page.
    ReadPreferences {
        /// The last conversation of the page before.
        after: Option<ConversationId>,
    },
    /// Sends a code to a phone number.
    RequestCode(Phone),
    /// Changes what phone number the account has.
    SetPhone(PhoneChange),
    /// Puts a registration lock on the account's number, or takes it away.
    SetLock(Option<LockSecret>),
    /// Ends the account and everything that the server holds of it.
    DeleteAccount {
        /// The account's own, as confirmation.
        handle: Handle,
    },
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
    KeyPackages(KeyPackages),
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
    /// The active devices of the own account, ascending by id.
    Devices(Vec<DeviceState>),
    /// A device waits under this code.
    LinkFound {
        /// A sealed [`crate::LinkOffer`].
        offer: Bytes,
    },
    /// The device that waits has countersigned.
    LinkCountersigned {
        /// A sealed [`crate::LinkConsent`].
        payload: Bytes,
    },
    /// The new device has been told, or will be when it comes back.
    LinkFinished,
    /// The device goes on from this copy.
    TakenOver {
        /// The generation that the next Hello claims.
        generation: u64,
        /// The highest send counter ever accepted from the device.
        accepted_counter: u64,
    },
    /// A page of device logs.
    MemberLogs {
        /// Ascending by account.
        logs: Vec<MemberLog>,
        /// Whether another page follows.
        more: bool,
    },
    /// The account has left.
    ConversationLeft,
    /// What the server offers for push, and has of this device.
    Push(PushOffer),
    /// It is done, and there is nothing else to say.
    Done,
    /// A code is on its way.
    CodeSent(CodeSent),
    /// A page of relations.
    Relations {
        /// Ascending by account, none of them [`Relation::None`].
        relations: Vec<(AccountId, Relation)>,
        /// Whether another page follows.
        more: bool,
    },
    /// A page of preferences.
    Preferences {
        /// Ascending by conversation.
        preferences: Vec<(ConversationId, Preference)>,
        /// Whether another page follows.
        more: bool,
    },
}

impl Request {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        use schema::request::Kind;
        let kind = match self {
            Self::FindAccount { by, log_from } => {
                Kind::FindAccount(schema::FindAccount { by: Some(by.write()), log_from: *log_from })
            }
            Self::PutKeyPackages { key_packages, last_resort, replace } => {
                Kind::PutKeyPackages(schema::PutKeyPackages {
                    key_packages: key_packages.clone(),
                    last_resort: last_resort.clone().unwrap_or_default(),
                    replace: *replace,
                })
            }
            Self::ClaimKeyPackages { accounts } => Kind::ClaimKeyPackages(key_packages::write_claim(accounts)),
            Self::CreateConversation(create) => Kind::CreateConversation(create.write()),
            Self::SubmitCommit(submit) => Kind::SubmitCommit(submit.write()),
            Self::ReadCommits { conversation, from_epoch } => {
                Kind::ReadCommits(schema::ReadCommits { conversation: raw(conversation), from_epoch: *from_epoch })
            }
            Self::ReadGroup { conversation } => Kind::ReadGroup(schema::ReadGroup { conversation: raw(conversation) }),
            Self::ListConversations { after } => {
                Kind::ListConversations(schema::ListConversations { after: after.map_or_else(Bytes::new, raw) })
            }
            Self::AppendDeviceLog { entry } => Kind::AppendDeviceLog(schema::AppendDeviceLog { entry: entry.clone() }),
            Self::ListDevices => Kind::ListDevices(schema::ListDevices {}),
            Self::FindLink { link } => Kind::FindLink(schema::FindLink { link: raw(link) }),
            Self::AnswerLink { link, payload } => {
                Kind::AnswerLink(schema::AnswerLink { link: raw(link), payload: payload.clone() })
            }
            Self::FinishLink { link, payload } => {
                Kind::FinishLink(schema::FinishLink { link: raw(link), payload: payload.clone() })
            }
            Self::TakeOver { next } => Kind::TakeOver(schema::TakeOver { life_next: raw(next) }),
            Self::ReadMemberLogs { conversation, after, pending_only } => {
                let (conversation, after) = (raw(conversation), after.map_or_else(Bytes::new, raw));
                Kind::ReadMemberLogs(schema::ReadMemberLogs { conversation, after, pending_only: *pending_only })
            }
            Self::LeaveConversation { conversation, leave } => {
                let (conversation, leave) = (raw(conversation), Some(leave.write()));
                Kind::LeaveConversation(schema::LeaveConversation { conversation, leave })
            }
            Self::SetPushTarget(target) => Kind::SetPushTarget(schema::SetPushTarget { target: Some(target.write()) }),
            Self::RemovePushTarget => Kind::RemovePushTarget(schema::RemovePushTarget {}),
            Self::ReadPush => Kind::ReadPush(schema::ReadPush {}),
            Self::SetConversation { conversation, accepted, muted_until_ms } => {
                let (conversation, accepted, muted_until_ms) = (raw(conversation), *accepted, *muted_until_ms);
                Kind::SetConversation(schema::SetConversation { conversation, accepted, muted_until_ms })
            }
            Self::SetRelation { account, relation } => {
                Kind::SetRelation(schema::SetRelation { account: raw(account), relation: relation.write() })
            }
            Self::ReadRelations { after } => {
                Kind::ReadRelations(schema::ReadRelations { after: after.map_or_else(Bytes::new, raw) })
            }
            Self::ReadPreferences { after } => {
                Kind::ReadPreferences(schema::ReadPreferences { after: after.map_or_else(Bytes::new, raw) })
            }
            Self::RequestCode(phone) => Kind::RequestCode(phone.write_request()),
            Self::SetPhone(change) => Kind::SetPhone(change.write()),
            Self::SetLock(lock) => Kind::SetLock(schema::SetLock { lock: LockSecret::write(lock.as_ref()) }),
            Self::DeleteAccount { handle } => Kind::DeleteAccount(schema::DeleteAccount { handle: handle.to_string() }),
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
            Kind::PutKeyPackages(packages) => key_packages::read_put(packages)?,
            Kind::ClaimKeyPackages(claim) => key_packages::read_claim(claim)?,
            Kind::CreateConversation(create) => Self::CreateConversation(CreateConversation::read(create)?),
            Kind::SubmitCommit(submit) => Self::SubmitCommit(SubmitCommit::read(submit)?),
            Kind::ReadCommits(read) => {
                Self::ReadCommits { conversation: id(&read.conversation, "conversation")?, from_epoch: read.from_epoch }
            }
            Kind::ReadGroup(read) => Self::ReadGroup { conversation: id(&read.conversation, "conversation")? },
            Kind::ListConversations(list) => Self::ListConversations { after: after(&list.after, "conversation")? },
            Kind::AppendDeviceLog(append) => {
                Self::AppendDeviceLog { entry: filled(append.entry, LOG_ENTRY_BYTES_MAX, "log entry")? }
            }
            Kind::ListDevices(_) => Self::ListDevices,
            Kind::FindLink(find) => Self::FindLink { link: id(&find.link, "link")? },
            Kind::AnswerLink(answer) => links::read_answer(answer)?,
            Kind::FinishLink(finish) => links::read_finish(finish)?,
            Kind::TakeOver(take_over) => Self::TakeOver { next: id(&take_over.life_next, "next life token")? },
            Kind::ReadMemberLogs(read) => Self::ReadMemberLogs {
                conversation: id(&read.conversation, "conversation")?,
                after: after(&read.after, "account")?,
                pending_only: read.pending_only,
            },
            Kind::LeaveConversation(leave) => Self::LeaveConversation {
                conversation: id(&leave.conversation, "conversation")?,
                leave: SignedLeave::read(leave.leave.ok_or(PayloadError::Missing("leave"))?)?,
            },
            Kind::SetPushTarget(set) => {
                Self::SetPushTarget(PushTarget::read(set.target.ok_or(PayloadError::Missing("push target"))?)?)
            }
            Kind::RemovePushTarget(_) => Self::RemovePushTarget,
            Kind::ReadPush(_) => Self::ReadPush,
            Kind::SetConversation(set) => Self::SetConversation {
                conversation: id(&set.conversation, "conversation")?,
                accepted: set.accepted,
                muted_until_ms: set.muted_until_ms,
            },
            Kind::SetRelation(set) => {
                Self::SetRelation { account: id(&set.account, "account")?, relation: Relation::read(set.relation)? }
            }
            Kind::ReadRelations(read) => Self::ReadRelations { after: after(&read.after, "account")? },
            Kind::ReadPreferences(read) => Self::ReadPreferences { after: after(&read.after, "conversation")? },
            Kind::RequestCode(request) => Self::RequestCode(Phone::read(&request.phone)?),
            Kind::SetPhone(set) => Self::SetPhone(PhoneChange::read(&set)?),
            Kind::SetLock(set) => Self::SetLock(LockSecret::read(&set.lock)?),
            Kind::DeleteAccount(delete) => {
                let handle = delete.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?;
                Self::DeleteAccount { handle }
            }
        })
    }
}

impl Response {
    /// Writes the frame.
    pub fn put(&self, out: &mut BytesMut) {
        use schema::response::Kind;
        let kind = match self {
            Self::Refused(refusal) => Kind::Error(refusal.write()),
            Self::Account(found) => Kind::Account(found.write()),
            Self::KeyPackagesStored { left } => Kind::KeyPackagesStored(schema::KeyPackagesStored { left: *left }),
            Self::KeyPackages(packages) => Kind::KeyPackages(packages.write()),
            Self::ConversationCreated { conversation, existed, epoch } => {
                let (conversation, existed, epoch) = (raw(conversation), *existed, *epoch);
                Kind::ConversationCreated(schema::ConversationCreated { conversation, existed, epoch })
            }
            Self::CommitAccepted { epoch } => Kind::CommitAccepted(schema::CommitAccepted { epoch: *epoch }),
            Self::Commits(page) => Kind::Commits(page.write()),
            Self::Group(group) => Kind::Group(group.write()),
            Self::Conversations { conversations, more } => {
                Kind::Conversations(ConversationState::write_page(conversations, *more))
            }
            Self::DeviceLogAppended { log_length } => {
                Kind::DeviceLogAppended(schema::DeviceLogAppended { log_length: *log_length })
            }
            Self::Devices(devices) => Kind::Devices(DeviceState::write_all(devices)),
            Self::LinkFound { offer } => Kind::LinkFound(schema::LinkFound { offer: offer.clone() }),
            Self::LinkCountersigned { payload } => {
                Kind::LinkCountersigned(schema::LinkCountersigned { payload: payload.clone() })
            }
            Self::LinkFinished => Kind::LinkFinished(schema::LinkFinished {}),
            Self::TakenOver { generation, accepted_counter } => {
                let (life, accepted_counter) = (*generation, *accepted_counter);
                Kind::TakenOver(schema::TakenOver { life, accepted_counter })
            }
            Self::MemberLogs { logs, more } => Kind::MemberLogs(MemberLog::write_page(logs, *more)),
            Self::ConversationLeft => Kind::ConversationLeft(schema::ConversationLeft {}),
            Self::Push(offer) => Kind::Push(offer.write()),
            Self::Done => Kind::Done(schema::Done {}),
            Self::CodeSent(sent) => Kind::CodeSent(sent.write()),
            Self::Relations { relations, more } => Kind::Relations(Relation::write_page(relations, *more)),
            Self::Preferences { preferences, more } => Kind::Preferences(Preference::write_page(preferences, *more)),
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
            Kind::KeyPackages(found) => Self::KeyPackages(KeyPackages::read(found)?),
            Kind::ConversationCreated(created) => Self::ConversationCreated {
                conversation: id(&created.conversation, "conversation")?,
                existed: created.existed,
                epoch: created.epoch,
            },
            Kind::CommitAccepted(accepted) => Self::CommitAccepted { epoch: accepted.epoch },
            Kind::Commits(page) => Self::Commits(Commits::read(page)?),
            Kind::Group(group) => Self::Group(Group::read(group)?),
            Kind::Conversations(page) => {
                let (conversations, more) = ConversationState::read_page(page)?;
                Self::Conversations { conversations, more }
            }
            Kind::DeviceLogAppended(appended) => Self::DeviceLogAppended { log_length: appended.log_length },
            Kind::Devices(devices) => Self::Devices(DeviceState::read_all(devices)?),
            Kind::LinkFound(found) => Self::LinkFound { offer: filled(found.offer, LINK_OFFER_BYTES_MAX, "offer")? },
            Kind::LinkCountersigned(reply) => {
                Self::LinkCountersigned { payload: filled(reply.payload, LINK_REPLY_BYTES_MAX, "reply")? }
            }
            Kind::LinkFinished(_) => Self::LinkFinished,
            Kind::TakenOver(taken) => {
                Self::TakenOver { generation: taken.life, accepted_counter: taken.accepted_counter }
            }
            Kind::MemberLogs(page) => {
                let (logs, more) = MemberLog::read_page(page)?;
                Self::MemberLogs { logs, more }
            }
            Kind::ConversationLeft(schema::ConversationLeft {}) => Self::ConversationLeft,
            Kind::Push(offer) => Self::Push(PushOffer::read(&offer)?),
            Kind::Done(_) => Self::Done,
            Kind::CodeSent(sent) => Self::CodeSent(CodeSent::read(&sent)?),
            Kind::Relations(page) => {
                let (relations, more) = Relation::read_page(&page)?;
                Self::Relations { relations, more }
            }
            Kind::Preferences(page) => {
                let (preferences, more) = Preference::read_page(&page)?;
                Self::Preferences { preferences, more }
            }
        })
    }
}

/// The last one of the page before, if there was one.
fn after<T: for<'a> TryFrom<&'a [u8]>>(bytes: &[u8], what: &'static str) -> Result<Option<T>, PayloadError> {
    if bytes.is_empty() { Ok(None) } else { id(bytes, what).map(Some) }
}
