//! What must hold, whatever happens: the model that every run is checked against.
//!
//! A rule is a sentence in [`Journal::check`] or in the answer of [`Model::open_questions`]. The first kind is checked as
//! things happen; the second kind is true once everybody is in step again, and what is left open when the time for that
//! is over is a violation.

mod balance;
mod copies;
mod groups;
mod histories;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gureum_client::vault::{Event, HistoryItem, Message, ReadMark, SentMessage, StoredEvent};
use gureum_proto::{AccountId, ConversationId, DeviceId, MessageId};

use super::clock::SimClock;
use super::faults::{Happening, Profile};
use super::installation::{IDLE_TIMEOUT, KEEP_ALIVE, Who};
use super::journal::Journal;
use super::ledger::Ledger;
use copies::Kept;

/// How long what the server has handed to the network may take to a client while something holds it up: a connection is
/// given up after some silence, and its last bytes may come just before.
const HELD_UP_MS: u64 = 120_000;
const _: () = assert!(HELD_UP_MS > 1_000 * (KEEP_ALIVE.as_secs() + IDLE_TIMEOUT.as_secs()));
/// The same while nothing does.
const UNDER_WAY_MS: u64 = 2_000;

/// The model of one simulation, shared by everybody in it.
#[derive(Debug, Clone)]
pub struct Model {
    journal: Journal,
    clock: SimClock,
    retention_ms: u64,
    inner: Arc<Mutex<Inner>>,
}

/// To whom a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A person.
    Person(usize),
    /// Whoever is in a group.
    Group(ConversationId),
}

