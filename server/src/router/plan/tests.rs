//! Plans over the store in memory: what is accepted stands there once, dense, and survives every way of forgetting.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod absent;
mod bounds;
mod changes;
mod damage;
mod gone;
mod group_life;
mod groups;
mod key_packages;
mod leaving;
mod lives;
mod model;
mod people;
mod phone;
mod revoked;
mod sends;

use bytes::Bytes;
use gureum_proto::{Accepted, ConversationId, ConversationWith, Gone};

use super::*;
use crate::store::conformance::{RETENTION_MS, START_MS, expiry};
use crate::store::faulty::FaultyStore;
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::memory::MemoryStore;
use crate::store::record::{
    ConversationHead, ConversationKind, Cursor, InboxBody, InboxEntry, InboxHead, Member, SealedMessage,
};
use crate::store::{Durability, Expiry, Family, audit};
use crate::time::ManualClock;

const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
const EVE: AccountId = AccountId::from_bytes([0xe0; 16]);
const TALK: ConversationId = ConversationId::from_bytes([0xc0; 16]);
/// The epoch at which the bench sets a conversation up.
const EPOCH: u64 = 10;

/// Leaves bodies as they are.
struct Plain;

impl Seal for Plain {
    fn seal(&self, _id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        Ok(SealedMessage { key_id: 0, nonce: [0; 12], ciphertext: Bytes::copy_from_slice(plain) })
    }
}

/// An account's device of that number.
fn device(account: AccountId, number: u8) -> Authenticated {
    let mut id = account.to_bytes();
    id[15] = number;
    Authenticated::for_test(account, DeviceId::from_bytes(id))
}

fn member(device: Authenticated) -> Member {
    Member { account: device.account(), device: device.device(), leaf: 0 }
}

/// A planner with its store, and a clock that is moved by hand.
struct Bench {
    store: Arc<FaultyStore<MemoryStore>>,
    time: Arc<ManualClock>,
    expiry: Expiry,
    planner: Planner,
    config: PlanConfig,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self::bounded(1_000, 1 << 20)
    }

    fn bounded(inbox_entries_max: u64, inbox_bytes_max: u64) -> Self {
        let (time, expiry) = expiry();
        let store = Arc::new(FaultyStore::new(MemoryStore::new(expiry.clone())));
        let config = PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max, inbox_bytes_max };
        let planner = planner(&store, config);
        Self { store, time, expiry, planner, config, now_ms: START_MS }
    }

    /// A conversation of Alice with one device and Bob with one device.
    fn talk() -> Self {
        Self::new().with_members(&[device(ALICE, 1), device(BOB, 1)])
    }

    /// Devices that have never read anything.
    fn of(devices: &[Authenticated]) -> Self {
        let bench = Self::new();
        bench.add_devices(devices);
        bench
    }

    fn add_devices(&self, devices: &[Authenticated]) {
        let mut batch = Batch::new();
        for device in devices {
            let cursor = key::cursor(&device.account(), &device.device(), CursorTag::Cursor);
            batch.put_record(Family::Cursor, cursor, &Cursor::default());
        }
        self.store.write(&batch, Durability::Synced).unwrap();
    }

    /// Puts the conversation and its devices into the store, as if they had come about.
    fn with_members(self, members: &[Authenticated]) -> Self {
        self.with(ConversationKind::Direct, members)
    }

    /// The same of a group.
    fn with_group(self, members: &[Authenticated]) -> Self {
        self.with(ConversationKind::Group, members)
    }

    fn with(self, kind: ConversationKind, members: &[Authenticated]) -> Self {
        let head = ConversationHead {
            epoch: EPOCH,
            created_ms: START_MS,
            kind,
            members: members.iter().copied().map(member).collect(),
        };
        let mut batch = Batch::new();
        batch.put_record(Family::Conversation, key::conversation(&TALK, ConversationTag::Head), &head);
        self.add_devices(members);
        for device in members {
            batch.put_record(Family::Directory, key::membership(&device.account(), &TALK), &());
        }
        self.store.write(&batch, Durability::Synced).unwrap();
        self
    }

    /// As after a restart, which takes a while.
    fn reopen(&mut self) {
        self.advance(1);
        self.planner = planner(&self.store, self.config);
    }

    fn advance(&mut self, ms: u64) {
        self.time.advance(ms);
        self.now_ms += ms;
    }

    /// Plans operations as one batch and writes it.
    fn run(&mut self, ops: impl IntoIterator<Item = Op>) -> Plan {
        let plan = self.plan(ops);
        self.write(&plan).unwrap();
        plan
    }

    fn plan(&mut self, ops: impl IntoIterator<Item = Op>) -> Plan {
        let mut plan = Plan::default();
        ops.into_iter().for_each(|op| self.planner.add(op, self.now_ms, &mut plan).unwrap());
        self.planner.finish(&mut plan);
        plan
    }

    fn write(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let broken = audit::batch(self.store.as_ref(), &plan.batch, &self.expiry).unwrap();
        assert_eq!(broken, [], "no plan breaks an invariant of the store");
        let written = self.store.write(&plan.batch, Durability::Synced);
        if written.is_err() {
            self.planner.forget();
        }
        written
    }

    /// One send in a batch of its own.
    fn send(&mut self, from: Authenticated, counter: u64) -> Result<Accepted, Refusal> {
        let sent = self.run([send(from, counter)]).sent;
        let [Sent { counter: answered, result }] = <[Sent; 1]>::try_from(sent).unwrap();
        assert_eq!(answered, counter);
        result
    }

    fn ack(&mut self, from: Authenticated, seq: u64, count: u64) -> Plan {
        self.run([ack(from, seq, count)])
    }

    /// One change in a batch of its own.
    fn change(&mut self, change: Change) -> (Result<Changed, Refusal>, Plan) {
        let mut plan = Plan::default();
        let changed = self.planner.add_change(change, self.now_ms, &mut plan).unwrap();
        self.planner.finish(&mut plan);
        self.write(&plan).unwrap();
        (changed, plan)
    }

    #[track_caller]
    fn changes(&mut self, change: Change, expected: Changed) -> Plan {
        let (changed, plan) = self.change(change);
        assert_eq!(changed, Ok(expected));
        plan
    }

    #[track_caller]
    fn refuses(&mut self, change: Change, expected: Code) {
        let (changed, plan) = self.change(change);
        assert_eq!(changed.map_err(|refusal| refusal.code), Err(expected));
        assert!(plan.batch.is_empty(), "a refused change adds nothing");
    }

    fn get<T: Record>(&self, family: Family, key: impl AsRef<[u8]>) -> Option<T> {
        store::read(self.store.as_ref(), family, key.as_ref()).unwrap()
    }

    fn head(&self, account: AccountId) -> InboxHead {
        self.get(Family::InboxHead, key::inbox_head(&account)).unwrap_or_default()
    }

    fn cursor(&self, device: Authenticated) -> Option<Cursor> {
        self.get(Family::Cursor, key::cursor(&device.account(), &device.device(), CursorTag::Cursor))
    }

    fn inbox(&self, account: AccountId) -> Vec<(u64, InboxEntry)> {
        let range = key::inbox_after(&account, 0);
        let entries = self.store.scan(Family::Inbox, range.as_range(), usize::MAX).unwrap();
        let read = |(key, value): &(Bytes, Bytes)| {
            (key::parse_inbox(key).unwrap().1, store::decode(Family::Inbox, value).unwrap())
        };
        entries.iter().map(read).collect()
    }

    fn message(&self, id: MessageId) -> Option<SealedMessage> {
        self.get(Family::Message, key::message(&id))
    }

    /// Everything that is stored.
    fn contents(&self) -> Vec<(Family, Bytes, Bytes)> {
        let all = Family::ALL.into_iter();
        all.flat_map(|family| {
            let entries = self.store.scan(family, &[]..&[0xff; 80], usize::MAX).unwrap();
            entries.into_iter().map(move |(key, value)| (family, key, value))
        })
        .collect()
    }
}

