//! What a proven device asks on a stream of its own: looked up, validated, and where it changes something handed to
//! the router.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::limits::{COMMITS_PAGE_BYTES, CONVERSATIONS_PAGE};
use gureum_proto::{
    AccountId, Code, Commits, ConversationId, CreateConversation, DeviceLog, FindBy, Group, LeafIdentity, LogChange,
    Refusal, Register, Registered, Request, Response, SubmitCommit,
};

use crate::directory::Directory;
use crate::invite::InviteKey;
use crate::limits::COMMITS_SCAN_MAX;
use crate::mls::{self, CommitError, GroupMember, Submitted};
use crate::quota::Quotas;
use crate::router::{Change, Changed, CommitPlan, CreatePlan, LogPlan, RegisterPlan, Router};
use crate::session::Authenticated;
use crate::store::record::{CommitRecord, ConversationHead, KeyPackageRecord, Member};
use crate::store::{Family, Store, StoreError, decode, key};
use crate::time::{Clock, is_expired};
use crate::work::Work;

/// Answers requests.
pub(crate) struct Requests {
    /// Reads.
    pub directory: Arc<Directory>,
    /// The disk, for the commit log.
    pub store: Arc<dyn Store>,
    /// Writes.
    pub router: Router,
    /// The server's time.
    pub clock: Arc<Clock>,
    /// How long commits stay.
    pub commit_retention_ms: u64,
    /// `None`: registration is open to everybody.
    pub invites: Option<InviteKey>,
    /// What one account may ask how often.
    pub quotas: Arc<Quotas>,
    /// Where blocking work runs.
    pub work: Work,
}

type Answer = Result<Response, Refusal>;
/// Roster, GroupInfo and tree.
type GroupParts = (ConversationHead, Bytes, Bytes);

/// The epoch of a group after its creator's first commit.
const FIRST_EPOCH: u64 = 1;
/// Reads of a group that commits may overtake before the reader is told to come again.
const GROUP_READS_MAX: usize = 4;

impl Requests {
    /// Answers a request of a proven device.
    pub(crate) async fn answer(self: &Arc<Self>, from: Authenticated, request: Request) -> Response {
        let answer = match request {
            Request::FindAccount { by, log_from } => self.find_account(from, by, log_from).await,
            Request::PutKeyPackages { key_packages, last_resort } => {
                self.put_key_packages(from, key_packages, last_resort).await
            }
            Request::ClaimKeyPackages { account } => self.claim_key_packages(from, account).await,
            Request::CreateConversation(create) => self.create(from, create).await,
            Request::SubmitCommit(submit) => self.commit(from, submit).await,
            Request::ReadCommits { conversation, from_epoch } => self.commits(from, conversation, from_epoch).await,
            Request::ReadGroup { conversation } => self.group(from, conversation).await,
            Request::ListConversations { after } => self.list(from, after).await,
            Request::AppendDeviceLog { entry } => self.append_log(from, entry).await,
        };
        answer.unwrap_or_else(Response::Refused)
    }

    /// Makes an account for a connection that has not proven anything yet.
    ///
    /// # Errors
    /// The handle, the root entry or the invite is refused.
    pub(crate) async fn register(self: &Arc<Self>, register: Register) -> Result<Registered, Refusal> {
        let handle = register.handle.parse().map_err(|_| Refusal::new(Code::HandleInvalid))?;
        let log = DeviceLog::from_root(&register.root_entry)
            .map_err(|error| Refusal::with_detail(Code::LogInvalid, error.to_string()))?;
        if self.invites.is_some() && register.token.is_empty() {
            let detail = "registering here needs an invite, which the address does not hold";
            return Err(Refusal::with_detail(Code::InviteInvalid, detail));
        }
        let invite = match &self.invites {
            Some(key) => {
                Some(key.verify(&register.token, self.clock.now_ms()).map_err(|_| Refusal::new(Code::InviteInvalid))?)
            }
            None => None,
        };
        let (device, _) = log.active().next().ok_or_else(|| Refusal::new(Code::LogInvalid))?;
        let account = log.account();
        let invite = invite.map(|invite| (invite.id, invite.uses, invite.expires_ms));
        let plan = RegisterPlan { account, device, handle, root_entry: register.root_entry, invite };
        self.router.change(Change::Register(plan)).await?;
        Ok(Registered { account, device })
    }