impl To {
    /// The person.
    const fn person(self) -> Option<usize> {
        match self {
            Self::Person(person) => Some(person),
            Self::Group(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Who was in which group when.
    ledger: Ledger,
    /// Whom somebody wanted out of a group.
    wanted_out: groups::Wanted,
    /// Texts are never repeated, so that each is the name of its message.
    handed: BTreeMap<String, Handed>,
    people: BTreeMap<usize, Account>,
    devices: BTreeMap<Who, Seen>,
    /// What devices had seen when their homes were copied.
    copies: BTreeMap<Who, Kept>,
    /// What one device had of a history, the second of a pair, when it was to hand it over to the first.
    promised: BTreeMap<(Who, Who), BTreeSet<String>>,
    /// How often something has let the server forget what was not synced.
    forgets: u64,
    /// Inboxes are so small that they may be too full.
    may_overflow: bool,
    /// Commits may expire while somebody is away: a clock that has leapt is believed at a start.
    may_rejoin: bool,
    /// So many positions are in an inbox behind what overflows: most of its room.
    kept_min: u64,
    /// Nothing is wrong any more.
    is_well: bool,
    /// Since when nothing has held up what is under way; `None` while something does.
    disturbed_until_ms: Option<u64>,
    /// How far the server's time was ahead of the true one, and when that was seen.
    server_ahead_ms: VecDeque<(u64, i64)>,
    counts: Counts,
}

/// What a run has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Messages handed over to clients.
    pub handed: u64,
    /// Of those, answered by the server while somebody waited.
    pub acked: u64,
    /// Messages that were received, by each device that did.
    pub received: u64,
    /// Of those, what other devices of the reader had sent.
    pub of_siblings: u64,
    /// Messages reported as missed.
    pub missed: u64,
    /// Messages that came and were reported as unreadable.
    pub unreadable: u64,
    /// Devices that were linked or brought their account back.
    pub linked: u64,
    /// Devices that were revoked.
    pub revoked: u64,
    /// Homes that were told that they are older copies.
    pub restored: u64,
    /// Histories that were handed over to their end.
    pub histories: u64,
    /// Histories that ended because whoever handed them over was revoked.
    pub histories_over: u64,
}

#[derive(Debug, Clone)]
struct Handed {
    from: Who,
    to: To,
    /// Which of the lives of the sender's client it was handed to.
    life: u64,
    /// When, in virtual milliseconds.
    at_ms: u64,
    /// When the sender was told that the server has it, likewise.
    acked_ms: Option<u64>,
    /// Nothing was wrong any more.
    when_well: bool,
    fate: Fate,
}

/// What the sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Nothing: it crashed, or still waits.
    Unknown,
    /// It is on the server's disk.
    Acked(Option<MessageId>),
    /// It will go out.
    Kept,
    /// It was not sent and will not be.
    Refused(String),
}

/// What is known of an account.
#[derive(Debug, Clone, Copy)]
struct Account {
    id: AccountId,
    /// Since when it may have had more devices than its first, in virtual milliseconds.
    siblings_from_ms: Option<u64>,
}

/// What a device has seen.
#[derive(Debug, Clone, Default)]
struct Seen {
    device: Option<DeviceId>,
    events: BTreeSet<i64>,
    texts: BTreeSet<String>,
    /// Gaps by their first position, with the latest time that the server can have had when it told.
    gaps: BTreeMap<u64, SeenGap>,
    /// Conversations that it had to join again, because what it would have joined by was gone: its inbox was too full, or
    /// the server's time had leapt. What was written before that is told to be unreadable, one by one.
    rejoined: BTreeSet<ConversationId>,
    /// Messages that it was told it cannot read. A history that is handed over takes their place.
    unreadable: BTreeSet<(ConversationId, u64)>,
    /// The ends that it was told of histories, by who has handed them over, and whether they were whole.
    histories: BTreeMap<Who, bool>,
    /// The last number told of each conversation.
    numbers: BTreeMap<ConversationId, u64>,
    /// From which devices it has heard in a conversation, and since when, in virtual milliseconds.
    heard: BTreeMap<(ConversationId, DeviceId), u64>,
    /// How far it was told that other devices of its account have read.
    marks_told: BTreeMap<ConversationId, u64>,
    /// How far conversations were read.
    marks: BTreeMap<ConversationId, u64>,
    /// Texts that were given up, with a word to the sender.
    failed: u64,
    /// How often its client was started.
    life: u64,
    /// It may be cut off at any moment.
    may_be_revoked: bool,
    /// When its account had revoked it, in virtual milliseconds.
    revoked_ms: Option<u64>,
    /// Its client was in step since its home was last copied.
    was_in_step: bool,
    /// In which life its home was last put back as it had been.
    put_back_life: Option<u64>,
    /// It must be told that it is an older copy, unless the server has forgotten more often than so.
    must_be_told: Option<u64>,
    /// What newer copies of its home have written and received.
    written_before: Vec<Message>,
    had_before: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
struct SeenGap {
    count: u64,
    server_ms: u64,
}

impl Model {
    /// A model of a run.
    #[must_use]
    pub fn new(journal: Journal, clock: SimClock, profile: &Profile) -> Self {
        let kept_min = profile.inbox_entries_max.map_or(0, |most| most / 2);
        let may_overflow = profile.inbox_entries_max.is_some();
        let leaps = |(kind, _): &(Happening, u32)| matches!(kind, Happening::ClockLeap | Happening::ClockMadness);
        let may_rejoin = may_overflow || profile.weights.iter().any(leaps);
        let inner =
            Inner { may_overflow, may_rejoin, kept_min, disturbed_until_ms: Some(clock.true_ms()), ..Inner::default() };
        Self { journal, clock, retention_ms: profile.retention_ms, inner: Arc::new(Mutex::new(inner)) }
    }

    /// What the server writes of groups goes in here.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.inner().ledger.clone()
    }

    /// There is a device, without an account.
    pub fn installed(&self, who: Who) {
        self.inner().devices.insert(who, Seen::default());
    }

    /// An account is about to have a further device.
    pub fn about_to_link(&self, person: usize) {
        let now_ms = self.journal.now_ms();
        if let Some(account) = self.inner().people.get_mut(&person) {
            account.siblings_from_ms.get_or_insert(now_ms);
        }
    }

    /// A device is one of an account's.
    pub fn linked(&self, who: Who, account: AccountId, device: DeviceId) {
        let mut inner = self.inner();
        let known = inner.people.entry(who.person).or_insert(Account { id: account, siblings_from_ms: None }).id;
        self.journal.check(known == account, "a device comes to its own account", || format!("{who}: {account}"));
        inner.counts.linked += u64::from(who.device > 0);
        inner.seen(who).device = Some(device);
    }

    /// A device is lost, or somebody is about to revoke it.
    pub fn about_to_be_revoked(&self, who: Who) {
        self.inner().seen(who).may_be_revoked = true;
    }

    /// Whether a device may be cut off.
    #[must_use]
    pub fn may_be_revoked(&self, who: Who) -> bool {
        self.inner().seen(who).may_be_revoked
    }

    /// The account has revoked a device: who did it was told so.
    pub fn revoked(&self, who: Who) {
        let now_ms = self.journal.now_ms();
        let mut inner = self.inner();
        inner.counts.revoked += 1;
        let seen = inner.seen(who);
        (seen.may_be_revoked, seen.revoked_ms) = (true, Some(now_ms));
    }

