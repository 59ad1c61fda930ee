//! What the writer is about to do: from what devices ask to one atomic batch, its answers and its deliveries.
//!
//! Pure but for reads of the store: time, randomness and sealing are handed in. A plan that was not written must
//! be followed by [`Planner::forget`].

mod caches;
mod changes;
mod inboxes;
mod lives;
mod sends;

use std::sync::Arc;

use gureum_proto::{AccountId, Code, DeviceId, Life, MessageId, Notice, Position, Refusal, Send, Sent};

pub use changes::{
    Change, Changed, ClaimPlan, CodePlan, CommitPlan, CreatePlan, KeyPackagesPlan, LeavePlan, LogPlan, PhoneChangePlan,
    PhonePlan, PushTargetPlan, RegisterPlan,
};
pub(crate) use inboxes::counts;

use crate::phone_hash::PhoneHasher;
use crate::session::Authenticated;
use crate::store::record::{PushStateRecord, SealedMessage};
use crate::store::{self, Batch, BatchEnd, Family, Record, Store, StoreError};
use crate::wake::Delivery;
use caches::Caches;

/// Bounds that the operator sets.
#[derive(Debug, Clone, Copy)]
pub struct PlanConfig {
    /// How long messages stay, in milliseconds.
    pub retention_ms: u64,
    /// Entries that one inbox may hold.
    pub inbox_entries_max: u64,
    /// Bytes of bodies that one inbox may hold.
    pub inbox_bytes_max: u64,
}

/// Seals a message body for the disk.
pub trait Seal: std::marker::Send + Sync {
    /// Seals `plain` under the key of `now_ms`, bound to the message's id.
    ///
    /// # Errors
    /// When no key can be had.
    fn seal(&self, id: MessageId, plain: &[u8], now_ms: u64) -> Result<SealedMessage, StoreError>;
}

/// One thing that the writer is asked for, by a proven device or by who wakes devices.
#[derive(Debug)]
pub enum Op {
    /// Store and deliver a message.
    Send {
        /// Who sends.
        from: Authenticated,
        /// What.
        send: Send,
    },
    /// Move a device's cursor.
    Ack {
        /// Whose.
        from: Authenticated,
        /// To where.
        position: Position,
    },
    /// A device's life goes on.
    Live {
        /// Whose.
        from: Authenticated,
        /// What it has claimed.
        life: Life,
    },
    /// Note that a device has proven itself.
    Seen {
        /// Which.
        from: Authenticated,
    },
    /// Note what a device was last woken for.
    Pushed {
        /// Whose.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// What it was woken for; zeros once it has come.
        state: PushStateRecord,
    },
    /// Note that a device was woken for what its person has to know at once, or has come by itself.
    Rung {
        /// Whose.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// Since when that was owed.
        owed_ms: u64,
    },
}

/// A batch ready to be written, and what follows when it has been.
#[derive(Debug, Default)]
pub struct Plan {
    /// The writes.
    pub batch: Batch,
    /// Whether anything in it must be on the disk before the answers go out.
    pub must_sync: bool,
    /// For each send, in order: its answer.
    pub sent: Vec<Sent>,
    /// New entries, for the tails and wakes.
    pub deliveries: Vec<(AccountId, Delivery)>,
    /// Positions that every device of an account has taken.
    pub floors: Vec<(AccountId, u64)>,
    /// Devices that may no longer act, with the code that says why.
    pub revoked: Vec<(AccountId, DeviceId, Code)>,
    /// Devices that are to put new KeyPackages.
    pub notices: Vec<(AccountId, DeviceId, Notice)>,
    /// Inboxes that have got a message of somebody else's, and where it stands there: whose devices may have to be woken.
    pub grown: Vec<(AccountId, u64)>,
    /// Up to where a device of an account has taken its inbox.
    pub taken: Vec<(AccountId, u64)>,
    /// Devices that are woken nowhere any more.
    pub untargeted: Vec<(AccountId, DeviceId)>,
    /// Devices whose person has to know something at once, and since when.
    pub alarmed: Vec<(AccountId, DeviceId, u64)>,
}

/// How far a plan had come before an operation.
struct PlanEnd {
    batch: BatchEnd,
    must_sync: bool,
    sent: usize,
    deliveries: usize,
    floors: usize,
    revoked: usize,
    notices: usize,
    grown: usize,
    taken: usize,
    untargeted: usize,
    alarmed: usize,
}

