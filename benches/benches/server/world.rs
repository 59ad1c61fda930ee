//! A store on the disk with conversations in it, and the steps of the server's writer over it.

use std::sync::Arc;

use bytes::Bytes;
use gureum_benches::payload;
use gureum_benches::proven::{COMMIT_RETENTION_MS, RETENTION_MS};
use gureum_proto::{AccountId, Code, ConversationId, DeviceId, Notice, Send};
use gureum_server::inbox::Inboxes;
use gureum_server::router::{Op, Plan, PlanConfig, Planner};
use gureum_server::seal::Keyring;
use gureum_server::session::Authenticated;
use gureum_server::store::key::{self, ConversationTag, CursorTag};
use gureum_server::store::record::{ConversationHead, ConversationKind, Cursor, Member};
use gureum_server::store::rocks::RocksStore;
use gureum_server::store::{Batch, Durability, Expiry, Family, Retentions, Store, TakenFloors};
use gureum_server::time::{Clock, SystemClock};
use gureum_server::wake::{Attached, Hub, Listener, Wake};
use tempfile::TempDir;

use crate::proven::authority;

/// A short message, as MLS makes it.
pub(crate) const BODY_BYTES: usize = 256;

const EPOCH: u64 = 1;

/// Conversations, whose first members take turns to send.
pub(crate) struct World {
    store: Arc<RocksStore>,
    keyring: Arc<Keyring>,
    clock: Arc<Clock>,
    hub: Arc<Hub>,
    planner: Planner,
    plan: Plan,
    senders: Vec<Sender>,
    turn: usize,
    body: Bytes,
    /// Declared last: removed when nothing has it open any more.
    _directory: TempDir,
}

struct Sender {
    authority: Authenticated,
    conversation: ConversationId,
    /// Who is written to first.
    recipient: Member,
    sent: u64,
}

/// A device that subscribes, and hears nothing.
struct Deaf;

impl Listener for Deaf {
    fn wake(&self) {}
    fn displace(&self) {}
    fn revoke(&self, _: Code) {}
    fn copied(&self) {}
    fn notice(&self, _: Notice) {}
    fn signal(&self, _: &Bytes) {}
}

impl World {
    /// So many conversations of two.
    pub(crate) fn pairs(pairs: usize) -> Self {
        let mut world = Self::empty();
        for pair in 0..pairs {
            world.converse(pair, ConversationKind::Direct, 1);
        }
        world
    }

    /// One group of a sender and so many other accounts.
    pub(crate) fn group(recipients: usize) -> Self {
        let mut world = Self::empty();
        world.converse(0, ConversationKind::Group, recipients);
        world
    }