    /// Somebody's client is started.
    pub fn comes(&self, who: Who) {
        self.inner().seen(who).life += 1;
    }

    /// How often somebody's client was started.
    #[must_use]
    pub fn life(&self, who: Who) -> u64 {
        self.inner().seen(who).life
    }

    /// From now on nothing is wrong any more.
    pub fn all_well(&self) {
        self.inner().is_well = true;
    }

    /// Whether something is wrong now that may hold up what is under way.
    pub fn disturbed(&self, is_disturbed: bool) {
        let now_ms = self.clock.true_ms();
        self.inner().disturbed_until_ms = if is_disturbed { None } else { Some(now_ms) };
    }

    /// A text is about to be handed over.
    pub fn hands_over(&self, text: &str, from: Who, to: To) {
        let at_ms = self.journal.now_ms();
        let mut inner = self.inner();
        inner.counts.handed += 1;
        let (life, when_well) = (inner.seen(from).life, inner.is_well);
        let handed = Handed { from, to, life, at_ms, acked_ms: None, when_well, fate: Fate::Unknown };
        inner.handed.insert(text.to_owned(), handed);
    }

    /// The server has it.
    pub fn acked(&self, text: &str, sent: &SentMessage) {
        let now_ms = self.journal.now_ms();
        let mut inner = self.inner();
        inner.counts.acked += 1;
        inner.tell(text, Fate::Acked(sent.message_id));
        if let Some(handed) = inner.handed.get_mut(text) {
            handed.acked_ms = Some(now_ms);
        }
    }

    /// It is in the outbox.
    pub fn kept(&self, text: &str) {
        let mut inner = self.inner();
        inner.tell(text, Fate::Kept);
        self.check_well(&inner, || format!("{} is kept back", name_of(text)));
    }

    /// It will not be sent.
    pub fn refused(&self, text: &str, why: String) {
        self.journal.note(format!("{} is refused: {why}", name_of(text)));
        let mut inner = self.inner();
        self.check_well(&inner, || format!("{} is refused: {why}", name_of(text)));
        inner.tell(text, Fate::Refused(why));
    }

    fn check_well(&self, inner: &Inner, what: impl FnOnce() -> String) {
        self.journal.check(!inner.is_well, "a healthy system takes every message", what);
    }

    /// Somebody has read, with a client of this life.
    pub fn read(&self, who: Who, life: u64, mark: ReadMark) {
        let mut inner = self.inner();
        let seen = inner.seen(who);
        if seen.life != life {
            return;
        }
        let before = seen.marks.insert(mark.conversation, mark.number).unwrap_or(0);
        self.journal.check(before <= mark.number, "a read mark never goes back", || {
            format!("{who} has read up to {} after {before}", mark.number)
        });
    }

    /// What the run has seen so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// The server has told its time.
    pub fn server_time(&self, server_ms: u64) {
        let true_ms = self.clock.true_ms();
        let ahead_ms = i64::try_from(server_ms).unwrap_or(i64::MAX) - i64::try_from(true_ms).unwrap_or(0);
        let mut inner = self.inner();
        inner.server_ahead_ms.push_back((true_ms, ahead_ms));
        // The last one before the window counts for its beginning.
        while inner.server_ahead_ms.get(1).is_some_and(|(at_ms, _)| at_ms + HELD_UP_MS < true_ms) {
            inner.server_ahead_ms.pop_front();
        }
    }

    /// The earliest and the latest time that the server can have had when it said what arrives now.
    fn server_span_ms(&self, inner: &Inner) -> (u64, u64) {
        let true_ms = self.clock.true_ms();
        let is_calm = inner.disturbed_until_ms.is_some_and(|until_ms| until_ms + HELD_UP_MS <= true_ms);
        let under_way_ms = if is_calm { UNDER_WAY_MS } else { HELD_UP_MS };
        let aheads = || inner.server_ahead_ms.iter().map(|(_, ahead_ms)| *ahead_ms);
        let (least, most) = (aheads().min().unwrap_or(0), aheads().max().unwrap_or(0));
        (true_ms.saturating_add_signed(least).saturating_sub(under_way_ms), true_ms.saturating_add_signed(most))
    }

