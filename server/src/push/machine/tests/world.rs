//! Inboxes, devices and services as the machine's tests have them: what it asks for is answered from here.

use std::collections::BTreeMap;

use gureum_proto::{AccountId, DeviceId};

use super::super::*;

pub(super) const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
pub(super) const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
pub(super) const PHONE: DeviceId = DeviceId::from_bytes([1; 16]);
pub(super) const LAPTOP: DeviceId = DeviceId::from_bytes([2; 16]);
pub(super) const INTERVAL_MS: u64 = 30_000;
pub(super) const SILENT_MS: u64 = 20 * 60_000;
pub(super) const DELAY_MS: u64 = 5_000;

pub(super) const CONFIG: PushConfig = PushConfig {
    delay_ms: DELAY_MS,
    interval_ms: INTERVAL_MS,
    silent_interval_ms: SILENT_MS,
    close_delay_ms: 60_000,
    sweep_ms: 60 * 60_000,
    retention_ms: 3 * 24 * 60 * 60_000,
};

/// One of many accounts, ascending.
pub(super) fn account(at: usize) -> AccountId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64::try_from(at).unwrap().to_be_bytes());
    AccountId::from_bytes(bytes)
}

/// An account, and the device.
pub(super) type Key = (AccountId, DeviceId);

/// A wake-up that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) key: Key,
    pub(super) kind: WakeKind,
    pub(super) attempt: u32,
    pub(super) at_ms: u64,
    pub(super) route: Route,
    /// The head of the inbox at the last look.
    head_seq: u64,
    /// How often the device had connected or set a target.
    visit: usize,
    target: usize,
}

/// What an inbox has of a message; it stands at its index, from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) time_ms: u64,
    pub(super) is_accepted: bool,
    pub(super) is_muted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) messages: Vec<Message>,
    pub(super) cursors: BTreeMap<DeviceId, u64>,
}

pub(super) struct World {
    config: PushConfig,
    pub(super) machine: PushMachine,
    pub(super) now_ms: u64,
    pub(super) inboxes: BTreeMap<AccountId, Inbox>,
    /// What the store has.
    pub(super) targets: BTreeMap<Key, (Route, bool)>,
    pub(super) states: BTreeMap<Key, PushStateRecord>,
    pub(super) alarms: BTreeMap<Key, u64>,
    /// What services answer; `None`: not yet.
    pub(super) answer: fn(&Sent) -> Option<Outcome>,
    /// Requests that nobody has answered.
    pub(super) flying: Vec<Sent>,
    /// Since the last check.
    pub(super) sent: Vec<Sent>,
    pub(super) dropped: Vec<(Key, u64)>,
    pub(super) looks: usize,
    pub(super) notes: usize,
    pub(super) look_entries_max: usize,
    pub(super) fails_to_look: bool,
    /// Another message comes while a look is under way.
    pub(super) message_before_facts: bool,
    /// The rules are held against each wake-up. For where there are no alarms.
    pub(super) rules: Option<Rules>,
}

/// What the rules go by: what has happened, and nothing that the machine says of itself.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// For what each device was woken and has not connected since.
    pub(super) awaited: BTreeMap<Key, u64>,
    woken_ms: BTreeMap<Key, u64>,
    visits: BTreeMap<Key, usize>,
    targets: BTreeMap<Key, usize>,
    heads: BTreeMap<AccountId, u64>,
    /// The last wake-up of each device.
    last: BTreeMap<Key, Sent>,
}

impl World {
    /// Nobody is there, and the machine has just started.
    pub(super) fn new() -> Self {
        Self::with(CONFIG)
    }

    /// As [`Self::new`], with other times.
    pub(super) fn with(config: PushConfig) -> Self {
        let mut world = Self {
            config,
            machine: machine(config),
            now_ms: 1_800_000_000_000,
            inboxes: BTreeMap::new(),
            targets: BTreeMap::new(),
            states: BTreeMap::new(),
            alarms: BTreeMap::new(),
            answer: |_| Some(Outcome::Accepted),
            flying: Vec::new(),
            sent: Vec::new(),
            dropped: Vec::new(),
            looks: 0,
            notes: 0,
            look_entries_max: 512,
            fails_to_look: false,
            message_before_facts: false,
            rules: None,
        };
        world.tell(Input::Tick);
        world
    }

