//! Changes of accounts and conversations: rare, validated beforehand, and checked here against what the store says
//! at the moment of writing. A batch holds at most one of them, as its last operation.

mod commits;
mod conversations;
mod delete;
mod key_packages;
mod leave;
mod logs;
mod people;
mod phone;
mod push;
mod register;

use gureum_proto::{AccountId, Code, ConversationId, DeviceId, Handle, KeyPackages, LifeToken, Refusal, Relation};

use super::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag};
use crate::store::record::PreferenceRecord;
use crate::store::{Family, StoreError};
pub use commits::CommitPlan;
pub use conversations::CreatePlan;
pub use key_packages::{ClaimPlan, KeyPackagesPlan};
pub use leave::LeavePlan;
pub use logs::LogPlan;
pub use phone::{CodePlan, PhoneChangePlan, PhonePlan};
pub use push::PushTargetPlan;
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
    /// Where a device is woken from now on.
    SetPushTarget(PushTargetPlan),
    /// A device is woken nowhere any more.
    DropPushTarget {
        /// Whose.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// Only if its target is still this one; `None`: whichever.
        generation: Option<u64>,
    },
    /// How an account takes one of its conversations.
    SetConversation {
        /// Whose device says so.
        from: Authenticated,
        /// Which conversation.
        conversation: ConversationId,
        /// How.
        preference: PreferenceRecord,
    },
    /// How an account stands to another.
    SetRelation {
        /// Whose device says so.
        from: Authenticated,
        /// The other.
        other: AccountId,
        /// How.
        relation: Relation,
    },
    /// A code that is about to be sent.
    StoreCode(CodePlan),
    /// Which phone number an account has.
    SetPhone {
        /// Whose device says so.
        from: Authenticated,
        /// What becomes of the number.
        change: PhoneChangePlan,
    },
    /// The registration lock of an account's number.
    SetLock {
        /// Whose device says so.
        from: Authenticated,
        /// The keyed hash of what opens it; `None`: no lock.
        hash: Option<[u8; 32]>,
    },
    /// The end of the account of a device, as its owner wants it.
    DeleteOwn {
        /// Whose device says so.
        from: Authenticated,
        /// The account's handle, as confirmation.
        handle: Handle,
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
    /// It is so now.
    Done,
    /// The code may be sent.
    CodeStored {
        /// How many were stored on this day, with it.
        spent: u32,
    },
    /// The phone number is the account's now, and another's no more.
    Moved {
        /// Whose it was.
        from: AccountId,
    },
}

pub(super) type Answer = Result<Result<Changed, Refusal>, StoreError>;

impl Planner {
    /// Adds a change to the plan, as its last operation.
    ///
    /// # Errors
    /// As of [`Planner::add`]. A refused change adds nothing to the batch, but for what a wrong code and a wrong PIN cost,
    /// and that somebody has tried: that is on the disk before the answer, too.
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
            Change::SetPushTarget(set) => planner.set_push_target(&set, plan),
            Change::DropPushTarget { account, device, generation } => {
                planner.drop_push_target(account, device, generation, plan)
            }
            Change::SetConversation { from, conversation, preference } => {
                planner.set_conversation(from, conversation, preference, plan)
            }
            Change::SetRelation { from, other, relation } => planner.set_relation(from, other, relation, plan),
            Change::StoreCode(code) => planner.store_code(&code, now_ms, plan),
            Change::SetPhone { from, change } => planner.set_phone(from, &change, now_ms, plan),
            Change::SetLock { from, hash } => planner.set_lock(from, hash, plan),
            Change::DeleteOwn { from, handle } => planner.delete_own(from, &handle, now_ms, plan),
        })
    }

    /// Why a device may not act any more, where it was cut off since it was heard.
    fn cut_off_since(&self, from: Authenticated) -> Result<Option<Refusal>, StoreError> {
        if self.is_gone(from.account())? {
            return Ok(Some(Refusal::new(Code::AccountGone)));
        }
        let cursor = key::cursor(&from.account(), &from.device(), CursorTag::Cursor);
        let is_there = self.store.get(Family::Cursor, cursor.as_ref())?.is_some();
        Ok((!is_there).then(|| Refusal::new(Code::DeviceRevoked)))
    }
}