    /// Somebody was told of an event. The same event may be told twice, if there was a crash between.
    pub fn told(&self, who: Who, stored: &StoredEvent) {
        let mut inner = self.inner();
        if !inner.seen(who).events.insert(stored.id) {
            return;
        }
        let (earliest_ms, latest_ms) = self.server_span_ms(&inner);
        if let Some(rule) = never(&stored.event) {
            return self.journal.violate(rule, format!("{who}: {:?}", stored.event));
        }
        match &stored.event {
            Event::Message(message) => self.told_message(&mut inner, who, message, earliest_ms),
            Event::Gap { from_seq, count, .. } => {
                inner.counts.missed += count;
                let gap = SeenGap { count: *count, server_ms: latest_ms };
                let before = inner.seen(who).gaps.insert(*from_seq, gap);
                self.journal.check(before.is_none(), "a gap is told once", || format!("{who}: {from_seq}"));
            }
            Event::SendFailed { .. } => {
                inner.seen(who).failed += 1;
                let is_revoked = inner.seen(who).may_be_revoked;
                let holds = is_revoked || !inner.is_well;
                let what = || format!("a message of {who} is given up");
                self.journal.check(holds, "a healthy system takes every message", what);
            }
            // Whether it may be so shows in the balance.
            Event::Unreadable { conversation, number, .. } => {
                inner.counts.unreadable += 1;
                inner.seen(who).unreadable.insert((*conversation, *number));
            }
            Event::History { .. } => self.told_history(&mut inner, who, &stored.event),
            Event::Rejoined { conversation, .. } => {
                self.journal.note(format!("{who} has joined again"));
                let may = inner.may_rejoin || inner.may_come_late(who, *conversation);
                self.journal.check(may, "nobody has to join again", || who.to_string());
                inner.seen(who).rejoined.insert(*conversation);
            }
            Event::Read { conversation, number, .. } => {
                let before = inner.seen(who).marks_told.insert(*conversation, *number).unwrap_or(0);
                self.journal.check(before < *number, "a read mark never goes back", || {
                    format!("{who} was told that up to {number} is read, after {before}")
                });
            }
            Event::Restored { .. } => {
                inner.counts.restored += 1;
                let seen = inner.seen(who);
                seen.must_be_told = None;
                let is_one = seen.put_back_life.is_some();
                self.journal.check(is_one, "no home is taken for a copy", || format!("{who}: {:?}", stored.event));
            }
            Event::Copied { .. } => {
                let is_one = inner.seen(who).put_back_life.is_some();
                self.journal.check(is_one, "no home is taken for a copy", || format!("{who}: {:?}", stored.event));
            }
            Event::Group { .. } | Event::IntentRefused { .. } => {
                self.journal
                    .check(!inner.is_well, "no group changes by itself", || format!("{who}: {:?}", stored.event));
            }
            // Whether anything is missing shows in the balance.
            Event::Withheld { count, .. } => {
                self.journal.note(format!("{who} was told that {count} messages are withheld"));
            }
            Event::CommitRefused { .. } => {
                // One that removes the device itself is for the others.
                let may = inner.seen(who).may_be_revoked;
                self.journal.check(may, "no commit is refused", || format!("{who}: {:?}", stored.event));
            }
            Event::Joined { .. }
            | Event::MemberRejoined { .. }
            | Event::Receipt { .. }
            | Event::GoneBack { .. }
            | Event::Restarted { .. }
            | Event::SafetyNumber { .. }
            | Event::Hidden { .. }
            | Event::LogForked { .. }
            | Event::AccountsGone { .. }
            | Event::DeviceAdded { .. }
            | Event::Phone { .. }
            | Event::PushRefused { .. }
            | Event::DeviceRevoked { .. } => {}
        }
    }

