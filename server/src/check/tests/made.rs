//! A store as a server writes it in two days: two people, one conversation, what was taken and what waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{
    AccountId, ConversationId, ConversationWith, DeviceId, DeviceLog, InviteId, MessageId, Position, Send, ServerUrl,
    sign_root,
};
use rocksdb::{DB, Options as DbOptions, WriteBatch};

use crate::backup::take;
use crate::check::{Kind, Options, Report, check};
use crate::directory::index_recovery_keys;
use crate::invite::{InviteKey, ServerFile};
use crate::router::{Change, CommitPlan, CreatePlan, KeyPackagesPlan, Op, Plan, PlanConfig, Planner, RegisterPlan};
use crate::seal::{Keyring, SecretName};
use crate::session::Authenticated;
use crate::store::key::{self, ConversationTag, CursorTag, Key, KeyPackageKind};
use crate::store::record::{InboxEntry, KeyPackageRecord, Member, Record};
use crate::store::rocks::RocksStore;
use crate::store::{Durability, Expiry, Family, Store};
use crate::time::{Clock, ManualClock, save_last_known_ms};
use crate::tls::Tls;

pub(super) const HOUR_MS: u64 = 3_600_000;
pub(super) const DAY_MS: u64 = 24 * HOUR_MS;
pub(super) const RETENTION_MS: u64 = 3 * DAY_MS;
/// When the first day begins, and the hour of its key.
pub(super) const START_MS: u64 = 1_800_000_000_000;
/// When the audit is, if a case says nothing else: everything lives.
pub(super) const NOW_MS: u64 = START_MS + 2 * DAY_MS + HOUR_MS;
pub(super) const TALK: ConversationId = ConversationId::from_bytes([0xc0; 16]);
pub(super) const INVITE: InviteId = InviteId::from_bytes([0x11; 16]);
/// What nobody has.
pub(super) const STRANGER: AccountId = AccountId::from_bytes([0xee; 16]);
pub(super) const PACKAGE: [u8; 32] = [0x77; 32];

/// Somebody with one device.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
    root: Bytes,
    handle: &'static str,
}

impl Person {
    fn new(seed: u8, handle: &'static str) -> Self {
        let key = |add: u8| SigningKey::from_bytes(&[seed + add; 32]);
        let root = sign_root(&key(0), key(1).verifying_key().as_bytes(), &key(2), 0).unwrap();
        let log = DeviceLog::from_root(&root).unwrap();
        let device = log.active().next().unwrap().0;
        Self { account: log.account(), device, root, handle }
    }

    fn authority(&self) -> Authenticated {
        Authenticated::for_test(self.account, self.device)
    }

    fn recovery_key(&self) -> [u8; 32] {
        DeviceLog::from_root(&self.root).unwrap().recovery_key().to_bytes()
    }

    /// Where it stands whom the recovery key brings back.
    pub(super) fn recovery(&self) -> Key {
        key::recovery(&self.recovery_key())
    }

    /// When the device was seen.
    pub(super) fn seen(&self) -> Key {
        key::cursor(&self.account, &self.device, CursorTag::Seen)
    }

    pub(super) fn cursor(&self) -> Key {
        key::cursor(&self.account, &self.device, CursorTag::Cursor)
    }
}

/// The store. In Bob's inbox stand, from 1: the Welcome, "one" (both taken), "two" of the first day; "three", a commit
/// and "four" of the third. In Alice's: "five".
pub(super) struct Made {
    directory: tempfile::TempDir,
    pub(super) alice: Person,
    pub(super) bob: Person,
    /// The Welcome, and the messages from one to five.
    pub(super) ids: Vec<MessageId>,
}

/// The parts of a server that write.
struct Writer {
    time: Arc<ManualClock>,
    clock: Arc<Clock>,
    store: Arc<RocksStore>,
    planner: Planner,
}

impl Writer {
    fn open(directory: &Path) -> Self {
        let time = Arc::new(ManualClock::at(START_MS));
        let clock = Arc::new(Clock::resume(Arc::clone(&time) as _, RETENTION_MS, None).unwrap());
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms: RETENTION_MS,
            commit_retention_ms: 10 * RETENTION_MS,
            floors: Arc::default(),
        };
        let store = Arc::new(RocksStore::open(directory, expiry).unwrap());
        let keyring = Arc::new(Keyring::open(&directory.join("keys"), None, RETENTION_MS).unwrap());
        for name in SecretName::ALL {
            keyring.secret(name).unwrap();
        }
        let config = PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: 1_000, inbox_bytes_max: 1024 * 1024 };
        let planner = Planner::new(Arc::clone(&store) as _, keyring, config, Box::new(|| 7));
        Self { time, clock, store, planner }
    }

    fn change(&mut self, change: Change) {
        let mut plan = Plan::default();
        self.planner.add_change(change, self.clock.now_ms(), &mut plan).unwrap().unwrap();
        self.write(plan);
    }

    fn send(&mut self, from: &Person, counter: u64, epoch: u64) -> MessageId {
        let mut plan = Plan::default();
        let ciphertext = Bytes::from_static(b"sealed for its readers");
        let send = Send { counter, conversation: TALK, epoch, ciphertext, silent: false };
        self.planner.add(Op::Send { from: from.authority(), send }, self.clock.now_ms(), &mut plan).unwrap();
        self.write(plan).unwrap()
    }

    fn write(&mut self, mut plan: Plan) -> Option<MessageId> {
        self.planner.finish(&mut plan);
        self.store.write(&plan.batch, Durability::Synced).unwrap();
        // What happens next happens later.
        self.time.advance(60_000);
        plan.sent.first().map(|sent| sent.result.as_ref().unwrap().message_id.unwrap())
    }
}