    /// Alice's devices can be woken, and the round after the start is over.
    pub(super) fn calm(devices: &[DeviceId]) -> Self {
        let mut world = Self::new();
        for device in devices {
            world.target(ALICE, *device, Route::Apns, true);
        }
        world.pass(2 * CONFIG.close_delay_ms);
        world.check(&[]);
        world
    }

    // ---- what happens ----

    /// A message comes that is worth a wake-up.
    pub(super) fn message(&mut self, account: AccountId) {
        self.grow(account, true, false);
    }

    /// One in a conversation that nobody has accepted.
    pub(super) fn unworthy(&mut self, account: AccountId) {
        self.grow(account, false, false);
    }

    /// One in a conversation that is muted.
    pub(super) fn muted(&mut self, account: AccountId) {
        self.grow(account, true, true);
    }

    fn grow(&mut self, account: AccountId, is_accepted: bool, is_muted: bool) {
        let grown_seq = self.put(account, is_accepted, is_muted);
        self.tell(Input::Moved { account, grown_seq, taken_seq: 0 });
    }

    /// A message comes, and the machine does not hear of it.
    pub(super) fn quietly(&mut self, account: AccountId) {
        self.put(account, true, false);
    }

    fn put(&mut self, account: AccountId, is_accepted: bool, is_muted: bool) -> u64 {
        let messages = &mut self.inboxes.entry(account).or_default().messages;
        messages.push(Message { time_ms: self.now_ms, is_accepted, is_muted });
        messages.len().try_into().unwrap()
    }

    /// A device takes everything.
    pub(super) fn take(&mut self, account: AccountId, device: DeviceId) {
        let seq = self.inboxes.entry(account).or_default().messages.len();
        self.take_to(account, device, seq.try_into().unwrap());
    }

    pub(super) fn take_to(&mut self, account: AccountId, device: DeviceId, seq: u64) {
        self.inboxes.entry(account).or_default().cursors.insert(device, seq);
        self.tell(Input::Moved { account, grown_seq: 0, taken_seq: seq });
    }

    /// A device takes everything, and the machine does not hear of it.
    pub(super) fn take_in_silence(&mut self, account: AccountId, device: DeviceId) {
        let inbox = self.inboxes.entry(account).or_default();
        inbox.cursors.insert(device, inbox.messages.len().try_into().unwrap());
    }

    pub(super) fn connect(&mut self, account: AccountId, device: DeviceId) {
        if let Some(rules) = &mut self.rules {
            rules.awaited.remove(&(account, device));
            *rules.visits.entry((account, device)).or_default() += 1;
        }
        self.tell(Input::Connected { account, device });
    }

    pub(super) fn close(&mut self, account: AccountId, device: DeviceId) {
        self.tell(Input::Closed { account, device });
    }

    /// A device sets a target: what the one before was woken for goes.
    pub(super) fn target(&mut self, account: AccountId, device: DeviceId, route: Route, visible: bool) {
        self.forget((account, device));
        self.targets.insert((account, device), (route, visible));
        self.tell(Input::Target { account, device, route, visible, state: PushStateRecord::default() });
    }

    pub(super) fn untarget(&mut self, account: AccountId, device: DeviceId) {
        self.forget((account, device));
        self.tell(Input::NoTarget { account, device });
    }

    fn forget(&mut self, key: Key) {
        self.targets.remove(&key);
        self.states.remove(&key);
        self.alarms.remove(&key);
        if let Some(rules) = &mut self.rules {
            rules.awaited.remove(&key);
            rules.woken_ms.remove(&key);
            *rules.targets.entry(key).or_default() += 1;
        }
    }

