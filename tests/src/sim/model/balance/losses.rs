//! What was sent to a device's account, or by another device of it, and is not on the device: it must be in a gap that was
//! told with the right count, and every gap must be of what has expired. A device that was linked may lack, without a
//! word, what was sent to those that its account had before, and that alone.

use std::collections::{BTreeMap, BTreeSet};

use gureum_client::vault::{HistoryItem, Message};
use gureum_proto::{ConversationId, GapReason};

use super::{Books, Places, Span, Talk, name_of, place};
use crate::sim::installation::Who;
use crate::sim::model::{Handed, Inner, Seen};

/// How much later than a message expired its gap may seem to be told, in milliseconds.
const CLOCK_SLACK_MS: u64 = 1_000;

/// A message that a device has not received.
struct Missing<'a> {
    message: &'a Message,
    span: Span,
    /// The device was in when it was sent.
    is_owed: bool,
}

/// A gap as a history has it.
#[derive(Clone, Copy)]
struct Told {
    from_seq: u64,
    to_seq: u64,
    count: u64,
    reason: GapReason,
}

/// What one device lacks.
pub(super) struct Losses<'a> {
    who: Who,
    model: &'a Inner,
    seen: &'a Seen,
    retention_ms: u64,
    missing: Vec<Missing<'a>>,
    /// What the device has sent itself: where its account has others, that stands in the inbox, and counts in a gap.
    own: Vec<Span>,
    /// Numbers that may stand in a gap, and of which nobody knows what they were.
    unknown: u64,
    pub(super) open: Vec<String>,
}

impl<'a> Losses<'a> {
    pub(super) fn of(books: &Books<'a>, who: Who, histories: &[(Who, Vec<HistoryItem>)], retention_ms: u64) -> Self {
        let model = books.model;
        let places = Places::of(histories, who.person);
        let (mut missing, mut own, mut unknown) = (Vec::new(), Vec::new(), 0);
        let concerns = |(conversation, talk): &(&ConversationId, &Talk<'_>)| {
            model.ledger.is_group(**conversation) || talk.people.contains(&who.person)
        };
        for (conversation, talk) in books.talks.iter().filter(concerns) {
            unknown += talk.holes;
            let since = first_heard(talk, who);
            let knows_from = first_of(talk, who);
            for (number, (writer, message)) in &talk.written {
                let (writer, message) = (*writer, *message);
                if !has_place(model, who, *conversation, (writer, message)) {
                    continue;
                }
                // What an account has sent to another one has a position in its own inbox where it had further devices in
                // the conversation by then, and of a conversation of two nobody notes when they came in.
                let is_placed = writer.person != who.person || model.ledger.is_group(*conversation);
                let span = places.span(message.message_id, is_placed);
                if writer == who {
                    own.push(span);
                } else if !came(model, who, (*conversation, talk), *number) {
                    let was_in =
                        since.get(&writer).is_some_and(|first| first < number) && !model.ledger.is_group(*conversation);
                    let knows_it = knows_from.is_some_and(|first| first < *number);
                    let is_owed = (was_in || is_owed(model, who, (*conversation, knows_it), (writer, message)))
                        && !is_doubled(model, who, (writer, message));
                    missing.push(Missing { message, span, is_owed });
                }
            }
        }
        missing.sort_by_key(|missing| missing.message.message_id);
        let seen = &model.devices[&who];
        Self { who, model, seen, retention_ms, missing, own, unknown, open: Vec::new() }
    }

    pub(super) fn check(&mut self, history: &[HistoryItem]) {
        let gaps = gaps(history);
        if self.check_sum(&gaps) {
            self.check_gaps(&gaps);
            self.check_missing(&gaps, history);
        }
    }