impl Plan {
    fn end(&self) -> PlanEnd {
        PlanEnd {
            batch: self.batch.end(),
            must_sync: self.must_sync,
            sent: self.sent.len(),
            deliveries: self.deliveries.len(),
            floors: self.floors.len(),
            revoked: self.revoked.len(),
            notices: self.notices.len(),
            grown: self.grown.len(),
            taken: self.taken.len(),
            untargeted: self.untargeted.len(),
            alarmed: self.alarmed.len(),
        }
    }

    fn cut(&mut self, end: &PlanEnd) {
        self.batch.cut(end.batch);
        self.must_sync = end.must_sync;
        self.sent.truncate(end.sent);
        self.deliveries.truncate(end.deliveries);
        self.floors.truncate(end.floors);
        self.revoked.truncate(end.revoked);
        self.notices.truncate(end.notices);
        self.grown.truncate(end.grown);
        self.taken.truncate(end.taken);
        self.untargeted.truncate(end.untargeted);
        self.alarmed.truncate(end.alarmed);
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.must_sync = false;
        self.sent.clear();
        self.deliveries.clear();
        self.floors.clear();
        self.revoked.clear();
        self.notices.clear();
        self.grown.clear();
        self.taken.clear();
        self.untargeted.clear();
        self.alarmed.clear();
    }
}

/// Plans batches over a store; the only one that writes to it.
pub struct Planner {
    store: Arc<dyn Store>,
    seal: Arc<dyn Seal>,
    config: PlanConfig,
    ids: Ids,
    caches: Caches,
    /// `None`: nothing is proven by phone here.
    hasher: Option<Arc<PhoneHasher>>,
}

impl Planner {
    /// A planner whose message ids take their randomness from `entropy`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        seal: Arc<dyn Seal>,
        config: PlanConfig,
        entropy: Box<dyn FnMut() -> u128 + std::marker::Send>,
    ) -> Self {
        let ids = Ids { entropy, last_ms: 0, tail: 0 };
        Self { store, seal, config, ids, caches: Caches::default(), hasher: None }
    }

    /// The same where phone numbers are proven, whose locks are hashed by this.
    #[must_use]
    pub fn with_hasher(mut self, hasher: Arc<PhoneHasher>) -> Self {
        self.hasher = Some(hasher);
        self
    }

    /// Adds one operation to the plan. The answer to a send is pushed to `plan.sent`, unless this fails.
    ///
    /// # Errors
    /// When what it needs cannot be read or sealed: then the plan is as it was, and the others of it are not concerned.
    pub fn add(&mut self, op: Op, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        self.whole_or_nothing(plan, |planner, plan| match op {
            Op::Send { from, send } => planner.add_send(from, send, now_ms, plan),
            Op::Ack { from, position } => planner.add_ack(from, position, plan),
            Op::Live { from, life } => planner.add_life(from, &life),
            Op::Seen { from } => planner.add_seen(from, now_ms, plan),
            Op::Pushed { account, device, state } => planner.add_pushed(account, device, &state, plan),
            Op::Rung { account, device, owed_ms } => planner.add_rung(account, device, owed_ms, plan),
        })
    }

    /// Takes back what an operation has done before it failed.
    fn whole_or_nothing<T>(
        &mut self,
        plan: &mut Plan,
        add: impl FnOnce(&mut Self, &mut Plan) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let before = plan.end();
        self.caches.begin();
        let added = add(self, plan);
        if added.is_err() {
            plan.cut(&before);
            self.caches.take_back();
        }
        added
    }

    /// Writes what the operations touched into the batch. Once, after the last one.
    pub fn finish(&mut self, plan: &mut Plan) {
        self.caches.flush(&mut plan.batch);
    }

    /// Forgets everything that is not on the disk.
    pub fn forget(&mut self) {
        self.caches = Caches::default();
    }

    fn read<T: Record>(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<T>, StoreError> {
        store::read(self.store.as_ref(), family, key.as_ref())
    }
}

impl std::fmt::Debug for Planner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Message ids in strictly ascending order: within a millisecond a counter from a random start goes up.
struct Ids {
    entropy: Box<dyn FnMut() -> u128 + std::marker::Send>,
    last_ms: u64,
    tail: u128,
}

impl Ids {
    /// 74 bits are free in a UUIDv7; the start leaves the highest one for counting.
    const START_MASK: u128 = (1 << 73) - 1;

    fn next(&mut self, now_ms: u64) -> MessageId {
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            self.tail = (self.entropy)() & Self::START_MASK;
        } else {
            self.tail += 1;
        }
        MessageId::new(self.last_ms, self.tail)
    }
}

fn refuse(counter: u64, code: Code) -> Sent {
    Sent { counter, result: Err(Refusal::new(code)) }
}

#[cfg(test)]
mod tests;
