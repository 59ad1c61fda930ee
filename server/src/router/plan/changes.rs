//! Changes of accounts and conversations: rare, validated beforehand, and checked here against what the store says
//! at the moment of writing. A batch holds at most one of them, as its last operation.

use bytes::Bytes;
use gureum_proto::{
    AccountId, Code, ConversationId, DeviceId, EnvelopeBody, Handle, InviteId, MessageId, Refusal, SharedEnvelope,
};

use super::{Plan, Planner, sends};
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::session::Authenticated;
use crate::store::key::{self, ConversationTag, CursorTag, KeyPackageKind};
use crate::store::record::{
    CommitRecord, ConversationHead, ConversationKind, Cursor, InboxBody, InboxHead, InviteRecord, KeyPackageRecord,
    Member, SentResult,
};
use crate::store::{Family, StoreError, decode};

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
    /// One KeyPackage of each of these devices.
    ClaimKeyPackages {
        /// Whose.
        account: AccountId,
        /// Its active devices.
        devices: Vec<DeviceId>,
    },
    /// A new two-account conversation.
    Create(CreatePlan),
    /// The end of an epoch.
    Commit(CommitPlan),
    /// An entry of a device log.
    AppendLog(LogPlan),
}

/// A registration whose root entry holds and whose invite is genuine.
#[derive(Debug)]
pub struct RegisterPlan {
    /// The account and its first device.
    pub account: AccountId,
    /// The first device.
    pub device: DeviceId,
    /// The handle wanted.
    pub handle: Handle,
    /// Entry 0 of the log.
    pub root_entry: Bytes,
    /// The invite, how often it may be used, and its end; `None` where registration is open.
    pub invite: Option<(InviteId, u32, u64)>,
}

/// A conversation whose group was validated.
#[derive(Debug)]
pub struct CreatePlan {
    /// Who creates it.
    pub from: Authenticated,
    /// The other account.
    pub peer: AccountId,
    /// Its id.
    pub conversation: ConversationId,
    /// Its epoch.
    pub epoch: u64,
    /// Its leaves.
    pub members: Vec<Member>,
    /// The GroupInfo of that epoch.
    pub group_info: Bytes,
    /// The tree of that epoch.
    pub tree: Bytes,
    /// The Welcome for the others.
    pub welcome: Bytes,
}

/// A commit that was validated against the group at `epoch`.
#[derive(Debug)]
pub struct CommitPlan {
    /// Who commits.
    pub from: Authenticated,
    /// The device's counter.
    pub counter: u64,
    /// Where.
    pub conversation: ConversationId,
    /// The epoch that it ends.
    pub epoch: u64,
    /// The commit.
    pub commit: Bytes,
    /// The leaves afterwards.
    pub members: Vec<Member>,
    /// Accounts of devices that it adds by Welcome.
    pub welcomed: Vec<AccountId>,
    /// The Welcome; empty if there is none.
    pub welcome: Bytes,
    /// The GroupInfo of the next epoch.
    pub group_info: Bytes,
    /// The tree of the next epoch.
    pub tree: Bytes,
}

/// A device-log entry that was validated against the log of `index` entries.
#[derive(Debug)]
pub struct LogPlan {
    /// Whose log.
    pub account: AccountId,
    /// Who appends.
    pub from: DeviceId,
    /// The entry's index.
    pub index: u64,
    /// The signed entry.
    pub entry: Bytes,
    /// Devices that it adds.
    pub added: Vec<DeviceId>,
    /// Devices that it revokes.
    pub revoked: Vec<DeviceId>,
}