    /// As many as are missing were told to be.
    fn check_sum(&mut self, gaps: &[Told]) -> bool {
        let told: u64 = gaps.iter().map(|gap| gap.count).sum();
        let is_in = |span: Span| gaps.iter().any(|gap| span.meets(gap.from_seq, gap.to_seq));
        let surely = |missing: &&Missing<'_>| missing.is_owed || (missing.span.is_exact() && is_in(missing.span));
        let own = self.own.iter().filter(|span| span.is_exact() && is_in(**span)).count();
        let least = self.missing.iter().filter(surely).count() + own;
        let most = self.missing.iter().filter(|missing| missing.is_owed || is_in(missing.span)).count()
            + self.own.iter().filter(|span| is_in(**span)).count();
        let holds = number(least) <= told && told <= number(most).saturating_add(self.unknown);
        if !holds {
            let first = self.missing.iter().find(|missing| missing.is_owed);
            let first = first.map_or("", |missing| name_of(&missing.message.text));
            let gap = |gap: &Told| format!("{} between {} and {}", gap.count, gap.from_seq, gap.to_seq);
            let gaps = gaps.iter().map(gap).collect::<Vec<_>>().join(", ");
            let who = self.who;
            let what = format!("{who} misses {least} messages (from {first}) and was told of {told}");
            self.open.push(format!("{what} ({own} of them its own, {most} at most; gaps: {gaps})"));
        }
        holds
    }

    /// Each gap is one that can be, was told, and counts what stood there.
    fn check_gaps(&mut self, gaps: &[Told]) {
        let who = self.who;
        // Much of what follows a gap is silent, and no history shows it.
        let account = self.model.people.get(&who.person);
        let last_seq = account.map_or(0, |account| self.model.ledger.last_seq(account.id));
        for gap in gaps {
            let Told { from_seq, to_seq, count, reason } = *gap;
            // What overflows leaves the inbox's room to what came after it.
            let has_overflowed = self.model.may_overflow && last_seq >= to_seq + self.model.kept_min;
            let may_be = reason == GapReason::Expired || (reason == GapReason::Overflow && has_overflowed);
            if !may_be {
                self.open.push(format!("{who} has a gap that cannot be: {reason:?}"));
            }
            match self.seen.gaps.get(&from_seq) {
                None => self.open.push(format!("{who} has a gap from {from_seq} that was not told")),
                Some(seen) if seen.count != count => {
                    let told = seen.count;
                    self.open.push(format!("{who} was told of {told} in the gap of {count} from {from_seq}"));
                }
                Some(_) => {}
            }
            let spans = || self.missing.iter().map(|missing| &missing.span).chain(&self.own);
            let in_it = |span: &&Span| span.meets(from_seq, to_seq);
            let least = number(spans().filter(in_it).filter(|span| span.is_exact()).count());
            let most = number(spans().filter(in_it).count()).saturating_add(self.unknown);
            if count < least || count > most {
                self.open
                    .push(format!("{who} was told of {count} between {from_seq} and {to_seq}, of {least} to {most}"));
            }
        }
    }

    /// What is missing was in a gap, and its time had come.
    fn check_missing(&mut self, gaps: &[Told], history: &[HistoryItem]) {
        let mine: BTreeSet<u64> = history.iter().filter_map(place).map(|(seq, _)| seq).collect();
        let is_empty = |gap: &&Told| mine.range(gap.from_seq..=gap.to_seq).next().is_none();
        for Missing { message, span, .. } in self.missing.iter().filter(|missing| missing.is_owed) {
            let name = name_of(&message.text);
            let holds = |gap: &&Told| span.meets(gap.from_seq, gap.to_seq);
            let holding: Vec<_> = gaps.iter().filter(is_empty).filter(holds).collect();
            let Some(last) = holding.last() else {
                let (from, to) = gaps.first().map_or((0, 0), |gap| (gap.from_seq, gap.to_seq));
                self.open.push(format!("{name} is not in the gap from {from} to {to}"));
                continue;
            };
            // A newer copy of this home has taken it, so that the server need not keep it.
            if self.seen.had_before.contains(&message.text) {
                continue;
            }
            let early_ms = |gap: &Told| {
                let told_ms = self.seen.gaps.get(&gap.from_seq).map_or(u64::MAX, |seen| seen.server_ms);
                (message.server_time_ms + self.retention_ms).saturating_sub(told_ms.saturating_add(CLOCK_SLACK_MS))
            };
            let is_due = |gap: &&Told| gap.reason != GapReason::Expired || early_ms(gap) == 0;
            if !holding.iter().any(is_due) {
                self.open.push(format!("{name} went missing {} ms before its time", early_ms(last)));
            }
        }
    }
}

