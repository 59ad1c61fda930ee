//! A server of values: directory, conversations and inboxes, without its checks.

use std::collections::HashMap;

use bytes::Bytes;
use gureum_proto::{
    Accepted, AccountFound, AccountId, Commits, ConversationId, ConversationKind, ConversationWith, CreateConversation,
    DeliveryFrame, DeviceId, DeviceKeys, DeviceLog, Envelope, EnvelopeBody, Gap, GapReason, Gone, Group, Handle,
    MemberLog, MessageId, Position, Refusal, Registered, Send, Sent, ServerUrl, SharedEnvelope, SubmitCommit, sign_add,
    sign_revoke,
};

use super::*;

pub(super) const SERVER: &str = "gureum://127.0.0.1:4433";
pub(super) const DIRECT: ConversationKind = ConversationKind::Direct;

#[derive(Default, Clone)]
pub(super) struct Relay {
    pub(super) accounts: HashMap<AccountId, Directory>,
    pub(super) conversations: HashMap<ConversationId, Held>,
    /// Accounts that were deleted.
    pub(super) gone: Vec<AccountId>,
    clock_ms: u64,
}

#[derive(Clone)]
pub(super) struct Directory {
    handle: Handle,
    pub(super) log: Vec<Bytes>,
    pub(super) packages: Vec<(DeviceId, Bytes)>,
    pub(super) inbox: Vec<(Position, SharedEnvelope)>,
    results: HashMap<(DeviceId, u64), Accepted>,
    /// Where the inbox's present life began.
    life_seq: u64,
}

#[derive(Clone)]
pub(super) struct Held {
    /// Who is in it: who it was made with, and whose Welcome came since.
    pub(super) accounts: Vec<AccountId>,
    pub(super) commits: Vec<(u64, Bytes)>,
    pub(super) group: Group,
    number: u64,
}

pub(super) struct Person {
    pub(super) home: tempfile::TempDir,
    pub(super) vault: Vault,
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
}

impl Person {
    pub(super) fn register(relay: &mut Relay, handle: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (mut vault, draft) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
        let handle: Handle = handle.parse().unwrap();
        let (account, device) = (vault.identity().account, vault.identity().device);
        vault.registered(&handle, Registered { account, device }).unwrap();
        let packages = vault.make_key_packages(5).unwrap().into_iter().map(|package| (device, package)).collect();
        let directory = Directory {
            handle,
            log: vec![draft.root_entry],
            packages,
            inbox: vec![],
            results: HashMap::new(),
            life_seq: 0,
        };
        relay.accounts.insert(account, directory);
        Self { home, vault, account, device }
    }

