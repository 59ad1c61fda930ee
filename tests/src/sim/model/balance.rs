//! The balance of all histories: every message of a conversation has one number, stands once in its sender's history, and
//! once in its recipient's or in a gap that was told.

use std::collections::BTreeMap;

use gureum_client::vault::{HistoryItem, Message};
use gureum_proto::{ConversationId, GapReason, MessageId};

use super::{Fate, Inner, name_of};

/// How much later than a message expired its gap may seem to be told, in milliseconds.
const CLOCK_SLACK_MS: u64 = 1_000;

/// One conversation's messages, as its two people have them.
#[derive(Default)]
struct Talk<'a> {
    /// By number: who wrote it, and what the writer's history says.
    written: BTreeMap<u64, (usize, &'a Message)>,
    /// By number: what the reader's history says.
    read: BTreeMap<u64, (usize, &'a Message)>,
    /// Numbers that came, and that somebody was told cannot be read.
    unreadable: BTreeMap<u64, usize>,
}

pub(super) fn open_questions(model: &Inner, retention_ms: u64, histories: &[Vec<HistoryItem>]) -> Vec<String> {
    let mut open = Vec::new();
    let mut talks: BTreeMap<ConversationId, Talk<'_>> = BTreeMap::new();
    for (person, history) in histories.iter().enumerate() {
        sort_out(person, history, &mut talks, &mut open);
    }
    for (conversation, talk) in &talks {
        check_talk(*conversation, talk, &mut open);
        for (number, person) in &talk.unreadable {
            if !model.people[*person].rejoined.contains(conversation) || talk.read.contains_key(number) {
                open.push(format!("person {person} cannot read number {number}, though it was always in"));
            }
        }
    }
    for (person, history) in histories.iter().enumerate() {
        check_losses(model, retention_ms, person, history, &talks, &mut open);
    }
    check_promises(model, &talks, &mut open);
    open
}

/// Puts a history's messages into their conversations.
fn sort_out<'a>(
    person: usize,
    history: &'a [HistoryItem],
    talks: &mut BTreeMap<ConversationId, Talk<'a>>,
    open: &mut Vec<String>,
) {
    let mut last_number: BTreeMap<ConversationId, u64> = BTreeMap::new();
    for item in history {
        let message = match item {
            HistoryItem::Message(message) => message,
            HistoryItem::Unreadable { conversation, number, .. } => {
                if talks.entry(*conversation).or_default().unreadable.insert(*number, person).is_some() {
                    open.push(format!("number {number} stands twice, unreadable"));
                }
                continue;
            }
            HistoryItem::Gap { .. } | HistoryItem::Restarted { .. } => continue,
        };
        let talk = talks.entry(message.conversation).or_default();
        let side = if message.own { &mut talk.written } else { &mut talk.read };
        if side.insert(message.number, (person, message)).is_some() {
            open.push(format!("number {} stands twice ({})", message.number, name_of(&message.text)));
        }
        let last = last_number.insert(message.conversation, message.number).unwrap_or(0);
        if last >= message.number {
            open.push(format!("person {person} has number {} after {last}", message.number));
        }
    }
}

fn check_talk(conversation: ConversationId, talk: &Talk<'_>, open: &mut Vec<String>) {
    for (expected, number) in (1..).zip(talk.written.keys()) {
        if *number != expected {
            open.push(format!("conversation {conversation}: nobody has sent number {expected}"));
            break;
        }
    }
    for (number, (reader, read)) in &talk.read {
        let Some((writer, written)) = talk.written.get(number) else {
            open.push(format!("person {reader} has number {number}, which nobody has sent"));
            continue;
        };
        let facts = |message: &Message| (message.text.clone(), message.message_id, message.server_time_ms);
        if facts(read) != facts(written) || writer == reader {
            open.push(format!("number {number} is {} and {}", name_of(&read.text), name_of(&written.text)));
        }
    }
}

