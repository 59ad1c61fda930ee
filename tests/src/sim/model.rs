//! What must hold, whatever happens: the model that every run is checked against.
//!
//! A rule is a sentence in [`Journal::check`] or in the answer of [`Model::open_questions`]. The first kind is checked as
//! things happen; the second kind is true once everybody is in step again, and what is left open when the time for that
//! is over is a violation.

mod balance;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gureum_client::vault::{Event, HistoryItem, SentMessage, StoredEvent};
use gureum_proto::{AccountId, ConversationId, MessageId};

use super::clock::SimClock;
use super::faults::{Happening, Profile};
use super::journal::Journal;

/// How long what the server has handed to the network may take to a client while something holds it up: a connection is
/// given up after a minute of silence, and its last bytes may come just before.
const HELD_UP_MS: u64 = 120_000;
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

#[derive(Debug, Default)]
struct Inner {
    /// Texts are never repeated, so that each is the name of its message.
    handed: BTreeMap<String, Handed>,
    people: Vec<Seen>,
    /// Inboxes are so small that they may be too full.
    may_overflow: bool,
    /// Commits may expire while somebody is away: a clock that has leapt is believed at a start.
    may_rejoin: bool,
    /// So many positions are in an inbox behind what overflows: most of its room, but for commits, which nobody is told of.
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
    /// Messages that were received.
    pub received: u64,
    /// Messages reported as missed.
    pub missed: u64,
    /// Messages that came and were reported as unreadable.
    pub unreadable: u64,
}

#[derive(Debug, Clone)]
struct Handed {
    from: usize,
    to: usize,
    /// Which of the lives of the sender's client it was handed to.
    life: u64,
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

/// What a person has seen.
#[derive(Debug, Default)]
struct Seen {
    account: Option<AccountId>,
    events: BTreeSet<i64>,
    texts: BTreeSet<String>,
    /// Gaps by their first position, with the latest time that the server can have had when it told.
    gaps: BTreeMap<u64, SeenGap>,
    /// Conversations that it had to join again, because what it would have joined by was gone: its inbox was too full, or
    /// the server's time had leapt. What was written before that is told to be unreadable, one by one.
    rejoined: BTreeSet<ConversationId>,
    /// The last number told of each conversation.
    numbers: BTreeMap<ConversationId, u64>,
    /// Texts that were given up, with a word to the sender.
    failed: u64,
    /// How often its client was started.
    life: u64,
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
        // One more for whom the others do not know.
        let people = (0..=profile.people).map(|_| Seen::default()).collect();
        let kept_min = profile.inbox_entries_max.map_or(0, |most| most / 2);
        let may_overflow = profile.inbox_entries_max.is_some();
        let leaps = |(kind, _): &(Happening, u32)| matches!(kind, Happening::ClockLeap | Happening::ClockMadness);
        let may_rejoin = may_overflow || profile.weights.iter().any(leaps);
        let inner = Inner {
            people,
            may_overflow,
            may_rejoin,
            kept_min,
            disturbed_until_ms: Some(clock.true_ms()),
            ..Inner::default()
        };
        Self { journal, clock, retention_ms: profile.retention_ms, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Somebody has an account.
    pub fn registered(&self, person: usize, account: AccountId) {
        self.inner().people[person].account = Some(account);
    }

    /// Somebody's client is started.
    pub fn comes(&self, person: usize) {
        self.inner().people[person].life += 1;
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
    pub fn hands_over(&self, text: &str, from: usize, to: usize) {
        let mut inner = self.inner();
        inner.counts.handed += 1;
        let life = inner.people[from].life;
        inner.handed.insert(text.to_owned(), Handed { from, to, life, fate: Fate::Unknown });
    }

    /// The server has it.
    pub fn acked(&self, text: &str, sent: &SentMessage) {
        let mut inner = self.inner();
        inner.counts.acked += 1;
        inner.tell(text, Fate::Acked(sent.message_id));
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
    pub fn told(&self, person: usize, stored: &StoredEvent) {
        let mut inner = self.inner();
        if !inner.people[person].events.insert(stored.id) {
            return;
        }
        let (earliest_ms, latest_ms) = self.server_span_ms(&inner);
        match &stored.event {
            Event::Message(message) if !message.own => {
                inner.counts.received += 1;
                let text = message.text.clone();
                let age_ms = earliest_ms.saturating_sub(message.server_time_ms);
                self.journal.check(age_ms < self.retention_ms, "nothing expired is served", || {
                    format!("person {person} got {} at an age of {age_ms} ms", name_of(&text))
                });
                let is_meant = inner.handed.get(&text).is_some_and(|handed| {
                    handed.to == person && inner.people[handed.from].account == Some(message.from)
                });
                self.journal.check(is_meant, "what arrives was sent, to whom it reached", || name_of(&text).to_owned());
                let seen = &mut inner.people[person];
                self.journal.check(seen.texts.insert(text.clone()), "nothing is delivered twice", || {
                    format!("person {person} got {} again", name_of(&text))
                });
                let before = seen.numbers.insert(message.conversation, message.number).unwrap_or(0);
                self.journal.check(before < message.number, "messages come in their order", || {
                    format!("person {person} got number {} after {before}", message.number)
                });
            }
            Event::Message(_) => {}
            Event::Gap { from_seq, count, .. } => {
                inner.counts.missed += count;
                let gap = SeenGap { count: *count, server_ms: latest_ms };
                let before = inner.people[person].gaps.insert(*from_seq, gap);
                self.journal.check(before.is_none(), "a gap is told once", || format!("person {person}: {from_seq}"));
            }
            Event::SendFailed { .. } => {
                inner.people[person].failed += 1;
                self.check_well(&inner, || format!("a message of person {person} is given up"));
            }
            // Whether it may be so shows in the balance.
            Event::Unreadable { .. } => inner.counts.unreadable += 1,
            Event::Rejoined { conversation } => {
                self.journal.note(format!("person{person} has joined again"));
                self.journal.check(inner.may_rejoin, "nobody has to join again", || format!("person {person}"));
                inner.people[person].rejoined.insert(*conversation);
            }
            Event::GoneBack { .. } | Event::Restarted { .. } => {
                self.journal.violate("the server never goes back", format!("person {person}: {:?}", stored.event));
            }
            Event::Restored { .. } | Event::Copied { .. } => {
                self.journal.violate("no home is taken for a copy", format!("person {person}: {:?}", stored.event));
            }
            Event::Group { .. } | Event::IntentRefused { .. } => {
                self.journal.violate("nobody is in a group", format!("person {person}: {:?}", stored.event));
            }
            Event::CommitRefused { .. } => {
                self.journal.violate("no commit is refused", format!("person {person}: {:?}", stored.event));
            }
            Event::Joined { .. }
            | Event::MemberRejoined { .. }
            | Event::Receipt { .. }
            | Event::DeviceAdded { .. }
            | Event::DeviceRevoked { .. } => {}
        }
    }

    /// What is still open between these histories, one a person; nothing, when everybody is in step.
    #[must_use]
    pub fn open_questions(&self, histories: &[Vec<HistoryItem>]) -> Vec<String> {
        balance::open_questions(&self.inner(), self.retention_ms, histories)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, text: &str, fate: Fate) {
        if let Some(handed) = self.handed.get_mut(text) {
            handed.fate = fate;
        }
    }
}

/// The part of a text that names it; the rest is padding.
fn name_of(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}