/// What a change led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The account exists, or existed already with this very root.
    Registered,
    /// So many one-time KeyPackages are there now.
    KeyPackagesStored(u32),
    /// One KeyPackage for each device.
    KeyPackages(Vec<(DeviceId, Bytes)>),
    /// The conversation of the pair.
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
            Change::AppendLog(log) => planner.append_log(&log, now_ms, plan),
        })
    }

    fn register(&self, register: &RegisterPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let handle = key::handle(register.handle.as_str());
        if let Some(owner) = self.read::<AccountId>(Family::Directory, &handle)? {
            let same = owner == register.account;
            return Ok(if same { Ok(Changed::Registered) } else { Err(Refusal::new(Code::HandleTaken)) });
        }
        let account = &register.account;
        if let Some(other) = self.read::<String>(Family::Directory, key::handle_of(account))? {
            return Ok(Err(Refusal::with_detail(Code::HandleTaken, format!("this account is registered as {other}"))));
        }
        if let Some((invite, uses, expires_ms)) = register.invite {
            let key = key::registration(&invite);
            let used = self.read::<InviteRecord>(Family::Registration, &key)?.map_or(0, |record| record.used);
            if expires_ms <= now_ms {
                return Ok(Err(Refusal::new(Code::InviteInvalid)));
            }
            if used >= uses {
                return Ok(Err(Refusal::new(Code::InviteUsed)));
            }
            plan.batch.put_record(Family::Registration, key, &InviteRecord { used: used + 1, expires_ms });
        }
        plan.batch.put_record(Family::Directory, handle, account);
        plan.batch.put_record(Family::Directory, key::handle_of(account), &register.handle.to_string());
        plan.batch.put_record(Family::DeviceLog, key::device_log(account, 0), &register.root_entry);
        plan.batch.put_record(Family::InboxHead, key::inbox_head(account), &InboxHead::default());
        let cursor = key::cursor(account, &register.device, CursorTag::Cursor);
        plan.batch.put_record(Family::Cursor, cursor, &Cursor::default());
        plan.must_sync = true;
        Ok(Ok(Changed::Registered))
    }

    fn put_key_packages(
        &self,
        from: Authenticated,
        one_time: &[([u8; 32], KeyPackageRecord)],
        last_resort: Option<&([u8; 32], KeyPackageRecord)>,
        plan: &mut Plan,
    ) -> Answer {
        let (account, device) = (from.account(), from.device());
        let range = key::key_packages(&account, &device, KeyPackageKind::OneTime);
        let stored = self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)?.len();
        if stored + one_time.len() > KEY_PACKAGES_STORED_MAX {
            let detail = format!("the directory keeps at most {KEY_PACKAGES_STORED_MAX} KeyPackages of a device");
            return Ok(Err(Refusal::with_detail(Code::LimitReached, detail)));
        }
        for (hash, record) in one_time {
            let key = key::key_package(&account, &device, KeyPackageKind::OneTime, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        if let Some((hash, record)) = last_resort {
            let range = key::key_packages(&account, &device, KeyPackageKind::LastResort);
            for (old, _) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                plan.batch.delete(Family::KeyPackage, old);
            }
            let key = key::key_package(&account, &device, KeyPackageKind::LastResort, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackagesStored(u32::try_from(stored + one_time.len()).unwrap_or(u32::MAX))))
    }

    fn claim_key_packages(&self, account: AccountId, devices: &[DeviceId], now_ms: u64, plan: &mut Plan) -> Answer {
        let mut packages = Vec::with_capacity(devices.len());
        // Set aside until it is known that nothing is refused: the batch holds what came before this change.
        let mut spent = Vec::new();
        for device in devices {
            let Some(package) = self.claim(account, *device, now_ms, &mut spent)? else {
                return Ok(Err(Refusal::with_detail(Code::KeyPackagesExhausted, format!("device {device}"))));
            };
            packages.push((*device, package));
        }
        spent.into_iter().for_each(|key| plan.batch.delete(Family::KeyPackage, key));
        // A package that went out must not go out again after a crash.
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackages(packages)))
    }

    fn claim(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
        spent: &mut Vec<Bytes>,
    ) -> Result<Option<Bytes>, StoreError> {
        for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
            let range = key::key_packages(&account, &device, kind);
            for (key, value) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                let record: KeyPackageRecord = decode(Family::KeyPackage, &value)?;
                let is_current = record.not_after_ms > now_ms;
                if kind == KeyPackageKind::OneTime || !is_current {
                    spent.push(key);
                }
                if is_current {
                    return Ok(Some(record.package));
                }
            }
        }
        Ok(None)
    }

    fn create(&mut self, create: CreatePlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let from = create.from;
        let pair = key::pair(&from.account(), &create.peer);
        if let Some(conversation) = self.read::<ConversationId>(Family::Directory, &pair)? {
            let head = self.caches.conversation(self.store.as_ref(), conversation)?;
            let epoch = head.map_or(0, |conversation| conversation.head.epoch);
            return Ok(Ok(Changed::Conversation { conversation, existed: true, epoch }));
        }
        let conversation = create.conversation;
        if self.caches.conversation(self.store.as_ref(), conversation)?.is_some() {
            let detail = "the id belongs to another conversation";
            return Ok(Err(Refusal::with_detail(Code::CommitInvalid, detail)));
        }
        plan.batch.put_record(Family::Directory, pair, &conversation);
        for account in [from.account(), create.peer] {
            plan.batch.put_record(Family::Directory, key::membership(&account, &conversation), &());
        }
        let head = ConversationHead {
            epoch: create.epoch,
            created_ms: now_ms,
            kind: ConversationKind::Direct,
            members: create.members,
        };
        let welcomed = accounts_but(&head.members, from.device());
        self.put_group(conversation, &head, &create.group_info, &create.tree, plan);
        self.welcome(from, conversation, &welcomed, create.welcome, now_ms, plan)?;
        Ok(Ok(Changed::Conversation { conversation, existed: false, epoch: create.epoch }))
    }

    fn commit(&mut self, commit: CommitPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let from = commit.from;
        let window = self.caches.window(self.store.as_ref(), from.account(), from.device())?;
        if let Some(accepted) = sends::answered_before(window, commit.counter) {
            return Ok(Ok(Changed::Committed { epoch: accepted.number }));
        }
        let Some(conversation) = self.caches.conversation(self.store.as_ref(), commit.conversation)? else {
            return Ok(Err(Refusal::new(Code::NotFound)));
        };
        if conversation.head.epoch != commit.epoch {
            return Ok(Err(Refusal::new(Code::EpochConflict)));
        }
        let epoch = commit.epoch + 1;
        let head = ConversationHead { epoch, members: commit.members, ..conversation.head.clone() };
        // Whoever was in it reads the commit, the removed included, and the committer's other devices.
        let readers: Vec<_> = accounts_but(&conversation.head.members, from.device());
        self.put_group(commit.conversation, &head, &commit.group_info, &commit.tree, plan);
        let record = CommitRecord {
            time_ms: now_ms,
            account: from.account(),
            device: from.device(),
            counter: commit.counter,
            commit: commit.commit.clone(),
        };
        plan.batch.put_record(Family::Commit, key::commit(&commit.conversation, commit.epoch), &record);
        let id = self.ids.next(now_ms);
        let body = EnvelopeBody::Commit { epoch: commit.epoch, commit: commit.commit };
        let shared = envelope(from, id, commit.conversation, body);
        for account in readers {
            let body = InboxBody::Commit { conversation: commit.conversation, epoch: commit.epoch };
            self.append(account, id, body, &shared, now_ms, plan)?;
        }
        if !commit.welcome.is_empty() {
            self.welcome(from, commit.conversation, &commit.welcomed, commit.welcome, now_ms, plan)?;
        }
        self.remember(from, SentResult { counter: commit.counter, id, number: epoch })?;
        plan.must_sync = true;
        Ok(Ok(Changed::Committed { epoch }))
    }

    fn append_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let account = log.account;
        let entry_key = key::device_log(&account, log.index);
        if self.store.get(Family::DeviceLog, entry_key.as_ref())?.is_some() {
            let detail = "another entry came first; read the log and try again";
            return Ok(Err(Refusal::with_detail(Code::LogInvalid, detail)));
        }
        plan.batch.put_record(Family::DeviceLog, entry_key, &log.entry);
        let head = self.caches.head(self.store.as_ref(), account)?;
        for device in &log.added {
            let cursor = Cursor { seq: head.seq, count: head.count };
            plan.batch.put_record(Family::Cursor, key::cursor(&account, device, CursorTag::Cursor), &cursor);
        }
        for device in &log.revoked {
            plan.batch.delete(Family::Cursor, key::cursor(&account, device, CursorTag::Cursor));
            for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
                let range = key::key_packages(&account, device, kind);
                for (old, _) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                    plan.batch.delete(Family::KeyPackage, old);
                }
            }
            plan.revoked.push((account, *device));
        }
        self.announce_log(log, now_ms, plan)?;
        // Last: announcing may have read the cursors, which change only with this batch.
        self.caches.forget_account(account);
        plan.must_sync = true;
        Ok(Ok(Changed::LogAppended(log.index + 1)))
    }

    /// Tells the account itself and everybody who shares a conversation with it that its log has grown.
    fn announce_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let range = key::memberships(&log.account);
        let mut accounts = vec![log.account];
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), usize::MAX)? {
            let Some((_, conversation)) = key::parse_membership(&entry) else { continue };
            if let Some(conversation) = self.caches.conversation(self.store.as_ref(), conversation)? {
                accounts.extend(conversation.accounts.iter().map(|(account, _)| *account));
            }
        }
        accounts.sort_unstable();
        accounts.dedup();
        let id = self.ids.next(now_ms);
        let shared = SharedEnvelope {
            message_id: id,
            conversation: ConversationId::from_bytes([0; 16]),
            sender_account: log.account,
            sender_device: log.from,
            body: EnvelopeBody::LogChange { log_entries: log.index + 1 },
        }
        .encode();
        for account in accounts {
            self.append(account, id, InboxBody::DeviceLog { account: log.account }, &shared, now_ms, plan)?;
        }
        Ok(())
    }

    fn welcome(
        &mut self,
        from: Authenticated,
        conversation: ConversationId,
        accounts: &[AccountId],
        welcome: Bytes,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let id = self.ids.next(now_ms);
        let shared = envelope(from, id, conversation, EnvelopeBody::Welcome(welcome));
        plan.batch.put_record(Family::Welcome, key::message(&id), &shared);
        for account in accounts {
            self.append(*account, id, InboxBody::Welcome, &shared, now_ms, plan)?;
        }
        plan.must_sync = true;
        Ok(())
    }

    fn put_group(
        &mut self,
        id: ConversationId,
        head: &ConversationHead,
        group_info: &Bytes,
        tree: &Bytes,
        plan: &mut Plan,
    ) {
        let family = Family::Conversation;
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::Head), head);
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::GroupInfo), group_info);
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::Tree), tree);
        self.caches.replace_head(id, head);
    }
}

fn envelope(from: Authenticated, id: MessageId, conversation: ConversationId, body: EnvelopeBody) -> Bytes {
    SharedEnvelope { message_id: id, conversation, sender_account: from.account(), sender_device: from.device(), body }
        .encode()
}

/// The accounts that have a leaf other than this device's.
fn accounts_but(members: &[Member], device: DeviceId) -> Vec<AccountId> {
    let mut accounts: Vec<_> =
        members.iter().filter(|member| member.device != device).map(|member| member.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}
