//! Changes of accounts and conversations: rare, validated beforehand, and checked here against what the store says
//! at the moment of writing. A batch holds at most one of them, as its last operation.

mod commits;
mod conversations;
mod delete;
mod key_packages;
mod leave;
mod logs;
mod register;

use gureum_proto::{AccountId, ConversationId, Handle, KeyPackages, LifeToken, Refusal};

use super::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::StoreError;
pub use commits::CommitPlan;
pub use conversations::CreatePlan;
pub use key_packages::{ClaimPlan, KeyPackagesPlan};
pub use leave::LeavePlan;
pub use logs::LogPlan;
pub use register::RegisterPlan;

/// A change, with everything that could be validated without the writer.
#[derive(Debug)]
pub enum Change {
    /// A new account.
    Register(RegisterPlan),
    /// KeyPackages of a device.
    PutKeyPackages(KeyPackagesPlan),
    /// One KeyPackage of each device that has one.
    ClaimKeyPackages(ClaimPlan),
    /// A new conversation.
    Create(CreatePlan),
    /// The end of an epoch.
    Commit(CommitPlan),
    /// An account leaves a group.
    Leave(LeavePlan),
    /// An entry of a device log.
    AppendLog(LogPlan),
    /// The end of the account of a handle, as its operator wants it.
    Delete(Handle),
    /// A device goes on from another copy of its state.
    TakeOver {
        /// Whose.
        from: Authenticated,
        /// What the copy's connection is given.
        next: LifeToken,
    },
}

/// What a change led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The account exists, or existed already with this very root.
    Registered,
    /// So many one-time KeyPackages are there now.
    KeyPackagesStored(u32),
    /// One KeyPackage for each device that had one.
    KeyPackages(KeyPackages),
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
    /// The account does not exist any more.
    Deleted {
        /// Which.
        account: AccountId,
        /// How many devices were cut off.
        devices: usize,
    },
    /// The device goes on from this copy.
    TakenOver {
        /// The generation that its next connection claims.
        generation: u64,
        /// The highest counter accepted from it.
        accepted_counter: u64,
    },
}

pub(super) type Answer = Result<Result<Changed, Refusal>, StoreError>;

impl Planner {
    /// Adds a change to the plan, as its last operation.
    ///
    /// # Errors
    /// As of [`Planner::add`]. A refused change adds nothing to the batch.
    pub fn add_change(&mut self, change: Change, now_ms: u64, plan: &mut Plan) -> Answer {
        self.whole_or_nothing(plan, |planner, plan| match change {
            Change::Register(register) => planner.register(&register, now_ms, plan),
            Change::PutKeyPackages(put) => planner.put_key_packages(&put, plan),
            Change::ClaimKeyPackages(claim) => planner.claim_key_packages(&claim, now_ms, plan),
            Change::Create(create) => planner.create(create, now_ms, plan),
            Change::Commit(commit) => planner.commit(commit, now_ms, plan),
            Change::Leave(leave) => planner.leave(leave, now_ms, plan),
            Change::AppendLog(log) => planner.append_log(&log, now_ms, plan),
            Change::Delete(handle) => planner.delete(&handle, now_ms, plan),
            Change::TakeOver { from, next } => planner.take_over(from, next, plan),
        })
    }
}