impl Made {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("made");
        let (alice, bob) = (Person::new(1, "alice"), Person::new(11, "bob"));
        let mut writer = Writer::open(&data_dir);
        index_recovery_keys(writer.store.as_ref()).unwrap();
        for person in [&alice, &bob] {
            register(&mut writer, person);
            let mut plan = Plan::default();
            writer.planner.add(Op::Seen { from: person.authority() }, writer.clock.now_ms(), &mut plan).unwrap();
            writer.write(plan);
        }
        let mut ids = vec![begin(&mut writer, &alice, &bob)];
        ids.extend([writer.send(&alice, 1, 1), writer.send(&alice, 2, 1)]);
        let mut plan = Plan::default();
        let taken = Op::Ack { from: bob.authority(), position: Position { seq: 2, count: 1 } };
        writer.planner.add(taken, writer.clock.now_ms(), &mut plan).unwrap();
        writer.write(plan);
        writer.time.advance(2 * DAY_MS);
        ids.push(writer.send(&alice, 3, 1));
        commit(&mut writer, &alice, &bob);
        ids.extend([writer.send(&alice, 5, 2), writer.send(&bob, 1, 2)]);
        save_last_known_ms(&data_dir, writer.clock.now_ms()).unwrap();
        writer.store.close().unwrap();
        let tls = Tls::load(&data_dir, None, "localhost").unwrap();
        let url = ServerUrl { host: "localhost".into(), port: 1, pin: tls.pin, token: None }.to_string();
        let listen = "127.0.0.1:4433".parse().unwrap();
        let server = ServerFile { listen, url, retention_ms: None, commit_retention_ms: None, invites: Some(true) };
        server.write(&data_dir).unwrap();
        InviteKey::load(&data_dir).unwrap();
        fs::write(data_dir.join("vapid.key"), b"a key of Web Push").unwrap();
        Self { directory, alice, bob, ids }
    }

    /// A copy of the store that a test may harm.
    pub(super) fn copy(&self) -> Harmed {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d");
        let _ = copy(&self.directory.path().join("made"), &path);
        Harmed { path, _directory: directory }
    }
}

fn register(writer: &mut Writer, person: &Person) {
    writer.change(Change::Register(RegisterPlan {
        account: person.account,
        device: person.device,
        handle: person.handle.parse().unwrap(),
        root_entry: person.root.clone(),
        recovery_key: person.recovery_key(),
        invite: Some((INVITE, 2, START_MS + DAY_MS * 7)),
        phone: None,
    }));
    let package = KeyPackageRecord { not_after_ms: START_MS * 2, package: Bytes::from_static(b"a KeyPackage") };
    let one_time = vec![(PACKAGE, package)];
    let put = KeyPackagesPlan { from: person.authority(), one_time, last_resort: None, replace: false };
    writer.change(Change::PutKeyPackages(put));
}

fn member(person: &Person) -> Member {
    Member { account: person.account, device: person.device, leaf: 0 }
}

/// Makes the conversation; returns the Welcome's id.
fn begin(writer: &mut Writer, alice: &Person, bob: &Person) -> MessageId {
    writer.change(Change::Create(CreatePlan {
        from: alice.authority(),
        with: ConversationWith::Peer(bob.account),
        conversation: TALK,
        epoch: 1,
        members: vec![member(alice), member(bob)],
        group_info: Bytes::from_static(b"a GroupInfo"),
        tree: Bytes::from_static(b"a tree"),
        welcome: Bytes::from_static(b"a Welcome"),
    }));
    let entry = writer.store.get(Family::Inbox, &key::inbox(&bob.account, 1)).unwrap().unwrap();
    InboxEntry::decode(&entry).unwrap().id
}