    fn empty() -> Self {
        let directory = data_directory();
        let clock = Clock::resume(Arc::new(SystemClock::new()), RETENTION_MS, None).expect("a new clock is believed");
        let clock = Arc::new(clock);
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms: RETENTION_MS,
            commit_retention_ms: COMMIT_RETENTION_MS,
            floors: Arc::new(TakenFloors::default()),
        };
        let store = Arc::new(RocksStore::open(directory.path(), expiry).expect("a new store"));
        let keyring = Keyring::open(&directory.path().join("keys"), None, RETENTION_MS).expect("a new keyring");
        keyring.tick(clock.now_ms()).expect("keys can be made");
        let keyring = Arc::new(keyring);
        // The server's own bounds, if nothing else is set.
        let config =
            PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: 100_000, inbox_bytes_max: 256 * 1024 * 1024 };
        let planner = Planner::new(Arc::clone(&store) as _, Arc::clone(&keyring) as _, config, Box::new(|| 0));
        Self {
            store,
            keyring,
            clock,
            hub: Arc::new(Hub::new()),
            planner,
            plan: Plan::default(),
            senders: Vec::new(),
            turn: 0,
            body: payload(BODY_BYTES),
            _directory: directory,
        }
    }

    /// Puts a conversation into the store, as if it had come about.
    fn converse(&mut self, number: usize, kind: ConversationKind, recipients: usize) {
        let conversation = ConversationId::from_bytes(id("conversation", number, 0));
        let member = |place: usize| Member {
            account: AccountId::from_bytes(id("account", number, place)),
            device: DeviceId::from_bytes(id("device", number, place)),
            leaf: u32::try_from(place).expect("groups are small"),
        };
        let (sender, recipient) = (member(0), member(1));
        let members: Vec<Member> = (0..=recipients).map(member).collect();
        let mut batch = Batch::new();
        for Member { account, device, .. } in &members {
            let cursor = key::cursor(account, device, CursorTag::Cursor);
            batch.put_record(Family::Cursor, cursor, &Cursor::default());
            batch.put_record(Family::Directory, key::membership(account, &conversation), &());
        }
        let head = ConversationHead { epoch: EPOCH, created_ms: self.clock.now_ms(), kind, members };
        batch.put_record(Family::Conversation, key::conversation(&conversation, ConversationTag::Head), &head);
        self.store.write(&batch, Durability::Synced).expect("the disk takes it");
        let authority = authority(sender.account, sender.device);
        self.senders.push(Sender { authority, conversation, recipient, sent: 0 });
    }

    /// What the writer does with so many sends in its queue: one batch, one fsync, and the deliveries.
    pub(crate) fn append(&mut self, messages: usize) {
        let now_ms = self.clock.now_ms();
        for _ in 0..messages {
            let op = self.next_send();
            self.planner.add(op, now_ms, &mut self.plan).expect("it can be planned");
        }
        self.planner.finish(&mut self.plan);
        assert!(self.plan.sent.iter().all(|sent| sent.result.is_ok()), "all are accepted");
        self.store.write(&self.plan.batch, Durability::Synced).expect("the disk takes it");
        self.hub.deliver(&mut self.plan.deliveries);
        self.plan.clear();
    }

    fn next_send(&mut self) -> Op {
        self.turn = (self.turn + 1) % self.senders.len();
        let sender = self.senders.get_mut(self.turn).expect("a remainder is below the length");
        sender.sent += 1;
        let (counter, conversation, ciphertext) = (sender.sent, sender.conversation, self.body.clone());
        Op::Send {
            from: sender.authority,
            send: Send { counter, conversation, epoch: EPOCH, ciphertext, silent: false },
        }
    }

    /// The first who is written to.
    pub(crate) fn reader(&self) -> Member {
        self.senders.first().expect("there is a conversation").recipient
    }

    /// Subscribes a device: its account's inbox has a tail as long as this is held.
    pub(crate) fn attach(&self, reader: Member) -> Attached {
        self.hub.attach(reader.account, reader.device, true, Arc::new(Deaf))
    }

    /// Brings everything to tables.
    pub(crate) fn flush(&self) {
        self.store.close().expect("the disk takes it");
    }

    pub(crate) fn inboxes(&self) -> Inboxes {
        Inboxes {
            store: Arc::clone(&self.store) as _,
            hub: Arc::clone(&self.hub),
            seal: Arc::clone(&self.keyring) as _,
            clock: Arc::clone(&self.clock),
            retentions: Retentions { message_ms: RETENTION_MS, commit_ms: COMMIT_RETENTION_MS },
        }
    }
}

/// A directory on the disk that the build lies on: a temporary one may be in memory, where an fsync costs nothing.
pub(crate) fn data_directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

/// As criterion counts.
pub(crate) fn count(n: usize) -> u64 {
    u64::try_from(n).expect("a length in memory fits into 64 bits")
}

/// The same each time, and spread as random ids are.
fn id(what: &str, number: usize, place: usize) -> [u8; 16] {
    let hash = blake3::hash(format!("{what} {number} {place}").as_bytes());
    *hash.as_bytes().first_chunk().expect("a hash is longer than an id")
}
