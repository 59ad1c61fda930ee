//! The balance of all histories: every message of a conversation has one number, stands once in the history of the device
//! that sent it, and once in that of each other device of its two people, or of those who were in the group, or in a gap
//! that was told there.

mod losses;
mod promises;

use std::collections::{BTreeMap, BTreeSet};

use gureum_client::vault::{HistoryItem, Message};
use gureum_proto::{ConversationId, MessageId};

use super::{Fate, Inner, To, name_of};
use crate::sim::installation::Who;
use losses::Losses;

/// One conversation's messages, as the devices of its people have them.
#[derive(Default)]
struct Talk<'a> {
    /// The two, by what was handed over; of a group, who has written.
    people: BTreeSet<usize>,
    /// By number: which device wrote it, and what its history says.
    written: BTreeMap<u64, (Who, &'a Message)>,
    /// By number: what the histories of the others say.
    read: BTreeMap<u64, BTreeMap<Who, &'a Message>>,
    /// The same of what other devices have handed over to these. It makes up for nothing that was to come by the inbox, and
    /// stands in no gap.
    handed_over: BTreeMap<u64, BTreeMap<Who, &'a Message>>,
    /// Numbers that came, and that somebody was told cannot be read.
    unreadable: BTreeMap<u64, BTreeMap<Who, MessageId>>,
    /// Numbers of which nobody knows any more what they were: their writers are gone, and nobody has read them.
    holes: u64,
}

/// All of them.
struct Books<'a> {
    model: &'a Inner,
    talks: BTreeMap<ConversationId, Talk<'a>>,
    open: Vec<String>,
}

pub(super) fn open_questions(model: &Inner, retention_ms: u64, histories: &[(Who, Vec<HistoryItem>)]) -> Vec<String> {
    let mut books = Books { model, talks: BTreeMap::new(), open: Vec::new() };
    for (who, history) in histories {
        books.sort_out(*who, history);
    }
    books.add_what_copies_replaced();
    books.adopt();
    books.check_talks();
    books.check_unreadable();
    for (who, history) in histories.iter().filter(|(who, _)| model.is_in_use(*who)) {
        books.check_told(*who, history);
        let mut losses = Losses::of(&books, *who, histories, retention_ms);
        losses.check(history);
        let found = losses.open;
        books.open.extend(found);
    }
    promises::check(&mut books);
    super::histories::check(model, histories, &mut books.open);
    super::groups::check(model, &mut books.open);
    books.open
}

impl<'a> Books<'a> {
    /// Puts a history's messages into their conversations.
    fn sort_out(&mut self, who: Who, history: &'a [HistoryItem]) {
        let device = self.model.devices.get(&who).and_then(|seen| seen.device);
        let mut last_number: BTreeMap<ConversationId, u64> = BTreeMap::new();
        let mut texts: BTreeSet<&str> = BTreeSet::new();
        for item in history {
            let message = match item {
                HistoryItem::Message(message) => message,
                HistoryItem::Unreadable { conversation, number, message_id, .. } => {
                    let talk = self.talks.entry(*conversation).or_default();
                    if talk.unreadable.entry(*number).or_default().insert(who, *message_id).is_some() {
                        self.open.push(format!("number {number} stands twice at {who}, unreadable"));
                    }
                    continue;
                }
                HistoryItem::Gap { .. } | HistoryItem::Restarted { .. } | HistoryItem::SafetyNumber { .. } => continue,
            };
            let number = message.number;
            let talk = self.talks.entry(message.conversation).or_default();
            if let Some(handed) = self.model.handed.get(&message.text) {
                talk.people.extend([Some(handed.from.person), handed.to.person()].into_iter().flatten());
            }
            let is_there = if Some(message.device) == device {
                talk.written.insert(number, (who, message)).is_some()
            } else if is_handed_over(message) {
                talk.handed_over.entry(number).or_default().insert(who, message).is_some()
            } else {
                talk.read.entry(number).or_default().insert(who, message).is_some()
            };
            if is_there || !texts.insert(&message.text) {
                self.open.push(format!("number {number} stands twice ({})", name_of(&message.text)));
            }
            let last = last_number.insert(message.conversation, number).unwrap_or(0);
            if last >= number {
                self.open.push(format!("{who} has number {number} after {last}"));
            }
        }
    }