fn planner(store: &Arc<FaultyStore<MemoryStore>>, config: PlanConfig) -> Planner {
    let mut next = 0_u128;
    let entropy = move || {
        next += 1_000;
        next
    };
    Planner::new(Arc::clone(store) as _, Arc::new(Plain), config, Box::new(entropy)).with_hasher(Arc::new(hasher()))
}

fn hasher() -> PhoneHasher {
    PhoneHasher::new([9; 32])
}

fn send(from: Authenticated, counter: u64) -> Op {
    send_at(from, counter, EPOCH)
}

fn send_at(from: Authenticated, counter: u64, epoch: u64) -> Op {
    let ciphertext = Bytes::from(format!("sealed {counter}"));
    Op::Send { from, send: Send { counter, conversation: TALK, epoch, ciphertext, silent: false } }
}

/// The same for programs alone.
fn silently(op: Op) -> Op {
    match op {
        Op::Send { from, send } => Op::Send { from, send: Send { silent: true, ..send } },
        other => other,
    }
}

/// The second entry of an account's log, by which another of its devices revokes one.
fn revocation(of: Authenticated) -> Change {
    let account = of.account();
    let by = if of == device(account, 1) { 2 } else { 1 };
    Change::AppendLog(LogPlan {
        account,
        from: device(account, by).device(),
        index: 1,
        entry: Bytes::from_static(b"revocation"),
        added: vec![],
        revoked: vec![of.device()],
        recovery_keys: None,
    })
}

fn ack(from: Authenticated, seq: u64, count: u64) -> Op {
    Op::Ack { from, position: Position { seq, count } }
}

#[track_caller]
fn is_new(result: &Result<Accepted, Refusal>) -> MessageId {
    let accepted = result.as_ref().unwrap();
    assert!(!accepted.repeated, "answered as a repetition");
    accepted.message_id.unwrap()
}

#[track_caller]
fn is_refused(result: Result<Accepted, Refusal>, expected: Code) {
    assert_eq!(result.map_err(|refusal| refusal.code), Err(expected));
}