    /// Another device of an account, which the first has added to its log.
    pub(super) fn link(relay: &mut Relay, first: &Self) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
        let (account, proof) = (first.account, vault.identity().proof.clone());
        let mls: [u8; 32] = vault.signer.public().try_into().unwrap();
        let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap();
        let log = relay.log(account);
        let signer = (first.device, &first.vault.identity().proof);
        let directory = relay.accounts.get_mut(&account).unwrap();
        directory.log.push(sign_add(&log, signer, &keys, &proof, 9));
        let taken = directory.inbox.last().map_or(Position::default(), |(position, _)| *position);
        let sql = "UPDATE profile SET account = ?1, handle = ?2, log_entry = ?3, cursor_seq = ?4, cursor_count = ?5,
                   recovery_entropy = NULL";
        let handle = directory.handle.as_str();
        let row = rusqlite::params![account.as_bytes(), handle, log.length(), taken.seq, taken.count];
        vault.connection.execute(sql, row).unwrap();
        drop(vault);
        let vault = Vault::open(home.path(), &KeySource::File).unwrap();
        let mut linked = Self { home, vault, account, device: keys.device() };
        linked.learn(relay, account);
        linked
    }

    /// Revokes another device of the account, and everybody is told.
    pub(super) fn revoke(&mut self, relay: &mut Relay, device: DeviceId) {
        let log = relay.log(self.account);
        let entry = sign_revoke(&log, (self.device, &self.vault.identity().proof), device, 9);
        relay.accounts.get_mut(&self.account).unwrap().log.push(entry);
        relay.clock_ms += 1;
        let shared = SharedEnvelope {
            message_id: MessageId::new(1_700_000_000_000 + relay.clock_ms, u128::from(relay.clock_ms)),
            conversation: ConversationId::from_bytes([0; 16]),
            sender_account: self.account,
            sender_device: self.device,
            body: EnvelopeBody::LogChange { log_entries: log.length() + 1 },
        };
        let accounts: Vec<_> = relay.accounts.keys().copied().collect();
        accounts.into_iter().for_each(|account| relay.push_to(account, shared.clone()));
        self.learn(relay, self.account);
    }

    pub(super) fn reopen(&mut self) {
        self.vault = Vault::open(self.home.path(), &KeySource::File).unwrap();
    }

    /// Its clock goes ahead by so many milliseconds.
    pub(super) fn moves_on(&mut self, by_ms: u64) {
        let before = self.vault.clock.clone();
        self.vault.clock = std::sync::Arc::new(move || before() + by_ms);
    }

    pub(super) fn learn(&mut self, relay: &Relay, account: AccountId) {
        let log_from = self.vault.log_from(account).unwrap();
        self.vault.learn_account(&relay.found(account, log_from), log_from).unwrap();
    }

    pub(super) fn queue(&mut self, conversation: ConversationId, text: &str) {
        self.vault.queue_text(conversation, text).unwrap();
    }

    /// Queues, sends and settles.
    pub(super) fn say(&mut self, relay: &mut Relay, conversation: ConversationId, text: &str) {
        self.queue(conversation, text);
        self.flush(relay);
    }

    pub(super) fn flush(&mut self, relay: &mut Relay) {
        for send in self.vault.next_sends(0, 64).unwrap() {
            let sent = relay.send(self, &send);
            assert!(matches!(self.vault.settle(&sent).unwrap(), Settled::Sent(_)));
        }
    }

    /// Takes what is in the inbox, meets every need, and says what happened.
    pub(super) fn take(&mut self, relay: &mut Relay) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..50 {
            let frames = relay.frames(self);
            let taken = self.vault.take(&frames).unwrap();
            events.extend(taken.events.into_iter().map(|stored| stored.event));
            match taken.need {
                None => return events,
                Some(need) => self.meet(relay, need),
            }
        }
        panic!("needs without end");
    }

    pub(super) fn meet(&mut self, relay: &mut Relay, need: Need) {
        match need {
            Need::Account { account, log_from } => {
                has_log(self.vault.learn_account(&relay.found(account, log_from), log_from));
            }
            Need::Commits { conversation, from_epoch, to_epoch } => {
                let page = relay.commits(conversation, from_epoch);
                match self.vault.apply_commits(conversation, &page, to_epoch).unwrap() {
                    Applied::Needs(need) => self.meet(relay, need),
                    Applied::UpToDate | Applied::More { .. } | Applied::Stopped => {}
                }
            }
            Need::Rejoin { conversation } => self.rejoin(relay, conversation),
            Need::Removal { conversation } => self.remove_revoked(relay, conversation),
            Need::Members { conversation } => {
                let members = relay.member_logs(conversation);
                for learned in self.vault.learn_members(conversation, &members).unwrap() {
                    has_log(learned);
                }
            }
        }
    }

    pub(super) fn rejoin(&mut self, relay: &mut Relay, conversation: ConversationId) {
        let group = relay.conversations[&conversation].group.clone();
        let submit = loop {
            match self.vault.rejoin(conversation, &group) {
                Ok(submit) => break submit,
                Err(RejoinError::NeedsAccount(account)) => self.learn(relay, account),
                Err(RejoinError::NeedsMembers) => self.meet(relay, Need::Members { conversation }),
                Err(_) => return,
            }
        };
        relay.commit(self, &submit);
        self.vault.commit_accepted(conversation).unwrap();
        relay.follow(self, conversation);
    }

    /// Removes who is to be removed, as the server accepts it.
    pub(super) fn remove_revoked(&mut self, relay: &mut Relay, conversation: ConversationId) {
        let submit = self.vault.commit_removals(conversation).unwrap().unwrap();
        relay.commit(self, &submit);
        self.vault.commit_accepted(conversation).unwrap();
        relay.follow(self, conversation);
    }

    /// Renews the keys, as the server accepts it.
    pub(super) fn renew(&mut self, relay: &mut Relay, conversation: ConversationId) {
        let submit = self.vault.commit_self_update(conversation).unwrap().unwrap();
        relay.commit(self, &submit);
        self.vault.commit_accepted(conversation).unwrap();
        relay.follow(self, conversation);
    }

    pub(super) fn history(&mut self) -> Vec<String> {
        texts(self.vault.history(None, 1000).unwrap())
    }

    /// Runs something on the insides.
    pub(super) fn inside<T>(&mut self, run: impl FnOnce(&mut Work<'_>) -> T) -> T {
        self.vault.write(|work| Ok::<_, VaultError>(run(work))).unwrap()
    }
}

impl Held {
    pub(super) fn of(accounts: Vec<AccountId>, group: Group) -> Self {
        Self { accounts, commits: vec![], group, number: 0 }
    }
}

