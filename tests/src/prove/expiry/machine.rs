//! The parts of a server that store and forget, put together as a server does it, under a clock that is moved by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gureum_proto::{MessageId, Position, Sent};
use gureum_server::inbox::{Inboxes, Open};
use gureum_server::router::{Change, Changed, Op, Plan, PlanConfig, Planner, Seal};
use gureum_server::seal::Keyring;
use gureum_server::session::Item;
use gureum_server::store::rocks::RocksStore;
use gureum_server::store::{self, Durability, Expiry, Family, Retentions, Store, TakenFloors};
use gureum_server::time::{Clock, ManualClock};
use gureum_server::wake::Hub;

use super::people::Device;
use super::{RETENTION_MS, START_MS};

/// No inbox of a run comes near it: what is missing has expired.
const INBOX_ENTRIES_MAX: u64 = 10_000_000;
/// Pages of one read, far above what an inbox holds.
const PAGES_MAX: usize = 100_000;

/// Time spent in the parts.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Spent {
    pub(super) plan: Duration,
    pub(super) write: Duration,
    pub(super) read: Duration,
    pub(super) reclaim: Duration,
    pub(super) write_max: Duration,
    pub(super) reclaim_max: Duration,
}

/// A server without its network.
pub(super) struct Machine {
    pub(super) time: Arc<ManualClock>,
    pub(super) clock: Arc<Clock>,
    pub(super) store: Arc<RocksStore>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) spent: Spent,
    pub(super) periods: store::expiry::ReclaimPeriods,
    floors: Arc<TakenFloors>,
    planner: Planner,
    plan: Plan,
    inboxes: Inboxes,
}

impl Machine {
    pub(super) fn open(directory: &Path) -> Self {
        let time = Arc::new(ManualClock::at(START_MS));
        let clock = Arc::new(Clock::resume(Arc::clone(&time) as _, RETENTION_MS, None).expect("a first start"));
        let floors = Arc::new(TakenFloors::default());
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms: RETENTION_MS,
            commit_retention_ms: 10 * RETENTION_MS,
            floors: Arc::clone(&floors),
        };
        let periods = expiry.periods();
        let store = Arc::new(RocksStore::open(directory, expiry).expect("a new directory opens"));
        let keyring = Arc::new(Keyring::open(&directory.join("keys"), None, RETENTION_MS).expect("a new keyring"));
        keyring.tick(START_MS).expect("a first key");
        let config = PlanConfig {
            retention_ms: RETENTION_MS,
            inbox_entries_max: INBOX_ENTRIES_MAX,
            inbox_bytes_max: u64::MAX / 2,
        };
        let mut tail = 0_u64;
        // Ids need to differ, not to be unguessable here.
        let entropy = move || {
            tail += 1;
            u128::from(super::mixed(tail)) << 64 | u128::from(super::mixed(!tail))
        };
        let seal = Arc::clone(&keyring) as Arc<dyn Seal>;
        let planner = Planner::new(Arc::clone(&store) as _, seal, config, Box::new(entropy));
        let inboxes = Inboxes {
            store: Arc::clone(&store) as _,
            hub: Arc::new(Hub::new()),
            seal: Arc::clone(&keyring) as Arc<dyn Open>,
            clock: Arc::clone(&clock),
            retentions: Retentions { message_ms: RETENTION_MS, commit_ms: 10 * RETENTION_MS },
        };
        let (spent, plan) = (Spent::default(), Plan::default());
        Self { time, clock, store, keyring, spent, periods, floors, planner, plan, inboxes }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn add(&mut self, op: Op) {
        let (started, now_ms) = (Instant::now(), self.now_ms());
        self.planner.add(op, now_ms, &mut self.plan).expect("the store can be read");
        self.spent.plan += started.elapsed();
    }

    pub(super) fn change(&mut self, change: Change) -> Changed {
        let now_ms = self.now_ms();
        let changed = self.planner.add_change(change, now_ms, &mut self.plan).expect("the store can be read");
        let changed = changed.expect("the change is accepted");
        self.commit();
        changed
    }

    /// Writes what was added as one durable batch and returns the answers to the sends, and the bytes of their bodies.
    pub(super) fn commit(&mut self) -> (Vec<Sent>, u64) {
        let started = Instant::now();
        self.planner.finish(&mut self.plan);
        let planned = Instant::now();
        self.store.write(&self.plan.batch, Durability::Synced).expect("the disk takes it");
        let written = planned.elapsed();
        self.spent.plan += planned - started;
        self.spent.write += written;
        self.spent.write_max = self.spent.write_max.max(written);
        for (account, seq) in self.plan.floors.drain(..) {
            self.floors.raise(&account, seq);
        }
        let bodies = self.plan.batch.changes().map(|change| match change {
            store::Change::Put { family: Family::Message, key, value } => key.len() + value.len(),
            _ => 0,
        });
        let body_bytes = u64::try_from(bodies.sum::<usize>()).expect("a batch is small");
        let sent = std::mem::take(&mut self.plan.sent);
        self.plan.clear();
        (sent, body_bytes)
    }

    /// Everything after a position, as a device gets it.
    pub(super) fn read(&mut self, device: &Device, after: Position) -> Vec<Item> {
        let started = Instant::now();
        let (mut items, mut at) = (Vec::new(), after);
        for _ in 0..PAGES_MAX {
            let page = self.inboxes.read_store(device.authority.account(), at).expect("the inbox can be read");
            at = page.items.iter().fold(at, |_, item| match item {
                Item::Envelope { position, .. } => *position,
                Item::Gap(gap) => gap.to,
                Item::CaughtUp { .. } => at,
            });
            items.extend(page.items);
            if !page.more {
                self.spent.read += started.elapsed();
                return items;
            }
        }
        panic!("an inbox has no end");
    }

    /// A round of maintenance, as a server makes it.
    pub(super) fn round(&mut self) -> store::Reclaimed {
        let now_ms = self.now_ms();
        self.keyring.tick(now_ms).expect("a key is made");
        self.keyring.destroy_expired(now_ms).expect("an expired key is destroyed");
        let started = Instant::now();
        let reclaimed = self.store.reclaim().expect("the disk can be reclaimed");
        let took = started.elapsed();
        self.spent.reclaim += took;
        self.spent.reclaim_max = self.spent.reclaim_max.max(took);
        reclaimed
    }

    /// Where a message's sealed body lies.
    pub(super) fn sealed(&self, id: MessageId) -> bytes::Bytes {
        let key = store::key::message(&id);
        self.store.get(Family::Message, key.as_ref()).expect("the store can be read").expect("just written")
    }
}