    async fn find_account(self: &Arc<Self>, from: Authenticated, by: FindBy, log_from: u64) -> Answer {
        self.quotas.look_up(from.account())?;
        let found = self.blocking(move |this| Ok(this.directory.find(&by, log_from)?)).await?;
        found.map(Response::Account).ok_or_else(|| Refusal::with_detail(Code::NotFound, "no such account"))
    }

    async fn put_key_packages(
        self: &Arc<Self>,
        from: Authenticated,
        packages: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Answer {
        let (one_time, last_resort) = self
            .blocking(move |this| {
                let log = this.own_log(from)?;
                let check = |bytes: Bytes| this.check_key_package(from, &log, bytes);
                let one_time = packages.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
                Ok((one_time, last_resort.map(check).transpose()?))
            })
            .await?;
        match self.router.change(Change::PutKeyPackages { from, one_time, last_resort }).await? {
            Changed::KeyPackagesStored(left) => Ok(Response::KeyPackagesStored { left }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn check_key_package(
        &self,
        from: Authenticated,
        log: &DeviceLog,
        package: Bytes,
    ) -> Result<([u8; 32], KeyPackageRecord), Failure> {
        let info = mls::check_key_package(&package, from.account(), from.device(), log, self.clock.now_ms())
            .map_err(|error| Refusal::with_detail(Code::KeyPackageInvalid, error.to_string()))?;
        Ok((info.hash, KeyPackageRecord { not_after_ms: info.not_after_ms, package }))
    }

    async fn claim_key_packages(self: &Arc<Self>, from: Authenticated, account: AccountId) -> Answer {
        self.quotas.claim(from.account())?;
        let log = self.blocking(move |this| Ok(this.directory.log(account)?)).await?;
        let log = log.ok_or_else(|| Refusal::with_detail(Code::NotFound, "no such account"))?;
        let is_own = account == from.account();
        let devices =
            log.active().map(|(device, _)| device).filter(|device| !is_own || *device != from.device()).collect();
        match self.router.change(Change::ClaimKeyPackages { account, devices }).await? {
            Changed::KeyPackages(packages) => Ok(Response::KeyPackages(packages)),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    async fn create(self: &Arc<Self>, from: Authenticated, create: CreateConversation) -> Answer {
        let plan = self
            .blocking(move |this| {
                let group = mls::open_group(create.conversation, &create.group_info, &create.tree)
                    .map_err(|error| invalid(error.to_string()))?;
                if group.epoch != FIRST_EPOCH {
                    return Err(invalid("a conversation begins with the commit that adds everybody").into());
                }
                let accounts = BTreeSet::from([from.account(), create.peer]);
                if mls::accounts_of(&group.members) != accounts || accounts.len() != 2 {
                    return Err(invalid("the group's accounts are not the two of this conversation").into());
                }
                mls::check_members(&group.members, &this.logs(&accounts)?)
                    .map_err(|error| invalid(error.to_string()))?;
                if !group.members.iter().any(|member| member.identity.device == from.device()) {
                    return Err(Refusal::new(Code::NotMember).into());
                }
                Ok(CreatePlan {
                    from,
                    peer: create.peer,
                    conversation: create.conversation,
                    epoch: group.epoch,
                    members: members(&group.members),
                    group_info: group.group_info,
                    tree: group.tree,
                    welcome: create.welcome,
                })
            })
            .await?;
        match self.router.change(Change::Create(plan)).await? {
            Changed::Conversation { conversation, existed, epoch } => {
                Ok(Response::ConversationCreated { conversation, existed, epoch })
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    async fn commit(self: &Arc<Self>, from: Authenticated, submit: SubmitCommit) -> Answer {
        let plan = self.blocking(move |this| this.plan_commit(from, submit)).await?;
        let plan = match plan {
            Planned::Before(epoch) => return Ok(Response::CommitAccepted { epoch }),
            Planned::Now(plan) => plan,
        };
        match self.router.change(Change::Commit(*plan)).await? {
            Changed::Committed { epoch } => Ok(Response::CommitAccepted { epoch }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn plan_commit(&self, from: Authenticated, submit: SubmitCommit) -> Result<Planned, Failure> {
        // A commit whose answer got lost comes again; it would no longer pass against the group that it made.
        let window = self.directory.window(from.account(), from.device())?;
        if let Some(result) = window.find(submit.counter) {
            return Ok(Planned::Before(result.number));
        }
        let (head, group_info, tree) = self.member_group(from, submit.conversation)?;
        let accounts: BTreeSet<_> = head.members.iter().map(|member| member.account).collect();
        let logs = self.logs(&accounts)?;
        let log_entry = logs
            .get(&from.account())
            .and_then(|log| log.device(from.device()))
            .map(|device| device.added_at)
            .ok_or_else(|| Refusal::new(Code::DeviceUnknown))?;
        let submitted = Submitted {
            epoch: submit.epoch,
            commit: &submit.commit,
            group_info: &submit.group_info,
            sender: LeafIdentity { account: from.account(), device: from.device(), log_entry },
        };
        let next =
            mls::apply_commit(submit.conversation, &group_info, &tree, &submitted, &logs).map_err(
                |error| match error {
                    CommitError::Epoch { current } => {
                        Refusal::with_detail(Code::EpochConflict, format!("the conversation is at epoch {current}"))
                    }
                    CommitError::Invalid(why) => invalid(why),
                    CommitError::Stored(error) => {
                        tracing::error!(%error, conversation = %submit.conversation, "a stored group is not readable");
                        Refusal::new(Code::Internal)
                    }
                },
            )?;
        let adds_others = next.added.iter().any(|device| *device != from.device());
        if adds_others && submit.welcome.is_empty() {
            return Err(invalid("it adds devices and brings no Welcome for them").into());
        }
        let welcomed: BTreeSet<_> = next
            .members
            .iter()
            .filter(|member| next.added.contains(&member.identity.device) && member.identity.device != from.device())
            .map(|member| member.identity.account)
            .collect();
        Ok(Planned::Now(Box::new(CommitPlan {
            from,
            counter: submit.counter,
            conversation: submit.conversation,
            epoch: submit.epoch,
            commit: submit.commit,
            members: members(&next.members),
            welcomed: welcomed.into_iter().collect(),
            welcome: submit.welcome,
            group_info: next.group_info,
            tree: next.tree,
        })))
    }

    async fn commits(self: &Arc<Self>, from: Authenticated, conversation: ConversationId, from_epoch: u64) -> Answer {
        self.blocking(move |this| {
            let head = this.member_conversation(from, conversation)?;
            let range = key::commits_from(&conversation, from_epoch);
            let now_ms = this.clock.now_ms();
            let mut page = Commits { commits: Vec::new(), epoch: head.epoch, first_epoch: head.epoch };
            let mut bytes = 0;
            for (entry, value) in this.store.scan(Family::Commit, range.as_range(), COMMITS_SCAN_MAX)? {
                let Some((_, epoch)) = key::parse_commit(&entry) else { continue };
                let record: CommitRecord = decode(Family::Commit, &value)?;
                if is_expired(record.time_ms, this.commit_retention_ms, now_ms) {
                    continue;
                }
                if page.commits.is_empty() {
                    page.first_epoch = epoch;
                }
                if epoch != from_epoch + u64::try_from(page.commits.len()).unwrap_or(u64::MAX)
                    || bytes > COMMITS_PAGE_BYTES
                {
                    break;
                }
                bytes += record.commit.len();
                page.commits.push((epoch, record.commit));
            }
            if page.commits.is_empty() && from_epoch < head.epoch {
                return Err(Refusal::new(Code::CommitsGone).into());
            }
            Ok(Response::Commits(page))
        })
        .await
    }

    async fn group(self: &Arc<Self>, from: Authenticated, conversation: ConversationId) -> Answer {
        self.blocking(move |this| {
            let (head, group_info, tree) = this.member_group(from, conversation)?;
            Ok(Response::Group(Group { epoch: head.epoch, group_info, tree }))
        })
        .await
    }

    async fn list(self: &Arc<Self>, from: Authenticated, after: Option<ConversationId>) -> Answer {
        self.blocking(move |this| {
            let mut conversations = this.directory.conversations(from.account(), after, CONVERSATIONS_PAGE + 1)?;
            let more = conversations.len() > CONVERSATIONS_PAGE;
            conversations.truncate(CONVERSATIONS_PAGE);
            Ok(Response::Conversations { conversations, more })
        })
        .await
    }

    async fn append_log(self: &Arc<Self>, from: Authenticated, entry: Bytes) -> Answer {
        let plan = self
            .blocking(move |this| {
                let mut log = DeviceLog::clone(&*this.own_log(from)?);
                let index = log.length();
                let change =
                    log.append(&entry).map_err(|error| Refusal::with_detail(Code::LogInvalid, error.to_string()))?;
                let (added, revoked) = match change {
                    LogChange::Added(device) => (vec![device], Vec::new()),
                    LogChange::Revoked(device) => (Vec::new(), vec![device]),
                    LogChange::RecoveryRotated => (Vec::new(), Vec::new()),
                    LogChange::Recovered { added, revoked } => (vec![added], revoked),
                };
                Ok(LogPlan { account: from.account(), from: from.device(), index, entry, added, revoked })
            })
            .await?;
        match self.router.change(Change::AppendLog(plan)).await? {
            Changed::LogAppended(log_length) => Ok(Response::DeviceLogAppended { log_length }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn own_log(&self, from: Authenticated) -> Result<Arc<DeviceLog>, Failure> {
        self.directory.log(from.account())?.ok_or_else(|| Refusal::new(Code::DeviceUnknown).into())
    }

    fn logs(&self, accounts: &BTreeSet<AccountId>) -> Result<BTreeMap<AccountId, DeviceLog>, StoreError> {
        let mut logs = BTreeMap::new();
        for account in accounts {
            if let Some(log) = self.directory.log(*account)? {
                logs.insert(*account, DeviceLog::clone(&log));
            }
        }
        Ok(logs)
    }

    /// The conversation, if the account is in it: a device of the account whose leaf is missing may rejoin.
    fn member_conversation(
        &self,
        from: Authenticated,
        conversation: ConversationId,
    ) -> Result<ConversationHead, Failure> {
        let head = self.directory.conversation(conversation)?.ok_or_else(|| Refusal::new(Code::NotFound))?;
        let is_member = head.members.iter().any(|member| member.account == from.account());
        if is_member { Ok(head) } else { Err(Refusal::new(Code::NotMember).into()) }
    }

    /// The same with its GroupInfo and tree, all three of one epoch.
    fn member_group(&self, from: Authenticated, conversation: ConversationId) -> Result<GroupParts, Failure> {
        for _ in 0..GROUP_READS_MAX {
            let head = self.member_conversation(from, conversation)?;
            let parts = self.directory.group(conversation)?;
            let (group_info, tree) = parts.ok_or_else(|| Refusal::new(Code::NotFound))?;
            // A commit replaces the three in one batch: unless the epoch has moved on, all were of it.
            if self.member_conversation(from, conversation)?.epoch == head.epoch {
                return Ok((head, group_info, tree));
            }
        }
        Err(Refusal::new(Code::EpochConflict).into())
    }

    /// Runs what may wait for a disk, or compute for milliseconds, off the tasks' threads.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Refusal> {
        let this = Arc::clone(self);
        match self.work.run(move || work(&this)).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(Failure::Refused(refusal))) => Err(refusal),
            Some(Err(Failure::Store(error))) => {
                tracing::warn!(%error, "a request could not be answered");
                Err(Refusal::new(Code::Unavailable))
            }
            None => Err(Refusal::new(Code::Internal)),
        }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

enum Planned {
    Before(u64),
    Now(Box<CommitPlan>),
}

/// Why a request has no good answer: the client's fault, or the disk's.
enum Failure {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::with_detail(Code::CommitInvalid, why)
}

fn members(members: &[GroupMember]) -> Vec<Member> {
    let member = |member: &GroupMember| Member {
        account: member.identity.account,
        device: member.identity.device,
        leaf: member.leaf,
    };
    members.iter().map(member).collect()
}