impl Relay {
    /// Two people with a conversation that both are in.
    pub(super) fn with_a_pair() -> (Self, Person, Person, ConversationId) {
        let mut relay = Self::default();
        let mut a = Person::register(&mut relay, "alice");
        let mut b = Person::register(&mut relay, "bob");
        let conversation = relay.begin(&mut a, b.account);
        b.take(&mut relay);
        (relay, a, b, conversation)
    }

    pub(super) fn begin(&mut self, from: &mut Person, to: AccountId) -> ConversationId {
        from.learn(self, to);
        let package = self.accounts.get_mut(&to).unwrap().packages.pop().unwrap();
        let create = from.vault.begin_conversation(to, &[package], &[]).unwrap();
        self.create(from, to, create)
    }

    pub(super) fn create(&mut self, from: &mut Person, to: AccountId, create: CreateConversation) -> ConversationId {
        let id = create.conversation;
        let group = Group { epoch: 1, group_info: create.group_info, tree: create.tree };
        assert_eq!(create.with, ConversationWith::Peer(to));
        self.conversations.insert(id, Held::of(vec![from.account, to], group));
        from.vault.conversation_created(id).unwrap();
        let body = EnvelopeBody::Welcome(create.welcome);
        self.push(from.account, from.device, id, body);
        id
    }

    /// How the server lists a group.
    pub(super) fn listed(&self, talk: ConversationId) -> gureum_proto::ConversationState {
        let found = &self.conversations[&talk];
        let (epoch, accounts) = (found.group.epoch, found.accounts.clone());
        gureum_proto::ConversationState {
            conversation: talk,
            epoch,
            accounts,
            kind: gureum_proto::ConversationKind::Group,
        }
    }

    pub(super) fn log(&self, account: AccountId) -> DeviceLog {
        DeviceLog::replay(self.accounts[&account].log.iter().map(AsRef::as_ref)).unwrap()
    }

    pub(super) fn found(&self, account: AccountId, log_from: u64) -> AccountFound {
        let directory = &self.accounts[&account];
        AccountFound {
            account,
            handle: directory.handle.clone(),
            log_entries: directory.log[usize::try_from(log_from).unwrap()..].to_vec(),
            log_length: directory.log.len() as u64,
        }
    }

    /// What a member of a conversation is told of all of them.
    pub(super) fn member_logs(&self, conversation: ConversationId) -> Vec<MemberLog> {
        let log = |account: &AccountId| {
            let Directory { handle, log, .. } = &self.accounts[account];
            MemberLog { account: *account, handle: handle.clone(), log_entries: log.clone(), leave: None }
        };
        self.conversations[&conversation].accounts.iter().map(log).collect()
    }

    /// Accepts a send, or repeats its answer.
    pub(super) fn send(&mut self, from: &Person, send: &Send) -> Sent {
        let before = self.accounts[&from.account].results.get(&(from.device, send.counter)).copied();
        if let Some(accepted) = before {
            return Sent { counter: send.counter, result: Ok(Accepted { repeated: true, ..accepted }) };
        }
        let held = self.conversations.get_mut(&send.conversation).unwrap();
        held.number += u64::from(!send.silent);
        let number = if send.silent { 0 } else { held.number };
        let body = if send.silent {
            EnvelopeBody::Silent(send.ciphertext.clone())
        } else {
            EnvelopeBody::Message { number, ciphertext: send.ciphertext.clone() }
        };
        let message_id = self.push(from.account, from.device, send.conversation, body);
        let accepted =
            Accepted { message_id: Some(message_id), number, repeated: false, gone: Gone::new(&self.gone, 0) };
        self.accounts.get_mut(&from.account).unwrap().results.insert((from.device, send.counter), accepted);
        Sent { counter: send.counter, result: Ok(accepted) }
    }

    /// The highest counter accepted from a device.
    pub(super) fn accepted_counter(&self, of: &Person) -> u64 {
        let results = self.accounts[&of.account].results.keys();
        results.filter(|(device, _)| *device == of.device).map(|(_, counter)| *counter).max().unwrap_or(0)
    }

    pub(super) fn refuse(send: &Send, code: gureum_proto::Code) -> Sent {
        Sent { counter: send.counter, result: Err(Refusal::new(code)) }
    }

    /// Accepts a commit whatever it does.
    pub(super) fn commit(&mut self, from: &Person, submit: &SubmitCommit) {
        let held = self.conversations.get_mut(&submit.conversation).unwrap();
        assert_eq!(held.group.epoch, submit.epoch);
        held.commits.push((submit.epoch, submit.commit.clone()));
        held.group.epoch += 1;
        held.group.group_info = submit.group_info.clone();
        let body = EnvelopeBody::Commit { epoch: submit.epoch, commit: submit.commit.clone() };
        self.push(from.account, from.device, submit.conversation, body);
    }