/// Whether a message may have a position in the inbox of a device's account.
fn has_place(model: &Inner, who: Who, conversation: ConversationId, (writer, message): (Who, &Message)) -> bool {
    let account = |who: Who| model.people.get(&who.person);
    if model.ledger.is_group(conversation) {
        let accounts = account(who).zip(account(writer)).map(|(reader, writer)| (reader.id, writer.id));
        let found = message.message_id.zip(accounts);
        return found.is_some_and(|(id, accounts)| model.ledger.has_place(conversation, id, accounts));
    }
    writer != who || account(who).is_some_and(|account| account.siblings_from_ms.is_some())
}

/// The first number that a device has of each other one.
fn first_heard(talk: &Talk<'_>, who: Who) -> BTreeMap<Who, u64> {
    let mut first = BTreeMap::new();
    for (number, readers) in &talk.read {
        if let (true, Some((writer, _))) = (readers.contains_key(&who), talk.written.get(number)) {
            first.entry(*writer).or_insert(*number);
        }
    }
    first
}

/// The first number that a device has, of whomever.
fn first_of(talk: &Talk<'_>, who: Who) -> Option<u64> {
    let read = talk.read.iter().find(|(_, readers)| readers.contains_key(&who));
    let written = talk.written.iter().find(|(_, (writer, _))| *writer == who);
    read.map(|(number, _)| *number).into_iter().chain(written.map(|(number, _)| *number)).min()
}

/// Whether a message has come to a device by its inbox, to be read or not.
fn came(model: &Inner, who: Who, (conversation, talk): (ConversationId, &Talk<'_>), number: u64) -> bool {
    talk.read.get(&number).is_some_and(|readers| readers.contains_key(&who))
        || talk.unreadable.get(&number).is_some_and(|readers| readers.contains_key(&who))
        || model.devices.get(&who).is_some_and(|seen| seen.unreadable.contains(&(conversation, number)))
}

/// Whether the same words have come to a device under another number: an older copy of their sender has sent them again,
/// and what came second is passed over.
fn is_doubled(model: &Inner, who: Who, (writer, message): (Who, &Message)) -> bool {
    model.devices.get(&writer).is_some_and(|seen| seen.put_back_life.is_some())
        && model.devices.get(&who).is_some_and(|seen| seen.texts.contains(&message.text))
}

/// Whether a device was in when a message was sent, so that it must have it. Who sends is past another one's joining as
/// soon as it has read something of that one, and stays so: a device lacks no more than a beginning of what each other
/// one has sent. A home that was put back may be older than its device's first joining, and joins as if for the first
/// time: what it `knows` of the conversation from before then shows whether it is not. Of a group the ledger knows more.
fn is_owed(
    model: &Inner,
    who: Who,
    (conversation, knows): (ConversationId, bool),
    (writer, message): (Who, &Message),
) -> bool {
    if model.ledger.is_group(conversation) {
        let device = model.devices.get(&who).and_then(|seen| seen.device);
        let found = message.message_id.zip(device);
        return found.is_some_and(|(id, device)| model.ledger.was_in(conversation, id, device));
    }
    let siblings_from_ms = model.people.get(&who.person).and_then(|account| account.siblings_from_ms);
    let Some(siblings_from_ms) = siblings_from_ms else { return true };
    let Some(Handed { at_ms, acked_ms, when_well, .. }) = model.handed.get(&message.text) else { return true };
    let was_alone = who.device == 0 && acked_ms.is_some_and(|acked_ms| acked_ms < siblings_from_ms);
    let Some(seen) = model.devices.get(&who) else { return true };
    let heard = |device| model.devices.get(&writer).and_then(|seen| seen.heard.get(&(conversation, device)));
    let was_heard = seen.device.and_then(heard).is_some_and(|heard_ms| heard_ms < at_ms);
    *when_well || was_alone || (was_heard && (knows || seen.put_back_life.is_none()))
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

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