    /// A message of somebody else, or of another device of the same account.
    fn told_message(&self, inner: &mut Inner, who: Who, message: &Message, earliest_ms: u64) {
        self.journal.check(message.seq.is_some(), "what is handed over is no news", || {
            format!("{who} was told of {}", name_of(&message.text))
        });
        inner.counts.received += 1;
        inner.counts.of_siblings += u64::from(message.own);
        let text = message.text.clone();
        let age_ms = earliest_ms.saturating_sub(message.server_time_ms);
        self.journal.check(age_ms < self.retention_ms, "nothing expired is served", || {
            format!("{who} got {} at an age of {age_ms} ms", name_of(&text))
        });
        let is_for = inner.may_read(who, message);
        self.journal
            .check(is_for, "who is not in a group reads nothing of it", || format!("{who} got {}", name_of(&text)));
        let is_meant = inner.is_meant(who, message);
        self.journal.check(is_meant, "what arrives was sent, to whom it reached", || name_of(&text).to_owned());
        self.check_revoked(inner, who, message);
        let handed_ms = inner.handed.get(&text).map_or(0, |handed| handed.at_ms);
        let now_ms = self.journal.now_ms();
        let seen = inner.seen(who);
        let is_new = seen.revoked_ms.is_some_and(|revoked_ms| revoked_ms < handed_ms);
        self.journal.check(!is_new, "a revoked device gets nothing new", || format!("{who} got {}", name_of(&text)));
        self.journal.check(seen.texts.insert(text.clone()), "nothing is delivered twice", || {
            format!("{who} got {} again", name_of(&text))
        });
        let before = seen.numbers.insert(message.conversation, message.number).unwrap_or(0);
        self.journal.check(before < message.number, "messages come in their order", || {
            format!("{who} got number {} after {before}", message.number)
        });
        seen.heard.entry((message.conversation, message.device)).or_insert(now_ms);
    }

    /// What is still open between these histories, one for each device that has been an account's; nothing, when
    /// everybody is in step.
    #[must_use]
    pub fn open_questions(&self, histories: &[(Who, Vec<HistoryItem>)]) -> Vec<String> {
        balance::open_questions(&self.inner(), self.retention_ms, histories)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn seen(&mut self, who: Who) -> &mut Seen {
        self.devices.entry(who).or_default()
    }

    fn tell(&mut self, text: &str, fate: Fate) {
        if let Some(handed) = self.handed.get_mut(text) {
            handed.fate = fate;
        }
    }

    /// Whether a message was handed over by whom it says, to the account of this device or by another device of it.
    fn is_meant(&self, who: Who, message: &Message) -> bool {
        let Some(handed) = self.handed.get(&message.text) else { return false };
        let sender = self.devices.get(&handed.from).and_then(|seen| seen.device);
        let account = self.people.get(&handed.from.person).map(|account| account.id);
        let is_of = sender == Some(message.device) && account == Some(message.from);
        let is_sibling = handed.from.person == who.person && handed.from != who;
        let is_for = match handed.to {
            To::Person(to) => to == who.person,
            To::Group(group) => group == message.conversation,
        };
        is_of && if message.own { is_sibling && (is_for || handed.to.person().is_some()) } else { is_for }
    }

    /// Whether the account of a device was in when a message was accepted, where that is in a group.
    fn may_read(&self, who: Who, message: &Message) -> bool {
        if !self.ledger.is_group(message.conversation) {
            return true;
        }
        let account = self.people.get(&who.person).map(|account| account.id);
        let found = message.message_id.zip(account);
        found.is_some_and(|(id, account)| self.ledger.is_among(message.conversation, id, account))
    }

    /// Whether a device may have to join a conversation by itself that its account is in: its home was put back, it had no
    /// key in the directory when another device of the account began the conversation or its account was added to a group,
    /// or it has been removed.
    fn may_come_late(&self, who: Who, conversation: ConversationId) -> bool {
        let has_siblings = self.people.get(&who.person).is_some_and(|account| account.siblings_from_ms.is_some());
        let Some(seen) = self.devices.get(&who) else { return false };
        seen.may_be_revoked
            || seen.put_back_life.is_some()
            || (has_siblings && (self.ledger.is_group(conversation) || !seen.numbers.contains_key(&conversation)))
    }

    /// Whether what a device has done last may be known to nobody any more: it was revoked, or a copy has taken its place.
    fn has_departed(&self, handed: &Handed) -> bool {
        self.devices.get(&handed.from).is_some_and(|seen| {
            seen.may_be_revoked || seen.put_back_life.is_some_and(|put_back| handed.life <= put_back)
        })
    }
}

/// The rule that an event breaks wherever it is told.
const fn never(event: &Event) -> Option<&'static str> {
    match event {
        Event::GoneBack { .. } | Event::Restarted { .. } => Some("the server never goes back"),
        Event::SafetyNumber { .. } => Some("no handle moves"),
        Event::Hidden { .. } => Some("no conversation is hidden"),
        Event::LogForked { .. } => Some("no device log forks"),
        Event::AccountsGone { .. } => Some("no account is deleted"),
        Event::Phone { .. } => Some("no account has a phone number"),
        Event::PushRefused { .. } => Some("no push target is dropped"),
        _ => None,
    }
}

/// The part of a text that names it; the rest is padding.
fn name_of(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}