    /// The person of an account has to know something at once.
    pub(super) fn alarm(&mut self, account: AccountId) {
        let devices: Vec<_> = self.targets.keys().filter(|(of, _)| *of == account).map(|(_, device)| *device).collect();
        for device in devices {
            let owed_ms = self.now_ms;
            self.alarms.insert((account, device), owed_ms);
            self.tell(Input::Alarm { account, device, owed_ms });
        }
    }

    /// The process ends at once, and starts again: requests under way are never heard of.
    pub(super) fn restart(&mut self) {
        self.machine = machine(self.config);
        self.flying.clear();
        self.tell(Input::Tick);
        for ((account, device), (route, visible)) in self.targets.clone() {
            let state = self.state(account, device);
            self.tell(Input::Target { account, device, route, visible, state });
        }
        for ((account, device), owed_ms) in self.alarms.clone() {
            self.tell(Input::Alarm { account, device, owed_ms });
        }
    }

    /// Every request that hangs comes to this end.
    pub(super) fn land(&mut self, outcome: Outcome) {
        for sent in std::mem::take(&mut self.flying) {
            let (account, device) = sent.key;
            self.tell(Input::Sent { account, device, outcome });
        }
    }

    /// Time goes by, timer by timer.
    pub(super) fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some((at_ms, _)) = self.machine.poll_timeout().filter(|(at_ms, _)| *at_ms <= end_ms) {
            assert!(at_ms > self.now_ms || at_ms == end_ms, "a timer that has fired is not set again");
            self.now_ms = at_ms.max(self.now_ms);
            self.tell(Input::Tick);
        }
        self.now_ms = end_ms;
        self.tell(Input::Tick);
    }

    // ---- what the machine wants ----

    /// Hands in an input, and answers what the machine asks until it asks no more.
    pub(super) fn tell(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            if let (Some(rules), Input::Sent { account, device, outcome: Outcome::Accepted }) =
                (&mut self.rules, &input)
            {
                rules.accepted((*account, *device), self.now_ms);
            }
            self.machine.handle(input, self.now_ms);
            while let Some(action) = self.machine.poll_action() {
                self.perform(action, &mut inputs);
            }
        }
    }

    fn perform(&mut self, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Look { account, after_seq, expiry } => {
                self.looks += 1;
                let facts = if self.fails_to_look { Err(()) } else { Ok(self.facts(account, after_seq, expiry)) };
                if let (Some(rules), Ok(facts)) = (&mut self.rules, &facts) {
                    rules.heads.insert(account, facts.head_seq);
                }
                if self.message_before_facts {
                    let grown_seq = self.put(account, true, false);
                    inputs.push_back(Input::Moved { account, grown_seq, taken_seq: 0 });
                }
                inputs.push_back(Input::Looked { account, facts });
            }
            Action::Send { account, device, kind, attempt, .. } => {
                let key = (account, device);
                let (route, _) = self.targets[&key];
                let mut sent = Sent { key, kind, attempt, at_ms: self.now_ms, route, head_seq: 0, visit: 0, target: 0 };
                assert!(self.flying.iter().all(|flying| flying.key != key), "two requests of one device");
                if let Some(mut rules) = self.rules.take() {
                    rules.hold(&mut sent, self);
                    self.rules = Some(rules);
                }
                self.sent.push(sent);
                match (self.answer)(&sent) {
                    Some(outcome) => inputs.push_back(Input::Sent { account, device, outcome }),
                    None => self.flying.push(sent),
                }
            }
            Action::Note { account, device, state } => {
                self.notes += 1;
                self.states.insert((account, device), state);
            }
            Action::Rung { account, device, owed_ms } => {
                let of = (account, device);
                assert_eq!(self.alarms.remove(&of), Some(owed_ms), "it was owed, and is the last one");
            }
            Action::Drop { account, device, refused_ms } => self.dropped.push(((account, device), refused_ms)),
        }
    }

    /// What is in an inbox, by the words of the rules.
    pub(super) fn facts(&self, account: AccountId, after_seq: u64, expiry: bool) -> Facts {
        let empty = Inbox::default();
        let inbox = self.inboxes.get(&account).unwrap_or(&empty);
        let head_seq = inbox.messages.len().try_into().unwrap();
        let taken_seq = inbox.cursors.values().copied().max().unwrap_or_default();
        let lives = |message: &Message| self.now_ms - message.time_ms < self.config.retention_ms;
        let after = |seq: u64| (seq + 1..).zip(&inbox.messages[usize::try_from(seq).unwrap()..]);
        let from_seq = taken_seq.max(after_seq);
        let looked = || after(from_seq).take(self.look_entries_max);
        let worthy = |message: &Message| lives(message) && message.is_accepted && !message.is_muted;
        let first =
            looked().find(|(_, message)| worthy(message)).map(|(seq, message)| First { seq, time_ms: message.time_ms });
        let looked_to = first.map_or_else(|| looked().last().map_or(from_seq, |(seq, _)| seq), |first| first.seq - 1);
        let devices = self.targets.keys().filter(|(of, _)| *of == account).map(|(_, device)| {
            let cursor_seq = inbox.cursors.get(device).copied().unwrap_or_default();
            let wanted = after(cursor_seq).find(|(_, message)| lives(message) && message.is_accepted);
            let oldest_accepted_ms = wanted.map(|(_, message)| message.time_ms).filter(|_| expiry);
            DeviceFacts { device: *device, cursor_seq, oldest_accepted_ms }
        });
        let devices = devices.collect();
        Facts { head_seq, taken_seq, first, looked_to, devices }
    }

    // ---- what is seen ----

    pub(super) fn state(&self, account: AccountId, device: DeviceId) -> PushStateRecord {
        self.states.get(&(account, device)).copied().unwrap_or_default()
    }

    /// Who was woken since the last check, in order, and with what.
    #[track_caller]
    pub(super) fn check(&mut self, expected: &[(DeviceId, WakeKind)]) {
        let sent: Vec<_> = self.sent.drain(..).map(|sent| (sent.key.1, sent.kind)).collect();
        assert_eq!(sent, expected);
    }
}

