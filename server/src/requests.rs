//! What a proven device asks on a stream of its own: looked up, validated, and where it changes something handed to
//! the router.

mod accounts;
mod commits;
mod conversations;
mod groups;
mod key_packages;
mod links;
mod phone;
mod push;
mod recovery;
mod relations;

use std::cell::RefCell;
use std::sync::Arc;

use gureum_proto::membership::Logs;
use gureum_proto::{AccountId, Code, DeviceId, DeviceLog, Refusal, Request, Response};

use crate::directory::Directory;
use crate::invite::InviteKey;
use crate::linking::Linking;
use crate::metrics::Metrics;
use crate::mls::{Followed, GroupMember};
use crate::push::PushPart;
use crate::quota::Quotas;
use crate::router::Router;
use crate::session::Authenticated;
use crate::store::record::Member;
use crate::store::{Store, StoreError};
use crate::time::Clock;
use crate::wake::Hub;
use crate::work::Work;
pub(crate) use phone::PhonePart;

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
    /// Devices that wait to be linked.
    pub linking: Arc<Linking>,
    /// The public groups of busy conversations.
    pub followed: Followed,
    /// Who is connected.
    pub hub: Arc<Hub>,
    /// What wakes devices; `None`: nothing.
    pub push: Option<Arc<PushPart>>,
    /// What proves phone numbers; `None`: nothing is done with them.
    pub phone: Option<Arc<PhonePart>>,
    /// How often one of those was there.
    pub metrics: Arc<Metrics>,
    /// Where blocking work runs.
    pub work: Work,
}

type Answer = Result<Response, Refusal>;

impl Requests {
    /// Answers a request of a proven device.
    pub(crate) async fn answer(self: &Arc<Self>, from: Authenticated, request: Request) -> Response {
        let answer = match request {
            Request::FindAccount { by, log_from } => self.find_account(from, by, log_from).await,
            Request::PutKeyPackages { key_packages, last_resort, replace } => {
                self.put_key_packages(from, key_packages, last_resort, replace).await
            }
            Request::ClaimKeyPackages { accounts } => self.claim_key_packages(from, accounts).await,
            Request::CreateConversation(create) => self.create(from, create).await,
            Request::SubmitCommit(submit) => self.commit(from, submit).await,
            Request::ReadCommits { conversation, from_epoch } => self.commits(from, conversation, from_epoch).await,
            Request::ReadGroup { conversation } => self.group(from, conversation).await,
            Request::ListConversations { after } => self.list(from, after).await,
            Request::AppendDeviceLog { entry } => self.append_log(from, entry).await,
            Request::ListDevices => self.list_devices(from).await,
            Request::FindLink { link } => self.find_link(from, link),
            Request::AnswerLink { link, payload } => self.answer_link(from, link, payload).await,
            Request::FinishLink { link, payload } => self.finish_link(from, link, payload),
            Request::TakeOver { next } => self.take_over(from, next).await,
            Request::ReadMemberLogs { conversation, after, pending_only } => {
                self.member_logs(from, conversation, after, pending_only).await
            }
            Request::LeaveConversation { conversation, leave } => self.leave(from, conversation, leave).await,
            Request::SetPushTarget(target) => self.set_push_target(from, target).await,
            Request::RemovePushTarget => self.remove_push_target(from).await,
            Request::ReadPush => self.read_push(from).await,
            Request::SetConversation { conversation, accepted, muted_until_ms } => {
                self.set_conversation(from, conversation, accepted, muted_until_ms).await
            }
            Request::SetRelation { account, relation } => self.set_relation(from, account, relation).await,
            Request::ReadRelations { after } => self.relations(from, after).await,
            Request::ReadPreferences { after } => self.preferences(from, after).await,
            Request::RequestCode(phone) => self.code_for_device(from, phone).await,
            Request::SetPhone(change) => self.set_phone(from, change).await,
            Request::SetLock(lock) => self.set_lock(from, lock).await,
            Request::DeleteAccount { handle } => self.delete_account(from, handle).await,
        };
        answer.unwrap_or_else(Response::Refused)
    }

    fn own_log(&self, from: Authenticated) -> Result<Arc<DeviceLog>, Failure> {
        self.directory.log(from.account())?.ok_or_else(|| Refusal::new(Code::DeviceUnknown).into())
    }

    /// Runs something by device logs, of which those are read that it asks for.
    fn by_logs<T>(&self, run: impl FnOnce(&dyn Logs) -> T) -> Result<T, StoreError> {
        let logs = LogsOnDemand { directory: &self.directory, failed: RefCell::new(None) };
        let value = run(&logs);
        match logs.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(value),
        }
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

/// Device logs for the rule of membership, each read when it is asked for.
struct LogsOnDemand<'a> {
    directory: &'a Directory,
    failed: RefCell<Option<StoreError>>,
}

impl Logs for LogsOnDemand<'_> {
    fn log(&self, account: AccountId) -> Option<Arc<DeviceLog>> {
        self.directory.log(account).unwrap_or_else(|error| {
            self.failed.replace(Some(error));
            None
        })
    }

    /// What is asked of the server happens now.
    fn passes_revoked(&self, _: DeviceId) -> bool {
        false
    }
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