    /// What a newer copy of a home has written stays written when the older one takes its place.
    fn add_what_copies_replaced(&mut self) {
        for (who, seen) in &self.model.devices {
            for message in &seen.written_before {
                let talk = self.talks.entry(message.conversation).or_default();
                talk.written.entry(message.number).or_insert((*who, message));
            }
        }
    }

    /// What was read is written, though its writer has not heard of it and will not.
    fn adopt(&mut self) {
        for talk in self.talks.values_mut() {
            for (number, readers) in talk.read.iter().chain(&talk.handed_over) {
                let Some(message) = readers.values().next().copied() else { continue };
                let handed = self.model.handed.get(&message.text).filter(|handed| self.model.has_departed(handed));
                if let Some(handed) = handed {
                    talk.written.entry(*number).or_insert((handed.from, message));
                }
            }
        }
    }

    fn check_talks(&mut self) {
        let Self { model, talks, open } = self;
        for (conversation, talk) in talks {
            let last = talk.written.keys().next_back().copied().unwrap_or(0);
            let missing: Vec<_> = (1..=last).filter(|number| !talk.written.contains_key(number)).collect();
            talk.holes = u64::try_from(missing.len()).unwrap_or(u64::MAX);
            if let Some(first) = missing.first()
                && talk.holes > unheard_of(model, (*conversation, talk))
            {
                open.push(format!("conversation {conversation}: nobody has sent number {first}"));
            }
            for (number, readers) in talk.read.iter().chain(&talk.handed_over) {
                for (reader, read) in readers {
                    check_read(talk, *number, (*reader, *read), open);
                }
            }
        }
    }

    /// Who was always in can read everything, and who comes in later, everything from then on.
    fn check_unreadable(&mut self) {
        for (conversation, talk) in &self.talks {
            for (number, devices) in &talk.unreadable {
                for (who, message_id) in devices.iter().filter(|(who, _)| self.model.is_in_use(**who)) {
                    let came_late = came_late(self.model, *who, (*conversation, *message_id));
                    let is_read = talk.read.get(number).is_some_and(|readers| readers.contains_key(who));
                    if !came_late || is_read {
                        self.open.push(format!("{who} cannot read number {number}, though it was always in"));
                    }
                }
            }
        }
    }

    /// What has come is told; what was handed over is no news.
    fn check_told(&mut self, who: Who, history: &[HistoryItem]) {
        let Some(seen) = self.model.devices.get(&who) else { return };
        for item in history {
            let HistoryItem::Message(message) = item else { continue };
            let is_news = Some(message.device) != seen.device && !is_handed_over(message);
            if is_news && !seen.texts.contains(&message.text) {
                self.open.push(format!("{who} was not told of {}", name_of(&message.text)));
            }
        }
    }
}

/// Whether a device may be unable to read a message: it had to join the conversation again; or that is a group which its
/// account has been out of, for who leaves does not follow it to the epoch of its last messages, or in which the device
/// was not yet in some epoch that the message may be of.
fn came_late(model: &Inner, who: Who, (conversation, message_id): (ConversationId, MessageId)) -> bool {
    let Some(seen) = model.devices.get(&who) else { return false };
    if seen.rejoined.contains(&conversation) {
        return true;
    }
    let account = model.people.get(&who.person);
    let has_left = account.is_some_and(|account| model.ledger.has_left(conversation, account.id));
    let was_in = seen.device.is_none_or(|device| model.ledger.was_in(conversation, message_id, device));
    model.ledger.is_group(conversation) && (has_left || !was_in)
}

/// Whether a message that a device has not written itself has come to it by no inbox.
const fn is_handed_over(message: &Message) -> bool {
    message.seq.is_none()
}

/// All have the same under one number.
fn check_read(talk: &Talk<'_>, number: u64, (reader, read): (Who, &Message), open: &mut Vec<String>) {
    let Some((_, written)) = talk.written.get(&number) else {
        return open.push(format!("{reader} has number {number}, which nobody has sent"));
    };
    let facts = |message: &Message| (message.text.clone(), message.message_id, message.server_time_ms);
    if facts(read) != facts(written) {
        open.push(format!("number {number} is {} and {}", name_of(&read.text), name_of(&written.text)));
    }
}