impl Rules {
    /// A wake-up goes.
    fn hold(&mut self, sent: &mut Sent, world: &World) {
        let (account, device) = sent.key;
        sent.head_seq = self.heads.get(&account).copied().unwrap_or_default();
        sent.visit = self.visits.get(&sent.key).copied().unwrap_or_default();
        sent.target = self.targets.get(&sent.key).copied().unwrap_or_default();
        self.last.insert(sent.key, *sent);
        if sent.kind == WakeKind::Expiring {
            return;
        }
        let first = world.facts(account, 0, false).first;
        assert!(first.is_some_and(|first| first.time_ms + DELAY_MS <= world.now_ms), "{sent:?} for {first:?}");
        let cursor_seq = world.inboxes[&account].cursors.get(&device).copied().unwrap_or_default();
        assert!(self.awaited.get(&sent.key).is_none_or(|seq| *seq <= cursor_seq), "{sent:?} is awaited");
        let pause_ms = if world.targets[&sent.key].1 { INTERVAL_MS } else { SILENT_MS };
        let woken_ms = self.woken_ms.get(&sent.key).copied().unwrap_or_default();
        assert!(woken_ms + pause_ms <= world.now_ms, "{sent:?} after {woken_ms}");
    }

    /// A service has taken the last wake-up of a device.
    fn accepted(&mut self, key: Key, now_ms: u64) {
        let sent = self.last[&key];
        let is_same = |counts: &BTreeMap<Key, usize>, before| counts.get(&key).copied().unwrap_or_default() == before;
        if sent.kind == WakeKind::Expiring || !is_same(&self.targets, sent.target) {
            return;
        }
        self.woken_ms.insert(key, now_ms);
        if is_same(&self.visits, sent.visit) {
            self.awaited.insert(key, sent.head_seq);
        }
    }
}

/// One whose randomness goes up and down, so that what is spread is seen to be.
pub(super) fn machine(config: PushConfig) -> PushMachine {
    let mut last = 0_u64;
    PushMachine::new(
        config,
        Box::new(move || {
            last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            last >> 16
        }),
    )
}