    /// Takes the tree over from a member that has it.
    pub(super) fn follow(&mut self, person: &mut Person, conversation: ConversationId) {
        let tree = person.inside(|work| work.group(conversation).unwrap().unwrap().tree());
        self.conversations.get_mut(&conversation).unwrap().group.tree = tree.into();
    }

    pub(super) fn commits(&self, conversation: ConversationId, from: u64) -> Commits {
        let held = &self.conversations[&conversation];
        let epoch = held.group.epoch;
        let first_epoch = held.commits.first().map_or(epoch, |(epoch, _)| *epoch);
        let commits = held.commits.iter().filter(|(epoch, _)| *epoch >= from).cloned().collect();
        Commits { commits, epoch, first_epoch }
    }

    /// Puts something into the inbox of the other account, and of the own one where it has had other devices.
    pub(super) fn push(
        &mut self,
        from: AccountId,
        device: DeviceId,
        conversation: ConversationId,
        body: EnvelopeBody,
    ) -> MessageId {
        self.clock_ms += 1;
        let message_id = MessageId::new(1_700_000_000_000 + self.clock_ms, u128::from(self.clock_ms));
        let accounts = self.conversations[&conversation].accounts.clone();
        let shared = SharedEnvelope { message_id, conversation, sender_account: from, sender_device: device, body };
        for account in accounts {
            if account != from || self.accounts[&account].log.len() > 1 {
                self.push_to(account, shared.clone());
            }
        }
        message_id
    }

    pub(super) fn push_to(&mut self, to: AccountId, shared: SharedEnvelope) {
        let Directory { inbox, life_seq, .. } = self.accounts.get_mut(&to).unwrap();
        let life_seq = *life_seq;
        let last = inbox.last().map_or(Position::default(), |(position, _)| *position);
        let counts = u64::from(matches!(shared.body, EnvelopeBody::Message { .. }));
        inbox.push((Position { seq: last.seq.max(life_seq) + 1, count: last.count + counts }, shared));
    }

    /// Goes back to a copy of itself, as `gureumd restore` does.
    pub(super) fn go_back(&mut self, copy: &Self) {
        *self = Self { clock_ms: self.clock_ms, ..copy.clone() };
        for directory in self.accounts.values_mut() {
            directory.life_seq = 1 << 40;
        }
        for held in self.conversations.values_mut() {
            held.number += 1 << 40;
        }
    }

    /// What a subscription from the person's cursor brings.
    pub(super) fn frames(&self, person: &mut Person) -> Vec<DeliveryFrame> {
        let cursor = person.vault.hello_claim(true).unwrap().cursor;
        let directory = &self.accounts[&person.account];
        let (mut at, mut frames) = (cursor, Vec::new());
        let lost = |from: Position, to_seq: u64| {
            let to = Position { seq: to_seq, count: from.count };
            DeliveryFrame::Gap(Gap { from_seq: from.seq + 1, to, missed: 0, reason: GapReason::Lost })
        };
        for (position, shared) in directory.inbox.iter().filter(|(position, _)| position.seq > cursor.seq) {
            if position.seq > at.seq + 1 {
                frames.push(lost(at, position.seq - 1));
            }
            frames.push(DeliveryFrame::Envelope(Envelope { position: *position, shared: shared.clone() }));
            at = *position;
        }
        if at.seq < directory.life_seq {
            frames.push(lost(at, directory.life_seq));
        }
        frames
    }
}

/// A log that something is judged by is learned also where the handle stands for another account.
#[track_caller]
fn has_log<T: std::fmt::Debug>(learned: Result<T, TrustError>) {
    assert!(matches!(learned, Ok(_) | Err(TrustError::HandleMoved { .. })), "{learned:?}");
}

pub(super) fn profile() -> NewProfile {
    NewProfile { server: SERVER.parse::<ServerUrl>().unwrap(), device_name: "laptop".into() }
}

pub(super) fn texts(items: Vec<HistoryItem>) -> Vec<String> {
    items
        .into_iter()
        .map(|item| match item {
            HistoryItem::Message(message) => message.text,
            HistoryItem::Gap { count, .. } => format!("<{count} missing>"),
            HistoryItem::Unreadable { .. } => "<unreadable>".into(),
            HistoryItem::Restarted { .. } => "<restarted>".into(),
            HistoryItem::SafetyNumber { .. } => "<safety number>".into(),
        })
        .collect()
}