/// How many texts of a conversation may have been sent by devices that were never told, and never will be. Nobody need have
/// anything else of who has written them to a group.
fn unheard_of(model: &Inner, (conversation, talk): (ConversationId, &Talk<'_>)) -> u64 {
    let known: BTreeSet<&str> = talk.written.values().map(|(_, message)| message.text.as_str()).collect();
    let may_be = model.handed.iter().filter(|(text, handed)| {
        let is_here = match handed.to {
            To::Person(to) => talk.people.contains(&handed.from.person) && talk.people.contains(&to),
            To::Group(group) => group == conversation,
        };
        let is_open = matches!(handed.fate, Fate::Unknown | Fate::Kept);
        is_here && is_open && !known.contains(text.as_str()) && model.has_departed(handed)
    });
    u64::try_from(may_be.count()).unwrap_or(u64::MAX)
}

impl Inner {
    /// Whether a device is one of its account's, as far as anybody knows.
    pub(super) fn is_in_use(&self, who: Who) -> bool {
        self.devices.get(&who).is_some_and(|seen| seen.device.is_some() && !seen.may_be_revoked)
    }
}

/// Where a message may stand in an inbox: at one position, or between two.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
    /// It has a position; else it may have none at all.
    is_placed: bool,
}

impl Span {
    const fn is_exact(self) -> bool {
        self.is_placed && self.from == self.to
    }

    const fn meets(self, from: u64, to: u64) -> bool {
        self.from <= to && self.to >= from
    }
}

/// What came at which position of an account's inbox, to whichever of its devices.
struct Places(BTreeMap<MessageId, u64>);

impl Places {
    fn of(histories: &[(Who, Vec<HistoryItem>)], person: usize) -> Self {
        let items = histories.iter().filter(|(who, _)| who.person == person).flat_map(|(_, history)| history);
        Self(items.filter_map(place).map(|(seq, id)| (id, seq)).collect())
    }

    /// Where a message stands that came to none of them, or to some: ids rise in the order of the inbox. One that need not
    /// be `is_placed` stands for sure only where it came to one of them: any number of others may lie between two positions
    /// that have but one between them.
    fn span(&self, id: Option<MessageId>, is_placed: bool) -> Span {
        let Some(id) = id else { return Span { from: 0, to: u64::MAX, is_placed } };
        if let Some(seq) = self.0.get(&id) {
            return Span { from: *seq, to: *seq, is_placed: true };
        }
        let before = self.0.range(..id).next_back().map_or(0, |(_, seq)| *seq);
        let after = self.0.range(id..).next().map_or(u64::MAX, |(_, seq)| *seq);
        Span { from: before.saturating_add(1), to: after.saturating_sub(1), is_placed }
    }
}

/// The position and the id of what came by the inbox.
fn place(item: &HistoryItem) -> Option<(u64, MessageId)> {
    match item {
        HistoryItem::Message(message) => message.seq.zip(message.message_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_id(time_ms: u64) -> MessageId {
        MessageId::new(time_ms, 1)
    }

    #[track_caller]
    fn check(time_ms: u64, expected: (u64, u64)) {
        let places = Places([(message_id(10), 3), (message_id(20), 7)].into());
        let span = places.span(Some(message_id(time_ms)), true);
        assert_eq!((span.from, span.to), expected, "{time_ms}");
    }

    #[test]
    fn a_message_that_did_not_come_stood_between_those_that_did() {
        check(5, (1, 2));
        check(10, (3, 3));
        check(15, (4, 6));
        check(20, (7, 7));
        check(25, (8, u64::MAX - 1));
    }

    #[test]
    fn the_one_position_between_two_is_that_of_a_message_that_has_one() {
        let places = Places([(message_id(10), 3), (message_id(20), 5)].into());
        let is_exact = |time_ms, is_placed| places.span(Some(message_id(time_ms)), is_placed).is_exact();
        assert!(is_exact(15, true));
        assert!(!is_exact(15, false), "its account may have been alone in the conversation when it was sent");
        assert!(is_exact(10, false), "it came to another device of its account");
    }

    #[test]
    fn a_span_meets_what_it_shares_a_position_with() {
        let span = Span { from: 4, to: 6, is_placed: true };
        let met = [(1, 3), (1, 4), (5, 5), (6, 9), (7, 9)].map(|(from, to)| span.meets(from, to));
        assert_eq!(met, [false, true, true, true, false]);
    }
}