fn commit(writer: &mut Writer, alice: &Person, bob: &Person) {
    writer.change(Change::Commit(CommitPlan {
        from: alice.authority(),
        counter: 4,
        conversation: TALK,
        epoch: 1,
        commit: Bytes::from_static(b"a commit"),
        members: vec![member(alice), member(bob)],
        welcomed: Vec::new(),
        welcome: Bytes::new(),
        group_info: Bytes::from_static(b"the next GroupInfo"),
        tree: Bytes::from_static(b"the next tree"),
    }));
}

/// A store of its own, to be changed behind the server's back.
pub(super) struct Harmed {
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Harmed {
    /// What a first start leaves that is killed before anybody has an account.
    pub(super) fn begun() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d");
        let writer = Writer::open(&path);
        save_last_known_ms(&path, writer.clock.now_ms()).unwrap();
        writer.store.close().unwrap();
        Self { path, _directory: directory }
    }

    /// A backup of it.
    pub(super) fn backup(&self, now_ms: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        let _ = take(&self.path, &path, now_ms).unwrap();
        Self { path, _directory: directory }
    }

    /// Changes the database with a plain RocksDB.
    pub(super) fn change(&self, change: impl FnOnce(&mut Changes<'_>)) {
        let families = std::iter::once("default").chain(Family::ALL.iter().map(|family| family.name()));
        let db = DB::open_cf(&DbOptions::default(), self.path.join("db"), families).unwrap();
        let mut changes = Changes { db: &db, batch: WriteBatch::default() };
        change(&mut changes);
        db.write(changes.batch).unwrap();
    }

    /// Makes of it what a program wrote that did not know all families yet.
    pub(super) fn lack_what_came_later(&self) {
        let families = std::iter::once("default").chain(Family::ALL.iter().map(|family| family.name()));
        let mut db = DB::open_cf(&DbOptions::default(), self.path.join("db"), families).unwrap();
        for family in Family::ALL.iter().filter(|family| family.may_lack()) {
            db.drop_cf(family.name()).unwrap();
        }
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path.join(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    pub(super) fn check_at(&self, now_ms: u64) -> Report {
        let options =
            Options { now_ms, retention_ms: RETENTION_MS, commit_retention_ms: 10 * RETENTION_MS, master_key: None };
        check(&self.path, &options).unwrap()
    }
}

/// Changes of a database.
pub(super) struct Changes<'a> {
    db: &'a DB,
    batch: WriteBatch,
}

impl Changes<'_> {
    pub(super) fn put(&mut self, family: Family, record_key: impl AsRef<[u8]>, record: &impl Record) {
        self.batch.put_cf(self.db.cf_handle(family.name()).unwrap(), record_key, record.encode());
    }

    pub(super) fn raw(&mut self, family: Family, record_key: impl AsRef<[u8]>, value: &[u8]) {
        self.batch.put_cf(self.db.cf_handle(family.name()).unwrap(), record_key, value);
    }

    pub(super) fn delete(&mut self, family: Family, record_key: impl AsRef<[u8]>) {
        self.batch.delete_cf(self.db.cf_handle(family.name()).unwrap(), record_key);
    }

    pub(super) fn get<R: Record>(&self, family: Family, record_key: impl AsRef<[u8]>) -> R {
        let value = self.db.get_cf(self.db.cf_handle(family.name()).unwrap(), record_key).unwrap().unwrap();
        R::decode(&value.into()).unwrap()
    }

    /// Replaces a record by what `edit` makes of it.
    pub(super) fn edit<R: Record>(&mut self, family: Family, record_key: impl AsRef<[u8]>, edit: impl FnOnce(&mut R)) {
        let mut record: R = self.get(family, &record_key);
        edit(&mut record);
        self.put(family, record_key, &record);
    }
}

/// A finding, without its words.
pub(super) type Found = (Kind, String, String);

/// A finding that is expected.
pub(super) fn found(kind: Kind, place: &str, record_key: impl AsRef<[u8]>) -> Found {
    (kind, place.to_owned(), data_encoding::HEXLOWER.encode(record_key.as_ref()))
}

/// What an audit found, in order.
pub(super) fn all_found(report: &Report) -> Vec<Found> {
    let mut all: Vec<Found> =
        report.findings.iter().map(|finding| (finding.kind, finding.place.clone(), finding.key.clone())).collect();
    all.sort();
    all
}

pub(super) fn epoch_key() -> Key {
    key::conversation(&TALK, ConversationTag::Epoch)
}

pub(super) fn head_key() -> Key {
    key::conversation(&TALK, ConversationTag::Head)
}

pub(super) fn package_key(account: &AccountId, device: &DeviceId) -> Key {
    key::key_package(account, device, KeyPackageKind::OneTime, &PACKAGE)
}

fn copy(from: &Path, to: &Path) -> usize {
    fs::create_dir_all(to).unwrap();
    let mut copied = 0;
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied += copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
            copied += 1;
        }
    }
    copied
}