/// What was sent to a person and is not there must be in a gap, and every gap must be of what has expired.
fn check_losses(
    model: &Inner,
    retention_ms: u64,
    person: usize,
    history: &[HistoryItem],
    talks: &BTreeMap<ConversationId, Talk<'_>>,
    open: &mut Vec<String>,
) {
    let Some(account) = model.people[person].account else { return };
    let mut missing: BTreeMap<Option<MessageId>, &Message> = BTreeMap::new();
    for talk in talks.values() {
        for (number, (writer, written)) in &talk.written {
            let is_for = written.peer == Some(account) && *writer != person;
            let came = talk.read.contains_key(number) || talk.unreadable.get(number) == Some(&person);
            if is_for && !came {
                missing.insert(written.message_id, written);
            }
        }
    }
    let gaps = gaps(history);
    let told: u64 = gaps.iter().map(|gap| gap.count).sum();
    if told != u64::try_from(missing.len()).unwrap_or(u64::MAX) {
        let first = missing.values().next().map_or("", |message| name_of(&message.text));
        open.push(format!("person {person} misses {} messages (from {first}) and was told of {told}", missing.len()));
        return;
    }
    let places = Places::of(history);
    let last_gap = gaps.last().map_or(0, |gap| gap.to_seq);
    let last_seq = places.last().max(last_gap);
    // Ids rise in the order of the inbox, and so the gaps cover the missing ones in order.
    let mut missing = missing.values();
    for gap in gaps {
        let Told { from_seq, count, reason, .. } = gap;
        // What overflows leaves the inbox's room to what came after it.
        let has_overflowed = model.may_overflow && last_seq >= gap.to_seq + model.kept_min;
        let may_be = reason == GapReason::Expired || (reason == GapReason::Overflow && has_overflowed);
        if !may_be {
            open.push(format!("person {person} has a gap that cannot be: {reason:?}"));
        }
        let Some(seen) = model.people[person].gaps.get(&from_seq).copied() else {
            open.push(format!("person {person} has a gap from {from_seq} that was not told"));
            return;
        };
        if seen.count != count {
            open.push(format!("person {person} was told of {} in the gap of {count} from {from_seq}", seen.count));
        }
        for message in missing.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            let is_due = reason == GapReason::Expired;
            if !places.hold(&gap, message) {
                open.push(format!("{} is not in the gap from {from_seq} to {}", name_of(&message.text), gap.to_seq));
            }
            if is_due && message.server_time_ms + retention_ms > seen.server_ms + CLOCK_SLACK_MS {
                let early_ms = message.server_time_ms + retention_ms - seen.server_ms;
                open.push(format!("{} went missing {early_ms} ms before its time", name_of(&message.text)));
            }
        }
    }
}

/// A gap as a history has it.
#[derive(Clone, Copy)]
struct Told {
    from_seq: u64,
    to_seq: u64,
    count: u64,
    reason: GapReason,
}

/// The gaps of a history, in the order of the inbox.
fn gaps(history: &[HistoryItem]) -> Vec<Told> {
    let mut gaps: Vec<_> = history
        .iter()
        .filter_map(|item| match *item {
            HistoryItem::Gap { from_seq, to_seq, count, reason } => Some(Told { from_seq, to_seq, count, reason }),
            _ => None,
        })
        .collect();
    gaps.sort_by_key(|gap| gap.from_seq);
    gaps
}

/// What came at which position of an inbox.
struct Places(BTreeMap<u64, MessageId>);

impl Places {
    fn of(history: &[HistoryItem]) -> Self {
        let place = |item: &HistoryItem| match item {
            HistoryItem::Message(message) => message.seq.zip(message.message_id),
            _ => None,
        };
        Self(history.iter().filter_map(place).collect())
    }

    /// The last position at which something came.
    fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Whether a message that is missing was between what came before and after a gap, in which nothing came.
    fn hold(&self, gap: &Told, message: &Message) -> bool {
        let Some(id) = message.message_id else { return true };
        let before = self.0.range(..gap.from_seq).next_back().map(|(_, id)| *id);
        let after = self.0.range(gap.to_seq.saturating_add(1)..).next().map(|(_, id)| *id);
        let is_between = before.is_none_or(|before| before < id) && after.is_none_or(|after| id < after);
        is_between && self.0.range(gap.from_seq..=gap.to_seq).next().is_none()
    }
}

/// What the senders were told must have come true.
fn check_promises(model: &Inner, talks: &BTreeMap<ConversationId, Talk<'_>>, open: &mut Vec<String>) {
    let written: BTreeMap<&str, (usize, &Message)> = talks
        .values()
        .flat_map(|talk| talk.written.values())
        .map(|(writer, message)| (message.text.as_str(), (*writer, *message)))
        .collect();
    let mut unsent: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (text, handed) in &model.handed {
        let found = written.get(text.as_str());
        let name = name_of(text);
        if let Some((writer, message)) = found {
            let is_meant = *writer == handed.from && message.peer == model.people[handed.to].account;
            if !is_meant {
                open.push(format!("{name} was sent by {writer} to somebody else"));
            }
        }
        match (&handed.fate, found) {
            (Fate::Acked(id), Some((_, message))) if message.message_id != *id => {
                open.push(format!("{name} was acknowledged under another id"));
            }
            (Fate::Acked(_), None) => open.push(format!("{name} was acknowledged and is lost")),
            (Fate::Kept, None) => unsent.entry(handed.from).or_default().push(name),
            (Fate::Unknown, _) if model.people[handed.from].life == handed.life => {
                open.push(format!("person {} still waits to hear of {name}", handed.from));
            }
            (Fate::Refused(why), Some(_)) => open.push(format!("{name} was sent, though refused: {why}")),
            _ => {}
        }
    }
    for (person, unsent) in unsent {
        if u64::try_from(unsent.len()).unwrap_or(u64::MAX) > model.people[person].failed {
            open.push(format!("kept by person {person} and not sent: {unsent:?}"));
        }
    }
    for (text, (writer, _)) in written {
        if !model.handed.contains_key(text) {
            open.push(format!("person {writer} sent {}, which nobody handed over", name_of(text)));
        }
    }
}
