//! Changes of accounts and conversations: rare, validated beforehand, and checked here against what the store says
//! at the moment of writing. A batch holds at most one of them, as its last operation.

mod commits;
mod conversations;
mod key_packages;
mod leave;
mod logs;
mod register;

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, Refusal};

use super::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::StoreError;
use crate::store::record::KeyPackageRecord;
pub use commits::CommitPlan;
pub use conversations::CreatePlan;
pub use leave::LeavePlan;
pub use logs::LogPlan;
pub use register::RegisterPlan;

/// A change, with everything that could be validated without the writer.
#[derive(Debug)]
pub enum Change {
    /// A new account.
    Register(RegisterPlan),
    /// KeyPackages of a device, each with its hash.
    PutKeyPackages {
        /// Whose.
        from: Authenticated,
        /// One-time packages.
        one_time: Vec<([u8; 32], KeyPackageRecord)>,
        /// The new last resort.
        last_resort: Option<([u8; 32], KeyPackageRecord)>,
    },
    /// One KeyPackage of each of these devices that has one.
    ClaimKeyPackages {
        /// Whose.
        account: AccountId,
        /// Its active devices.
        devices: Vec<DeviceId>,
    },
    /// A new conversation.
    Create(CreatePlan),
    /// The end of an epoch.
    Commit(CommitPlan),
    /// An account leaves a group.
    Leave(LeavePlan),
    /// An entry of a device log.
    AppendLog(LogPlan),
}

/// What a change led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The account exists, or existed already with this very root.
    Registered,
    /// So many one-time KeyPackages are there now.
    KeyPackagesStored(u32),
    /// One KeyPackage for each device that had one.
    KeyPackages(Vec<(DeviceId, Bytes)>),
    /// The conversation that was begun, or that was there in its place.
    Conversation {
        /// Its id.
        conversation: ConversationId,
        /// Whether it was there before.
        existed: bool,
        /// Its epoch.
        epoch: u64,
    },
    /// The new epoch.
    Committed {
        /// Its number.
        epoch: u64,
    },
    /// The account has left.
    Left,
    /// The log's new length.
    LogAppended(u64),
}

type Answer = Result<Result<Changed, Refusal>, StoreError>;

impl Planner {
    /// Adds a change to the plan, as its last operation.
    ///
    /// # Errors
    /// As of [`Planner::add`]. A refused change adds nothing.
    pub fn add_change(&mut self, change: Change, now_ms: u64, plan: &mut Plan) -> Answer {
        self.whole_or_nothing(plan, |planner, plan| match change {
            Change::Register(register) => planner.register(&register, now_ms, plan),
            Change::PutKeyPackages { from, one_time, last_resort } => {
                planner.put_key_packages(from, &one_time, last_resort.as_ref(), plan)
            }
            Change::ClaimKeyPackages { account, devices } => {
                planner.claim_key_packages(account, &devices, now_ms, plan)
            }
            Change::Create(create) => planner.create(create, now_ms, plan),
            Change::Commit(commit) => planner.commit(commit, now_ms, plan),
            Change::Leave(leave) => planner.leave(leave, now_ms, plan),
            Change::AppendLog(log) => planner.append_log(&log, now_ms, plan),
        })
    }
}
